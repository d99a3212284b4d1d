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

// ---------------------------------------------------------------- the link

std::vector<uint8_t> arp(uint16_t operation, const uint8_t* mac, uint32_t from, uint32_t to, const MemoryWire& target) {
  std::vector<uint8_t> frame(42);
  constexpr uint8_t kStart[] = {8, 6, 0, 1, 8, 0, 6, 4, 0};
  memcpy(&frame[0], target.facts().mac, 6);
  memcpy(&frame[6], mac, 6);
  memcpy(&frame[12], kStart, sizeof kStart);
  frame[21] = static_cast<uint8_t>(operation);
  memcpy(&frame[22], mac, 6);
  from = htonl(from), to = htonl(to);
  memcpy(&frame[28], &from, 4);
  memcpy(&frame[38], &to, 4);
  return frame;
}

int arp_frames(uint8_t operation) {
  int count = 0;
  for (const std::vector<uint8_t>& f : recorded) count += f.size() >= 42 && f[12] == 8 && f[13] == 6 && f[21] == operation;
  return count;
}

// The table is bounded: who floods it makes the stack ask again for a neighbour it needs, and no more.
TEST_F(Hostile, AFloodOfArp) {
  auto [client, server] = connected(80);
  pair_.server_wire().tap = record;
  constexpr uint32_t kServer = 0xc612'0002;
  uint8_t mac[6] = {2, 1, 1, 1, 0, 0};
  for (uint32_t i = 0; i < 3000; i++) {
    mac[4] = static_cast<uint8_t>(i >> 8), mac[5] = static_cast<uint8_t>(i);
    const uint32_t source = 0xc612'0003 + i % 250;
    const auto operation = static_cast<uint16_t>(1 + i % 2);
    inject(arp(operation, mac, i % 4 == 3 ? source + (i << 8) : source, i % 8 < 6 ? kServer : source, pair_.server_wire()));
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_EQ(0, arp_frames(1));
  EXPECT_GT(arp_frames(2), 1000);
  EXPECT_LE(pair_.server->levels().arena_bytes, server_before_.arena_bytes + 10'000);
  recorded.clear();
  send_text(*server, "there");
  EXPECT_TRUE(pair_.until([&, c = client] { return c->readable_bytes() == 5; }, 100));
  EXPECT_LE(arp_frames(1), 1);
  text_of(*client);
  client->release();
  server->release();
}

// Nobody but the settings says where packets go (RFC 1812, 5.2.7.2, is for routers).
TEST_F(Hostile, RedirectsAreRefused) {
  auto [client, server] = connected(80);
  const uint8_t liar[6] = {2, 9, 9, 9, 9, 9};
  inject(arp(1, liar, 0xc612'0009, 0xc612'0002, pair_.server_wire()));
  Segment packet{80, ntohs(client->local().port_be), 1, 1, kAck};
  std::vector<uint8_t> frame = packet.frame(pair_.client_wire(), pair_.server_wire());
  std::vector<uint8_t> sent(frame.begin() + 14, frame.end());  // the packet that the redirect is about
  std::swap_ranges(sent.begin() + 12, sent.begin() + 16, sent.begin() + 16);
  std::vector<uint8_t> message{5, 1, 0, 0, 0xc6, 0x12, 0, 9};
  message.insert(message.end(), sent.begin(), sent.begin() + 28);
  const uint16_t sum = sum_of(message.data(), message.size(), 0);
  message[2] = static_cast<uint8_t>(sum >> 8), message[3] = static_cast<uint8_t>(sum);
  frame.resize(34);
  frame.insert(frame.end(), message.begin(), message.end());
  frame[14 + 9] = 1, frame[14 + 3] = static_cast<uint8_t>(frame.size() - 14), frame[14 + 10] = frame[14 + 11] = 0;
  const uint16_t header_sum = sum_of(&frame[14], 20, 0);
  frame[14 + 10] = static_cast<uint8_t>(header_sum >> 8), frame[14 + 11] = static_cast<uint8_t>(header_sum);
  inject(frame);
  pair_.settle();
  pair_.server_wire().tap = record;
  send_text(*server, "there");
  EXPECT_TRUE(pair_.until([&, c = client] { return c->readable_bytes() == 5; }, 100));
  EXPECT_FALSE(recorded.empty());
  for (const std::vector<uint8_t>& f : recorded) EXPECT_NE(0, memcmp(f.data(), liar, 6));
  text_of(*client);
  client->release();
  server->release();
}

TEST_F(Hostile, FramesThatAreCut) {
  pair_.server_wire().tap = record;
  const uint8_t mac[6] = {2, 0, 0, 0, 0, 7};
  const std::vector<uint8_t> question = arp(1, mac, 0xc612'0007, 0xc612'0002, pair_.server_wire());
  const std::vector<uint8_t> segment = Segment{1000, 99, 1, 0, kSyn}.frame(pair_.client_wire(), pair_.server_wire());
  inject(question);
  pair_.settle();
  EXPECT_EQ(1, arp_frames(2));
  recorded.clear();
  for (const std::vector<uint8_t>& whole : {question, segment}) {
    for (size_t bytes = 1; bytes < whole.size(); bytes++) inject(std::vector<uint8_t>(whole.data(), whole.data() + bytes));
  }
  pair_.settle();
  EXPECT_TRUE(recorded.empty()) << "what a frame before has left behind them is none of theirs";
}

}  // namespace
