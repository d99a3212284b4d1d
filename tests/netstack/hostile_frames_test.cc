// Frames nobody should send: random bytes, mutated real frames, forged segments. The stack neither crashes nor leaks nor loses its connections.
#include "stack_pair.h"

#include <cstring>
#include <random>

using namespace netstack_test;

namespace {

std::vector<std::vector<uint8_t>> recorded;

void record(const uint8_t* data, uint32_t length) {
  if (recorded.size() < 4000) recorded.emplace_back(data, data + length);
}

uint16_t sum_of(const uint8_t* data, size_t length, uint32_t sum) {
  for (size_t i = 0; i + 1 < length; i += 2) sum += static_cast<uint32_t>(data[i] << 8 | data[i + 1]);
  if (length % 2 != 0) sum += static_cast<uint32_t>(data[length - 1] << 8);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// A TCP segment from the client's address to the server's.
struct Segment {
  uint16_t from, to;
  uint32_t seq, ack;
  uint8_t flags;
  std::vector<uint8_t> options = {}, data = {};
  uint16_t window = 1000;

  std::vector<uint8_t> frame(const MemoryWire& source, const MemoryWire& target) const {
    std::vector<uint8_t> f(14 + 20 + 20 + options.size() + data.size());
    memcpy(&f[0], target.facts().mac, 6);
    memcpy(&f[6], source.facts().mac, 6);
    f[12] = 8;
    uint8_t* ip = &f[14];
    const auto put16 = [](uint8_t* at, uint32_t v) { at[0] = static_cast<uint8_t>(v >> 8), at[1] = static_cast<uint8_t>(v); };
    const auto put32 = [&](uint8_t* at, uint32_t v) { put16(at, v >> 16), put16(at + 2, v & 0xffff); };
    ip[0] = 0x45;
    put16(ip + 2, static_cast<uint32_t>(f.size() - 14));
    ip[8] = 64;
    ip[9] = 6;
    put32(ip + 12, ntohl(inet_addr(kClientIp)));
    put32(ip + 16, ntohl(inet_addr(kServerIp)));
    put16(ip + 10, sum_of(ip, 20, 0));
    uint8_t* tcp = ip + 20;
    put16(tcp, from);
    put16(tcp + 2, to);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = static_cast<uint8_t>((20 + options.size()) / 4 << 4);
    tcp[13] = flags;
    put16(tcp + 14, window);
    std::copy(options.begin(), options.end(), tcp + 20);
    std::copy(data.begin(), data.end(), tcp + 20 + options.size());
    const size_t length = f.size() - 34;
    put16(tcp + 16, sum_of(tcp, length, sum_of(ip + 12, 8, 0) ^ 0xffff) == 0 ? 0 : sum_of(tcp, length, static_cast<uint16_t>(~sum_of(ip + 12, 8, 6 + static_cast<uint32_t>(length)))));
    return f;
  }
};

constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32;

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
    for (unsigned k = random() % 6; k > 0; k--) frame[random() % std::min<size_t>(frame.size(), random() % 2 != 0 ? 74 : 2000)] = static_cast<uint8_t>(random());
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
  const auto word = [&](size_t at) { return static_cast<uint32_t>(last[at] << 24 | last[at + 1] << 16 | last[at + 2] << 8 | last[at + 3]); };
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
}

TEST_F(Hostile, SynFloodIsBounded) {
  TcpListener* listener = listen(80, 4000);
  pair_.client_wire().cut = true;
  for (int i = 0; i < 20'000; i++) {
    inject(Segment{static_cast<uint16_t>(1024 + i), 80, static_cast<uint32_t>(i), 0, kSyn});
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_LE(pair_.server->levels().pcbs - server_before_.pcbs, 1024);
  EXPECT_LE(pair_.server->levels().arena_bytes, 2'000'000u);
  pair_.pass(60'000, 50);
  pair_.client_wire().cut = false;
  EXPECT_EQ(server_before_.pcbs, pair_.server->levels().pcbs);
  listener->release();
  expect_service(80);
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
  EXPECT_NE(UINT64_MAX, pair_.server->next_timer_ns());
  pair_.pass(25'000, 50);
  EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
}

}  // namespace
