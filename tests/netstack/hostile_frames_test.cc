// Frames nobody should send: random bytes, mutated real frames, forged segments. The stack neither crashes nor leaks nor loses its
// connections.
// SPDX-License-Identifier: BSD-3-Clause
#include "forged_segment.h"
#include "stack_pair.h"

#include <cstring>
#include <random>

using namespace netstack_test;

namespace {

std::vector<std::vector<uint8_t>> recorded;

void record(const uint8_t* data, uint32_t length) {
  if (recorded.size() < 4000) recorded.emplace_back(data, data + length);
}

class Hostile : public StackTest {
 protected:
  void TearDown() override {
    recorded.clear();
    pair_.link->ends[0].tap = pair_.link->ends[1].tap = nullptr;
    pair_.pass(40'000, 50);
    StackTest::TearDown();
  }
  void inject(const std::vector<uint8_t>& frame) { pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size())); }
  void inject(const Segment& segment) { inject(segment.frame(pair_.client_wire(), pair_.server_wire())); }
  void expect_service(uint16_t port) {
    auto [client, server] = connected(port);
    send_text(*client, "fine");
    EXPECT_TRUE(pair_.until([&, s = server] { return s->readable_bytes() == 4; }));
    EXPECT_EQ("fine", text_of(*server));
    client->release();
    server->release();
  }
};

TEST_F(Hostile, RandomBytes) {
  std::mt19937 random(1);
  TcpListener* listener = listen(80);
  for (int i = 0; i < 100'000; i++) {
    std::vector<uint8_t> frame(random() % 1514 + 1);
    for (uint8_t& byte : frame) byte = static_cast<uint8_t>(random());
    if (i % 2 == 0 && frame.size() >= 34) {  // one in two looks like IP to us
      memcpy(frame.data(), pair_.server_wire().facts().mac, 6);
      frame[12] = 8, frame[13] = static_cast<uint8_t>(i % 8 == 0 ? 6 : 0), frame[14] = static_cast<uint8_t>(0x40 | random() % 16);
    }
    inject(frame);
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  listener->release();
  expect_service(81);
}

TEST_F(Hostile, MutatedFrames) {
  pair_ = Pair::get(Segments::unchecked);  // without checksums every mutation reaches TCP
  SetUp();
  std::mt19937 random(2);
  pair_.client_wire().tap = record;
  auto [first_client, first_server] = connected(80);
  for (int i = 0; i < 200; i++) {
    send_text(*first_client, std::string(random() % 4000 + 1, 'm'));
    send_text(*first_server, std::string(random() % 4000 + 1, 'n'));
    pair_.pass(10);
    text_of(*first_client);
    text_of(*first_server);
  }
  first_client->release();
  first_server->release();
  pair_.client_wire().tap = nullptr;
  ASSERT_GT(recorded.size(), 100u);
  TcpListener* listener = listen(80, 10'000);
  TcpStream* client = connect(80);
  pair_.settle();
  TcpStream* server = accept(*listener);
  const uint16_t port = ntohs(client->local().port_be);
  for (int i = 0; i < 200'000; i++) {
    std::vector<uint8_t> frame = recorded[random() % recorded.size()];
    if (frame.size() >= 54 && random() % 4 != 0) frame[34] = static_cast<uint8_t>(port >> 8), frame[35] = static_cast<uint8_t>(port);
    for (unsigned k = random() % 6; k > 0; k--)
      frame[random() % std::min<size_t>(frame.size(), random() % 2 != 0 ? 74 : 2000)] = static_cast<uint8_t>(random());
    if (random() % 10 == 0) frame.resize(random() % frame.size() + 1);
    inject(frame);
    if (i % 8 == 0) {
      test_clock->now_ns += kMs;
      pair_.settle();
      text_of(*server);
      if (random() % 16 == 0) (void)send_text(*server, "some data to acknowledge");
    }
    while (TcpStream* other = accept(*listener)) {
      (void)other->set_option(TcpOption::linger_s, 0);
      other->release();
    }
  }
  pair_.settle();
  for (TcpStream* stream : {client, server}) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
  listener->release();
  pair_.pass(70'000, 50);
  expect_service(81);
}

TEST_F(Hostile, ForgedSegmentsDoNotDisturbAConnection) {
  TcpListener* listener = listen(80);
  pair_.client_wire().tap = record;
  TcpStream* client = connect(80);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  const std::vector<uint8_t> last = recorded.back();  // the handshake's ACK
  const auto word = [&](size_t at) {
    return static_cast<uint32_t>(last[at] << 24 | last[at + 1] << 16 | last[at + 2] << 8 | last[at + 3]);
  };
  const uint16_t port = ntohs(client->local().port_be);
  const uint32_t seq = word(38), ack = word(42);
  const Segment base{port, 80, seq, ack, kAck};
  const auto with = [&](uint32_t s, uint32_t a, int flags, size_t data = 0) {
    Segment segment = base;
    segment.seq = s, segment.ack = a, segment.flags = static_cast<uint8_t>(flags);
    segment.data.assign(data, 'Z');
    return segment;
  };
  inject(with(seq, ack, kSyn));                        // SYN on a synchronised connection
  inject(with(seq, ack, kSyn | kAck, 100));
  inject(with(seq, ack, kSyn | kFin));
  inject(with(seq, ack, kSyn | kRst));
  inject(with(seq, ack, 0, 50));                       // data without ACK
  inject(with(seq, ack, kFin));                        // FIN without ACK
  inject(with(seq + 5000, ack, kRst));                 // RST in the window, not at its edge
  inject(with(seq - 5, ack, kRst));
  inject(with(seq + 524'000, ack, kAck, 1000));        // beyond the window
  inject(with(seq + 600'000, ack, kAck | kFin, 10));
  inject(with(seq - 100'000, ack, kAck, 10));
  inject(with(seq, ack + 100'000, kAck));              // acknowledges what was never sent
  inject(with(seq, 0, kUrg | kPsh));
  pair_.settle();
  EXPECT_TRUE(server->connected());
  EXPECT_EQ(0u, server->readable_bytes());
  send_text(*client, "undisturbed");
  EXPECT_TRUE(pair_.until([&] { return server->readable_bytes() == 11; }));
  EXPECT_EQ("undisturbed", text_of(*server));
  client->release();
  server->release();
  listener->release();
}

TEST_F(Hostile, BadOptions) {
  TcpListener* listener = listen(80, 4000);
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; i++) {
    Segment syn{static_cast<uint16_t>(1024 + i % 60'000), 80, static_cast<uint32_t>(random()), 0, kSyn};
    syn.options.resize(random() % 11 * 4);
    for (uint8_t& byte : syn.options) byte = static_cast<uint8_t>(random() % 2 != 0 ? random() % 9 : random());
    inject(syn);
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  listener->release();
  pair_.settle();
  EXPECT_EQ(server_before_.pcbs, pair_.server->levels().pcbs);
  EXPECT_EQ(0, pair_.server->levels().half_open);
}

TEST_F(Hostile, FragmentsThatNeverComplete) {
  const Segment syn{1024, 80, 1, 0, kSyn, {}, std::vector<uint8_t>(800, 'f')};
  for (int i = 0; i < 5000; i++) {
    std::vector<uint8_t> frame = syn.frame(pair_.client_wire(), pair_.server_wire());
    frame[14 + 4] = static_cast<uint8_t>(i >> 8), frame[14 + 5] = static_cast<uint8_t>(i);
    frame[14 + 6] = static_cast<uint8_t>(0x20 | (i % 3 == 0 ? 1 : 0));
    frame[14 + 10] = frame[14 + 11] = 0;
    const uint16_t sum = sum_of(&frame[14], 20, 0);
    frame[14 + 10] = static_cast<uint8_t>(sum >> 8), frame[14 + 11] = static_cast<uint8_t>(sum);
    inject(frame);
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_NE(UINT64_MAX, pair_.server->next_timer_ns());
  EXPECT_LE(pair_.server->levels().arena_bytes, 100'000u);
  EXPECT_GE(pair_.server->levels().free_frames, server_before_.free_frames - 256);
  expect_service(80);
  pair_.pass(25'000, 50);
  EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
}

}  // namespace
