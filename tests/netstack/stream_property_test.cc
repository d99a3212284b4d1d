// Any split of writes against any split of reads, over clean and bad wires: the bytes arrive once and in order.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <random>

using namespace netstack_test;

namespace {

struct Scenario {
  const char* name;
  int loss, duplicate, reorder;
  size_t bytes;
  int largest_write, largest_read;
  Segments segments;
};

void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

class StreamProperty : public StackTest, public testing::WithParamInterface<Scenario> {
 protected:
  void SetUp() override {
    pair_ = Pair::get(GetParam().segments);
    StackTest::SetUp();
  }
};

uint8_t byte_at(uint64_t offset, int direction) {
  return static_cast<uint8_t>((offset * 2654435761u >> 13) + static_cast<uint64_t>(direction) * 77);
}

// One direction of a connection: what was written, what was read.
struct Flow {
  TcpStream* from;
  TcpStream* to;
  int direction;
  uint64_t written = 0, read = 0;

  void push(std::mt19937& random, size_t total, int largest) {
    std::vector<uint8_t> data(random() % static_cast<unsigned>(largest) + 1);
    if (data.size() > total - written) data.resize(total - written);
    if (data.empty()) return;
    for (size_t i = 0; i < data.size(); i++) data[i] = byte_at(written + i, direction);
    const size_t first = random() % (data.size() + 1);
    iovec parts[2] = {{data.data(), first}, {data.data() + first, data.size() - first}};
    const long n = from->write(parts, 2, random() % 8 == 0);
    if (n > 0) written += static_cast<uint64_t>(n);
    ASSERT_TRUE(n > 0 || n == -EAGAIN) << n;
  }
  void pull(std::mt19937& random, int largest) {
    uint8_t buffer[3][40000];
    iovec parts[3];
    for (int i = 0; i < 3; i++) parts[i] = {buffer[i], random() % static_cast<unsigned>(largest) + (i == 0 ? 1 : 0)};
    if (random() % 4 == 0) {
      const long seen = to->read(parts, 3, true);
      ASSERT_TRUE(seen > 0 || seen == -EAGAIN);
      if (seen > 0) {
        ASSERT_EQ(byte_at(read, direction), buffer[0][0]);
      }
    }
    long n = to->read(parts, 3, false);
    ASSERT_TRUE(n > 0 || n == -EAGAIN) << n;
    for (int i = 0; i < 3 && n > 0; i++) {
      for (size_t k = 0; k < parts[i].iov_len && n > 0; k++, n--, read++) ASSERT_EQ(byte_at(read, direction), buffer[i][k]) << read;
    }
  }
};

TEST_P(StreamProperty, BytesArriveOnceAndInOrder) {
  const Scenario& scenario = GetParam();
  for (unsigned seed = 1; seed <= 3; seed++) {
    std::mt19937 random(seed);
    auto [client, server] = connected(static_cast<uint16_t>(4000 + seed));
    for (int i = 0; i < 2; i++) pair_.link->ends[i].impairment = {scenario.loss, scenario.duplicate, scenario.reorder, seed};
    Flow flows[2] = {{client, server, 0}, {server, client, 1}};
    for (int turn = 0; turn < 400'000; turn++) {
      if (flows[0].read == scenario.bytes && flows[1].read == scenario.bytes) break;
      Flow& flow = flows[random() % 2];
      if (random() % 2 == 0) flow.push(random, scenario.bytes, scenario.largest_write);
      else flow.pull(random, scenario.largest_read);
      if (HasFatalFailure()) return;
      if (random() % 4 == 0) test_clock->now_ns += 1 * kMs;
      pair_.client->poll(test_clock->now_ns);
      if (random() % 2 == 0) pair_.server->poll(test_clock->now_ns);
      if (flows[0].written == scenario.bytes && flows[1].written == scenario.bytes) test_clock->now_ns += 10 * kMs;
    }
    EXPECT_EQ(scenario.segments == Segments::by_reference, pair_.client_wire().longest_sent > MemoryWire::kMtu + 14);
    EXPECT_EQ(scenario.bytes, flows[0].read);
    EXPECT_EQ(scenario.bytes, flows[1].read);
    for (int i = 0; i < 2; i++) pair_.link->ends[i].impairment = {};
    client->release();
    EXPECT_TRUE(pair_.until([&, s = server] { return read_some(*s) == 0; }));
    server->release();
    pair_.pass(3000);
  }
}

class StandStill : public StackTest, public testing::WithParamInterface<Segments> {
 protected:
  void SetUp() override {
    pair_ = Pair::get(GetParam());
    StackTest::SetUp();
  }
};

// Processes that get no CPU for longer than a retransmission timeout, and readers that leave their window shut: both ends then have
// old segments on the way that carry new acknowledgements. Once both work again the rest arrives at the pace of a working connection.
TEST_P(StandStill, ConnectionsGoOnAfterwards) {
  constexpr size_t kBytes = 12'000'000;
  for (unsigned seed = 1; seed <= 40; seed++) {
    std::mt19937 random(seed);
    auto [client, server] = connected(static_cast<uint16_t>(4100 + seed));
    Flow flows[2] = {{client, server, 0}, {server, client, 1}};
    const auto turn = [&](unsigned polls, unsigned reads) {
      for (Flow& flow : flows) {
        flow.push(random, kBytes, 100'000);
        if ((reads >> flow.direction & 1) != 0) flow.pull(random, 30'000);
      }
      if ((polls & 1) != 0) pair_.client->poll(test_clock->now_ns);
      if ((polls & 2) != 0) pair_.server->poll(test_clock->now_ns);
    };
    for (int spell = 0; spell < 60 && !HasFatalFailure(); spell++) {
      const unsigned polls = random() % 4, reads = random() % 4;
      const uint64_t step = (random() % 3 == 0 ? random() % 400 : random() % 3) * kMs;
      for (unsigned turns = random() % 40; turns > 0; turns--) {
        turn(polls, reads);
        test_clock->now_ns += step;
      }
    }
    const uint64_t start = test_clock->now_ns;
    const auto done = [&] { return flows[0].read == kBytes && flows[1].read == kBytes; };
    while (!done() && test_clock->now_ns - start < 20'000 * kMs && !HasFatalFailure()) {
      turn(3, 3);
      test_clock->now_ns += kMs;
    }
    ASSERT_TRUE(done()) << "seed " << seed << ": " << flows[0].read << " and " << flows[1].read << " bytes";
    client->release();
    EXPECT_TRUE(pair_.until([&, s = server] { return read_some(*s) == 0; }));
    server->release();
    pair_.pass(3000);
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, StandStill, testing::Values(Segments::checked, Segments::by_reference),
                         [](const auto& segments) { return segments.param == Segments::checked ? "checked" : "by_reference"; });
INSTANTIATE_TEST_SUITE_P(Wires, StreamProperty,
                         testing::Values(Scenario{"clean", 0, 0, 0, 2'000'000, 3000, 3000, Segments::unchecked},
                                         Scenario{"checksums", 0, 0, 0, 2'000'000, 20000, 9000, Segments::checked},
                                         Scenario{"tiny", 0, 0, 0, 30'000, 7, 5, Segments::checked},
                                         Scenario{"large_writes", 0, 0, 0, 8'000'000, 300'000, 30'000, Segments::unchecked},
                                         Scenario{"slow_reader", 0, 0, 0, 3'000'000, 300'000, 400, Segments::unchecked},
                                         Scenario{"loss", 20, 0, 0, 500'000, 5000, 5000, Segments::checked},
                                         Scenario{"heavy_loss", 150, 0, 0, 60'000, 5000, 5000, Segments::checked},
                                         Scenario{"reorder", 0, 0, 100, 1'000'000, 5000, 5000, Segments::checked},
                                         Scenario{"duplicate", 0, 100, 0, 1'000'000, 5000, 5000, Segments::checked},
                                         Scenario{"everything", 30, 30, 60, 300'000, 9000, 4000, Segments::checked},
                                         Scenario{"long_segments", 0, 0, 0, 8'000'000, 100'000, 30'000, Segments::by_reference},
                                         Scenario{"long_of_many_writes", 0, 0, 0, 2'000'000, 900, 30'000, Segments::by_reference},
                                         Scenario{"long_with_everything", 30, 30, 60, 2'000'000, 60'000, 20'000, Segments::by_reference}),
                         [](const auto& scenario) { return std::string(scenario.param.name); });

}  // namespace
