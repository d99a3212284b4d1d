// What SO_RCVBUF holds, and that a reader who is at it loses nothing that the wire can keep for it.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

using namespace netstack_test;

namespace {

constexpr size_t kLong = 32'768;

class BusyReaders : public UdpTest {
 protected:
  void send(int count, size_t bytes) {
    for (int i = 0; i < count; i++) {
      std::string text(bytes, static_cast<char>('a' + i));
      ASSERT_EQ(static_cast<long>(bytes), send_to(client_, address(kServerIp, 53), text));
    }
    (void)pair_.client->poll(test_clock->now_ns);
  }
  void poll() { (void)pair_.server->poll(test_clock->now_ns); }
  static int drops_of(UdpEndpoint* endpoint) { return static_cast<int>(endpoint->figures().drops); }

  UdpEndpoint* server_ = nullptr;
  UdpEndpoint* client_ = nullptr;
  void SetUp() override {
    UdpTest::SetUp();
    server_ = bound(pair_.server, 53);
    client_ = open(pair_.client);
  }
};

// As many as Linux takes with net.core.rmem_default, of each length (measured there, from a neighbour behind a veth pair; a last fragment
// of a few bytes costs nothing there).
TEST_F(BusyReaders, TheBufferHoldsAsManyAsLinuxs) {
  const struct {
    size_t bytes;
    int count;
  } kTold[] = {{100, 256}, {1000, 92}, {1472, 92}, {3000, 39}, {8000, 16}, {16'000, 8}, {kLong, 4}, {60'000, 2}};
  for (const auto& [bytes, count] : kTold) {
    for (int i = 0; i < count + 5; i++) {
      send_to(client_, address(kServerIp, 53), std::string(bytes, 'x'));
      pair_.settle();
      test_clock->now_ns += kMs;  // nobody reads
      pair_.settle();
    }
    int got = 0;
    while (take(server_).size() == bytes) got++;
    EXPECT_EQ(count, got) << bytes;
  }
}

// Many have gathered on the wire; each poll would bring three more than fit while one is read.
TEST_F(BusyReaders, WhoReadsLosesNothing) {
  send(20, kLong);
  int got = 0;
  for (int i = 0; i < 200 && got < 20; i++) {
    poll();
    const std::string text = take(server_);
    if (text.size() != kLong) continue;
    EXPECT_EQ(static_cast<char>('a' + got), text[0]);
    got++;
    test_clock->now_ns += 20'000;
  }
  EXPECT_EQ(20, got);
  EXPECT_EQ(0, drops_of(server_));
}

// What was left on the wire would not wake him: whoever is about to sleep has it brought in.
TEST_F(BusyReaders, WhoGoesToSleepHasSeenAll) {
  constexpr int kTurns = 8;
  UdpEndpoint* other = bound(pair_.server, 54);
  send(8, kLong);
  poll();
  EXPECT_EQ(kLong, take(server_).size());
  ASSERT_EQ(5, send_to(client_, address(kServerIp, 54), "other"));
  (void)pair_.client->poll(test_clock->now_ns);
  for (int turn = 0; turn < kTurns; turn++) poll();
  EXPECT_NE("other", take(other)) << "it was to be held back for the reader";
  std::string text;
  for (int turn = 0; turn < kTurns && text != "other"; turn++) {
    pair_.server->hold_nothing_back();
    poll();
    text = take(other);
  }
  EXPECT_EQ("other", text);
}

// Nobody reads: what does not fit is lost, and others are served.
TEST_F(BusyReaders, WhoDoesNotReadHoldsNobodyUp) {
  UdpEndpoint* other = bound(pair_.server, 54);
  send(20, kLong);
  poll();
  EXPECT_EQ(kLong, take(server_).size());
  ASSERT_EQ(5, send_to(client_, address(kServerIp, 54), "other"));
  (void)pair_.client->poll(test_clock->now_ns);
  std::string text;
  const uint64_t begin_ns = test_clock->now_ns;
  for (int i = 0; i < 1000 && text != "other"; i++) {
    test_clock->now_ns += 10'000;
    poll();
    text = take(other);
  }
  EXPECT_EQ("other", text);
  EXPECT_LT(test_clock->now_ns - begin_ns, 3 * kMs);
  EXPECT_LT(0, drops_of(server_));
}

// Who reads slowly holds others up for a moment at most, and a wire that is about to lose frames is emptied.
TEST_F(BusyReaders, TheOthersWaitForAMomentOnly) {
  UdpEndpoint* other = bound(pair_.server, 54);
  for (const bool crowded : {false, true}) {
    send(4, kLong);
    for (int i = 0; i < 2; i++) poll();
    ASSERT_EQ(5, send_to(client_, address(kServerIp, 54), "other"));
    (void)pair_.client->poll(test_clock->now_ns);
    pair_.server_wire().crowd = crowded;
    std::string text;
    const uint64_t begin_ns = test_clock->now_ns;
    while (text != "other" && test_clock->now_ns - begin_ns < 5 * kMs) {
      test_clock->now_ns += crowded ? 0 : 10'000;
      poll();
      text = take(other);
      if (crowded) break;
    }
    pair_.server_wire().crowd = false;
    EXPECT_EQ("other", text);
    EXPECT_LE(test_clock->now_ns - begin_ns, 2 * kMs);
    while (take(server_).size() == kLong) poll();
    pair_.pass(10);
  }
}

}  // namespace
