// Handshakes that peers begin, when everything is scarce: floods, cookies, full queues, answers that never come.
// SPDX-License-Identifier: BSD-3-Clause
#include "forged_segment.h"
#include "stack_pair.h"

#include <algorithm>
#include <linux/tcp.h>

using namespace netstack_test;

namespace {

std::vector<Seen> seen;
int arp_requests = 0;

void watch(const uint8_t* data, uint32_t length) {
  Seen segment;
  if (segment.read(data, length)) seen.push_back(segment);
  if (length >= 42 && data[12] == 8 && data[13] == 6 && data[21] == 1) arp_requests++;
}

uint32_t source(int number) { return htonl(0xc6120032u + static_cast<uint32_t>(number % 150)); }  // 198.18.0.50 and up

class Handshakes : public StackTest {
 protected:
  void SetUp() override {
    StackTest::SetUp();
    pair_.server_wire().tap = watch;
    seen.clear();
    arp_requests = 0;
  }
  void TearDown() override {
    pair_.server_wire().tap = nullptr;
    pair_.pass(64'000, 200);  // the life of a half-open connection
    EXPECT_EQ(0, half_open());
    StackTest::TearDown();
  }
  int half_open() { return pair_.server->levels().half_open; }
  void inject(const Segment& segment) {
    const std::vector<uint8_t> frame = segment.frame(pair_.client_wire(), pair_.server_wire());
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
  }
  Segment syn(int number) {
    Segment segment{static_cast<uint16_t>(1024 + number), 80, static_cast<uint32_t>(number) * 7919, 0, kSyn};
    segment.options = {2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 0, 0};
    segment.source_be = source(number);
    return segment;
  }
  void flood(int count, int first = 0) {
    for (int i = first; i < first + count; i++) {
      inject(syn(i));
      if (i % 64 == 63) pair_.settle();
    }
    pair_.settle();
  }
  // The SYN-ACK that the server has sent for this SYN.
  const Seen* answer_to(const Segment& syn) {
    const auto found = std::find_if(seen.rbegin(), seen.rend(), [&](const Seen& s) {
      return s.peer_be == syn.source_be && s.peer_port == syn.from && s.flags == (kSyn | kAck) && s.acknowledgement == syn.seq + 1;
    });
    return found == seen.rend() ? nullptr : &*found;
  }
  static Segment last_ack(const Segment& syn, const Seen& syn_ack, const std::string& text = "") {
    Segment segment{syn.from, syn.to, syn.seq + 1, syn_ack.sequence + 1, kAck};
    segment.source_be = syn.source_be;
    segment.data.assign(text.begin(), text.end());
    return segment;
  }
  static Segment stamped(Segment segment, uint32_t value, uint32_t echo) {
    std::vector<uint8_t>& options = segment.options;
    options.erase(std::find(options.begin(), options.end(), 0), options.end());  // the end of the list
    while (options.size() % 4 != 2) options.push_back(1);
    options.insert(options.end(), {8, 10});
    for (const uint32_t word : {value, echo}) {
      for (int shift = 24; shift >= 0; shift -= 8) options.push_back(static_cast<uint8_t>(word >> shift));
    }
    return segment;
  }
  struct Stamps {
    uint32_t value, echo;
  };
  // All zero if there are none.
  static Stamps stamps_of(const Seen& segment) {
    const std::vector<uint8_t>& options = segment.options;
    constexpr uint8_t kOption[] = {1, 1, 8, 10};
    const auto at = std::search(options.begin(), options.end(), std::begin(kOption), std::end(kOption));
    if (options.end() - at < 12) return {};
    uint32_t words[2];
    memcpy(words, &*at + 4, sizeof words);
    return {ntohl(words[0]), ntohl(words[1])};
  }
  static bool has_timestamps(TcpStream& stream) {
    tcp_info info{};
    stream.info(&info);
    return (info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0;
  }
  static size_t count(uint8_t flags) {
    return static_cast<size_t>(std::count_if(seen.begin(), seen.end(), [&](const Seen& s) { return s.flags == flags; }));
  }
  void reset(TcpStream* stream) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
};

TEST_F(Handshakes, AFloodKeepsNobodyOut) {
  TcpListener* listener = listen(80, 511);
  const auto before = pair_.server->levels();
  flood(20'000);
  EXPECT_LE(half_open(), 1024);
  EXPECT_EQ(before.arena_bytes, pair_.server->levels().arena_bytes) << "half-open connections take nothing from the others' memory";
  EXPECT_EQ(before.pcbs, pair_.server->levels().pcbs);
  EXPECT_EQ(20'000u, count(kSyn | kAck)) << "each is answered";
  for (int i = 0; i < 20; i++) {
    flood(100, 20'000 + 100 * i);
    TcpStream* client = connect(80);
    pair_.settle();
    ASSERT_TRUE(client->connected());
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server);
    send_text(*client, "hello");
    pair_.settle();
    EXPECT_EQ("hello", text_of(*server));
    reset(client);
    reset(server);
  }
  listener->release();
}

// With a listener that keeps them: those of handshakes that nobody completes, of a listener that goes, and of connections that nobody asks.
TEST_F(Handshakes, SavedSynsAreFreed) {
  TcpListener* listener = listen(80, 511);
  ASSERT_EQ(0, listener->set_option(TcpOption::save_syn, 1));
  const size_t before = pair_.server->levels().arena_bytes;
  flood(100);
  EXPECT_GT(pair_.server->levels().arena_bytes, before);
  pair_.pass(64'000, 200);
  EXPECT_EQ(before, pair_.server->levels().arena_bytes);
  for (const bool asked : {true, false}) {
    TcpStream* client = connect(80);
    pair_.settle();
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server);
    uint8_t headers[128];
    const size_t bytes = asked ? server->take_saved_syn(headers, sizeof headers) : 0;
    EXPECT_TRUE(!asked || bytes >= 44) << bytes;
    if (asked) {
      Seen seen_syn;
      std::vector<uint8_t> frame(14);
      frame[12] = 8;
      frame.insert(frame.end(), headers, headers + bytes);
      ASSERT_TRUE(seen_syn.read(frame.data(), static_cast<uint32_t>(frame.size())));
      EXPECT_EQ(kSyn, seen_syn.flags);
      EXPECT_EQ(0u, server->take_saved_syn(headers, sizeof headers));
    }
    reset(client);
    reset(server);
    pair_.settle();
  }
  flood(100, 100);
  listener->release();
  EXPECT_EQ(before, pair_.server->levels().arena_bytes);
}

TEST_F(Handshakes, ASmallBacklogUnderAFlood) {
  TcpListener* listener = listen(80, 1);
  for (int i = 0; i < 40; i++) {
    flood(50, 50 * i);
    pair_.pass(5, 5);
  }
  TcpStream* client = connect(80);
  pair_.settle();
  EXPECT_TRUE(client->connected());
  reset(client);
  listener->release();
}

// Over a cookie: window scale both ways, SACK, and a segment size that is the peer's.
TEST_F(Handshakes, ACookieRemembersTheOptions) {
  TcpListener* listener = listen(80, 511);
  flood(2000);
  TcpStream* client = connect(80);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  for (const auto& [from, to] : {std::pair{client, server}, std::pair{server, client}}) {
    const std::string text(300'000, 'x');
    size_t sent = 0, received = 0;
    EXPECT_TRUE(pair_.until([&, f = from, t = to] {
      if (sent < text.size()) {
        const long n = send_text(*f, text.substr(sent));
        if (n > 0) sent += static_cast<size_t>(n);
      }
      if (sent >= 200'000 && t->readable_bytes() > 65'535) received = std::max(received, t->readable_bytes());
      return received > 200'000;
    }, 3000)) << "more than a window without scaling can hold: " << to->readable_bytes();
    while (!text_of(*to).empty()) pair_.settle();
  }
  reset(client);
  reset(server);
  listener->release();
}

TEST_F(Handshakes, ACookieIsGoodForAMinuteOrTwo) {
  TcpListener* listener = listen(80, 511);
  flood(2000);
  const Segment early = syn(1900), late = syn(1901), twice = syn(1902);
  ASSERT_NE(nullptr, answer_to(early));
  ASSERT_NE(nullptr, answer_to(late));
  const Segment early_ack = last_ack(early, *answer_to(early), "early"), late_ack = last_ack(late, *answer_to(late));
  Segment wrong = last_ack(twice, *answer_to(twice));
  wrong.ack ^= 0x100;
  pair_.pass(55'000, 500);
  seen.clear();
  inject(wrong);
  pair_.settle();
  EXPECT_EQ(nullptr, accept(*listener)) << "a forged cookie";
  EXPECT_EQ(1u, count(kRst));
  inject(early_ack);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(early.source_be, server->peer().address.v4_be());
  EXPECT_EQ("early", text_of(*server));
  reset(server);
  pair_.pass(70'000, 500);
  seen.clear();
  inject(late_ack);
  pair_.settle();
  EXPECT_EQ(nullptr, accept(*listener)) << "an old cookie";
  EXPECT_EQ(1u, count(kRst));
  listener->release();
}

TEST_F(Handshakes, FewLookConnectedInFrontOfAFullQueue) {
  TcpListener* listener = listen(80, 2);
  std::vector<TcpStream*> clients;
  for (int i = 0; i < 300; i++) clients.push_back(connect(80));
  pair_.pass(3000);
  const auto connected = [&] { return std::count_if(clients.begin(), clients.end(), [](TcpStream* c) { return c->connected(); }); };
  EXPECT_EQ(3, connected()) << "Linux: backlog + 1";
  std::vector<TcpStream*> servers;
  EXPECT_TRUE(pair_.until([&] {
    while (TcpStream* server = accept(*listener)) servers.push_back(server);
    return servers.size() == clients.size();
  }));
  for (TcpStream* client : clients) {
    EXPECT_EQ(0, client->take_error());
    reset(client);
  }
  for (TcpStream* server : servers) reset(server);
  listener->release();
}

// The server has had no processor for longer than a client may take, and finds another's SYN in front of the ACK that has come in time.
TEST_F(Handshakes, AnAckThatLiesThereIsNotLate) {
  TcpListener* listener = listen(80, 0);
  const Segment first = syn(1), second = syn(2);
  inject(first);
  pair_.settle();
  ASSERT_NE(nullptr, answer_to(first));
  inject(second);
  inject(last_ack(first, *answer_to(first)));
  test_clock->now_ns += 100 * kMs;
  pair_.settle();
  EXPECT_EQ(nullptr, answer_to(second)) << "the queue is full";
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(htons(first.from), server->peer().port_be);
  pair_.settle();
  EXPECT_NE(nullptr, answer_to(second));
  reset(server);
  listener->release();
}

// The last ACK came while the queue was full: what the peer sends next completes the handshake, and nothing is reset.
TEST_F(Handshakes, TheLastAckWaitsForRoom) {
  TcpListener* listener = listen(80, 0);
  const Segment slow = syn(1);
  inject(slow);
  pair_.pass(50);
  ASSERT_NE(nullptr, answer_to(slow));
  TcpStream* quick = connect(80);
  pair_.settle();
  ASSERT_TRUE(quick->connected());
  inject(last_ack(slow, *answer_to(slow)));
  Segment data = last_ack(slow, *answer_to(slow), "patience");
  inject(data);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(quick->local().port_be, server->peer().port_be);
  EXPECT_EQ(nullptr, accept(*listener));
  inject(data);
  pair_.settle();
  TcpStream* late = accept(*listener);
  ASSERT_NE(nullptr, late);
  EXPECT_EQ("patience", text_of(*late));
  EXPECT_EQ(0u, count(kRst) + count(kRst | kAck));
  reset(quick);
  reset(server);
  reset(late);
  listener->release();
}

// The same with a cookie; what the peer sends after it proves nothing, and must not bring a reset while there is no room.
TEST_F(Handshakes, ACookieWaitsForRoom) {
  TcpListener* listener = listen(80, 0);
  for (int i = 0; i < 5; i++) {
    flood(100, 100 * i);
    pair_.pass(50);
  }
  const Segment slow = syn(499);
  ASSERT_NE(nullptr, answer_to(slow));
  TcpStream* quick = connect(80);
  pair_.settle();
  ASSERT_TRUE(quick->connected());
  const Segment first = last_ack(slow, *answer_to(slow), "over ");
  Segment second = last_ack(slow, *answer_to(slow), "again");
  second.seq += 5;
  seen.clear();
  flood(1, 500);
  EXPECT_EQ(0u, count(kSyn | kAck)) << "no cookie for a queue that is full";
  inject(first);
  inject(second);
  pair_.settle();
  EXPECT_EQ(0u, count(kRst));
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  inject(first);
  inject(second);
  pair_.settle();
  TcpStream* late = accept(*listener);
  ASSERT_NE(nullptr, late);
  EXPECT_EQ("over again", text_of(*late));
  reset(quick);
  reset(server);
  reset(late);
  listener->release();
}

TEST_F(Handshakes, ASynAckIsRepeatedAndGivenUp) {
  TcpListener* listener = listen(80);
  const Segment lonely = syn(5);
  inject(lonely);
  pair_.settle();
  std::vector<uint64_t> when;
  const uint64_t start = test_clock->now_ns;
  size_t known = count(kSyn | kAck);
  EXPECT_EQ(1u, known);
  while (half_open() != 0 && test_clock->now_ns - start < 100'000 * kMs) {
    pair_.pass(10);
    if (count(kSyn | kAck) == known) continue;
    known = count(kSyn | kAck);
    when.push_back((test_clock->now_ns - start) / kMs);
  }
  EXPECT_EQ((std::vector<uint64_t>{1000, 3000, 7000, 15000, 31000}), when) << "Linux: tcp_synack_retries";
  EXPECT_EQ(63'000u, (test_clock->now_ns - start) / kMs);
  EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
  listener->release();
}

TEST_F(Handshakes, RepeatedAndForeignSegmentsOfAHalfOpenConnection) {
  TcpListener* listener = listen(80);
  const Segment first = syn(5);
  inject(first);
  inject(first);
  pair_.settle();
  ASSERT_EQ(2u, count(kSyn | kAck));
  EXPECT_EQ(seen[0].sequence, seen[1].sequence);
  EXPECT_EQ(1, half_open());
  Segment other = first;
  other.seq += 1000;
  inject(other);  // somebody else's, or the peer began anew
  pair_.settle();
  EXPECT_EQ(1u, count(kAck));
  Segment wrong = last_ack(first, seen[0]);
  wrong.ack += 5;
  inject(wrong);
  pair_.settle();
  EXPECT_EQ(1u, count(kRst)) << "RFC 9293, 3.10.7.4";
  pair_.pass(600);  // such are answered seldom
  Segment far = last_ack(first, seen[0], "far");
  far.seq += 100'000;
  inject(far);
  pair_.settle();
  EXPECT_EQ(2u, count(kAck));
  Segment blind = last_ack(first, seen[0]);
  blind.flags = kRst;
  blind.seq += 7;
  inject(blind);
  pair_.settle();
  EXPECT_EQ(1, half_open()) << "RFC 5961: only an exact reset";
  blind.seq -= 7;
  inject(blind);
  pair_.settle();
  EXPECT_EQ(0, half_open());
  EXPECT_EQ(nullptr, accept(*listener));
  listener->release();
}

// RFC 7323: what the SYN has, each answer has, and the connection.
TEST_F(Handshakes, TimestampsAreAgreedOn) {
  TcpListener* listener = listen(80);
  const Segment plain = syn(4), first = stamped(syn(5), 1000, 0);
  inject(plain);
  inject(first);
  pair_.settle();
  ASSERT_NE(nullptr, answer_to(plain));
  EXPECT_EQ(0u, stamps_of(*answer_to(plain)).echo) << "not asked for";
  const Seen early = *answer_to(first);
  EXPECT_EQ(1000u, stamps_of(early).echo);
  pair_.pass(1000, 10);
  const Seen again = *answer_to(first);
  EXPECT_EQ(1000u, stamps_of(again).echo);
  EXPECT_EQ(1000u, stamps_of(again).value - stamps_of(early).value) << "of when it is sent";
  seen.clear();
  inject(stamped(last_ack(first, again, "old"), 999, stamps_of(again).value));
  pair_.settle();
  EXPECT_EQ(nullptr, accept(*listener)) << "older than the SYN";
  ASSERT_EQ(1u, seen.size());
  EXPECT_EQ(kAck, seen[0].flags);
  EXPECT_EQ(1000u, stamps_of(seen[0]).echo);
  inject(stamped(last_ack(first, again, "new"), 1001, stamps_of(again).value));
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ("new", text_of(*server));
  EXPECT_TRUE(has_timestamps(*server));
  reset(server);
  listener->release();
}

// A cookie remembers nothing of them: the ACK shows it.
TEST_F(Handshakes, TimestampsOverACookie) {
  TcpListener* listener = listen(80, 511);
  flood(2000);
  for (const bool uses : {true, false}) {
    const Segment first = stamped(syn(uses ? 3000 : 3001), 1000, 0);
    inject(first);
    pair_.settle();
    ASSERT_NE(nullptr, answer_to(first));
    const Seen answer = *answer_to(first);
    EXPECT_EQ(1000u, stamps_of(answer).echo);
    const Segment ack = last_ack(first, answer, "hello");
    inject(uses ? stamped(ack, 1007, stamps_of(answer).value) : ack);
    pair_.settle();
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server);
    EXPECT_EQ("hello", text_of(*server));
    EXPECT_EQ(uses, has_timestamps(*server));
    Segment next = stamped(last_ack(first, answer, " again"), 1006, 0);
    next.seq += 5;
    inject(next);
    pair_.settle();
    EXPECT_EQ(uses ? "" : " again", text_of(*server)) << "older than the last ACK";
    reset(server);
  }
  listener->release();
}

// The first segment of data may be what completes a handshake, or come before the one that does.
TEST_F(Handshakes, DataCompletesAHandshake) {
  TcpListener* listener = listen(80);
  const Segment first = syn(5);
  inject(first);
  pair_.settle();
  Segment second = last_ack(first, seen[0], "world");
  second.seq += 6;
  inject(second);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  inject(last_ack(first, seen[0], "hello "));
  pair_.settle();
  EXPECT_EQ("hello world", text_of(*server));
  reset(server);
  listener->release();
}

TEST_F(Handshakes, SourcesThatCannotBe) {
  TcpListener* listener = listen(80);
  for (const char* from : {"198.18.0.2", "198.18.0.255", "224.0.0.1", "255.255.255.255", "0.0.0.0", "127.0.0.1", "198.19.0.1"}) {
    Segment forged = syn(1);
    forged.source_be = inet_addr(from);
    inject(forged);
    pair_.settle();
    EXPECT_EQ(0, half_open()) << from;
    EXPECT_EQ(0u, seen.size()) << from << ", to whom there is no way";
  }
  Segment honest = syn(1);
  std::vector<uint8_t> frame = honest.frame(pair_.client_wire(), pair_.server_wire());
  frame[6] = 1;  // a group's
  pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
  pair_.settle();
  EXPECT_EQ(0u, seen.size());
  listener->release();
}

// Answers go where the question came from: nobody is looked for, no neighbour forgotten, nothing queued.
TEST_F(Handshakes, ForgedSourcesDoNotTouchTheNeighbourTable) {
  auto [client, server] = connected();
  TcpListener* listener = listen(80);
  const auto before = pair_.server->levels();
  for (int i = 0; i < 2000; i++) {
    inject(syn(i));
    Segment stray = syn(i);
    stray.flags = kAck, stray.ack = 99, stray.to = 4444;
    inject(stray);
    if (i % 32 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_EQ(0, arp_requests);
  EXPECT_EQ(before.arena_bytes, pair_.server->levels().arena_bytes);
  ASSERT_GT(seen.size(), 2000u);
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [&](const Seen& s) { return memcmp(s.mac, pair_.client_wire().facts().mac, 6) == 0; }));
  send_text(*client, "still here");
  pair_.settle();
  EXPECT_EQ("still here", text_of(*server));
  send_text(*server, "so am I");
  pair_.settle();
  EXPECT_EQ("so am I", text_of(*client));
  EXPECT_EQ(0, arp_requests);
  reset(client);
  reset(server);
  listener->release();
}

TEST_F(Handshakes, ResetsAreLimited) {
  const auto stray = [&](int number) {
    Segment segment = syn(number);
    segment.flags = kAck, segment.to = 4444;
    return segment;
  };
  for (int i = 0; i < 10'000; i++) {
    inject(stray(i));
    if (i % 64 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_LE(count(kRst), 1000u);
  EXPECT_GT(count(kRst), 100u);
  pair_.pass(100);
  seen.clear();
  inject(stray(1));
  pair_.settle();
  EXPECT_EQ(1u, count(kRst));
}

TEST_F(Handshakes, AClosedListenerForgetsThem) {
  TcpListener* listener = listen(80);
  TcpListener* other = listen(81);
  const Segment first = syn(5);
  Segment second = syn(6);
  second.to = 81;
  inject(first);
  inject(second);
  pair_.settle();
  EXPECT_EQ(2, half_open());
  listener->release();
  EXPECT_EQ(1, half_open());
  const Segment ack = last_ack(first, *answer_to(first));
  inject(ack);
  pair_.settle();
  EXPECT_EQ(1u, count(kRst));
  other->release();
  EXPECT_EQ(0, half_open());
}

// The last process ends: who was answered and who was held are told alike.
TEST_F(Handshakes, AreRefusedAtTheEnd) {
  TcpListener* listener = listen(80, 0);
  for (int number = 5; number < 9; number++) inject(syn(number));
  pair_.settle();
  ASSERT_EQ(4, half_open());
  seen.clear();
  pair_.server->refuse_half_open();
  pair_.server->flush();
  EXPECT_EQ(0, half_open());
  for (int number = 5; number < 9; number++) {
    const Segment asked = syn(number);
    const auto is_its_reset = [&](const Seen& s) {
      return s.peer_be == asked.source_be && s.peer_port == asked.from && s.flags == (kRst | kAck) && s.acknowledgement == asked.seq + 1;
    };
    EXPECT_EQ(1, std::count_if(seen.begin(), seen.end(), is_its_reset)) << number;
  }
  listener->release();
}

// A member died inside the lock: handshakes go on where they were.
TEST_F(Handshakes, OutliveARecovery) {
  TcpListener* listener = listen(80);
  TcpListener* other = listen(81);
  const Segment first = syn(5), second = syn(6);
  inject(first);
  pair_.pass(100);
  inject(second);
  Segment elsewhere = syn(7);
  elsewhere.to = 81;
  inject(elsewhere);
  pair_.settle();
  other->release();
  ASSERT_NE(nullptr, answer_to(first));
  ASSERT_NE(nullptr, answer_to(second));
  const Segment acks[2] = {last_ack(first, *answer_to(first), "one"), last_ack(second, *answer_to(second), "two")};
  pair_.server->recover();
  EXPECT_EQ(2, half_open());
  for (int i = 0; i < 2; i++) {
    inject(acks[i]);
    pair_.settle();
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server) << i;
    EXPECT_EQ(i == 0 ? "one" : "two", text_of(*server));
    reset(server);
  }
  EXPECT_EQ(0, half_open());
  listener->release();
}

}  // namespace
