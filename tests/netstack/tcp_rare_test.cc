// What happens seldom: simultaneous open, an arena that is full, an echo request, a wire without checksums.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <cstring>
#include <linux/tcp.h>
#include <netinet/in.h>

using namespace netstack_test;

namespace {

class TcpRare : public StackTest {};

class CrossedSyns : public TcpRare {
 protected:
  void SetUp() override {
    TcpRare::SetUp();
    // First contact, so that both SYNs leave at once and cross.
    auto [first, second] = connected();
    first->release();
    second->release();
    pair_.pass(1500);
  }
  void open_both(TcpStream* left, TcpStream* right) {
    ASSERT_EQ(0, pair_.client->bind_stream(left, address("0.0.0.0", 7001)));
    ASSERT_EQ(0, pair_.server->bind_stream(right, address("0.0.0.0", 7002)));
    ASSERT_EQ(0, left->connect(address(kServerIp, 7002)));
    ASSERT_EQ(0, right->connect(address(kClientIp, 7001)));
  }
};

TEST_F(CrossedSyns, OpenOneConnection) {
  TcpStream* left = pair_.client->make_stream();
  TcpStream* right = pair_.server->make_stream();
  open_both(left, right);
  EXPECT_TRUE(pair_.until([&] { return left->connected() && right->connected(); }, 5000));
  EXPECT_EQ(4, send_text(*left, "left"));
  EXPECT_EQ(5, send_text(*right, "right"));
  EXPECT_TRUE(pair_.until([&] { return left->readable_bytes() == 5 && right->readable_bytes() == 4; }, 5000));
  EXPECT_EQ("right", text_of(*left));
  EXPECT_EQ("left", text_of(*right));
  left->release();
  right->release();
}

// RFC 9293, 3.5: SYN-RECEIVED goes to ESTABLISHED, and a stream that was shut down before has nothing to say there.
TEST_F(CrossedSyns, EndAStreamThatWasShutDown) {
  TcpStream* left = pair_.client->make_stream();
  TcpStream* right = pair_.server->make_stream();
  EXPECT_EQ(-ENOTCONN, left->shutdown(SHUT_WR));
  open_both(left, right);
  EXPECT_TRUE(pair_.until([&] { return (right->ready() & EPOLLRDHUP) != 0; }, 5000));
  EXPECT_EQ(5, send_text(*right, "right"));
  EXPECT_TRUE(pair_.until([&] { return left->readable_bytes() == 5; }, 5000)) << "it still receives";
  EXPECT_EQ("right", text_of(*left));
  left->release();
  right->release();
}

// The frame in which a stack answers a SYN, or asks for a connection.
std::vector<uint8_t> syn_frame;

uint32_t announced_segment() { return syn_frame.size() >= 58 && syn_frame[54] == 2 ? uint32_t{syn_frame[56]} << 8 | syn_frame[57] : 0; }

// A link that brings larger frames than the stack sends: the peer is told, and both ends start with ten of its segments.
TEST_F(TcpRare, LargerFramesInThanOutAreAnnounced) {
  constexpr uint16_t kGroMaxSize = 9040;
  pair_ = Pair::get(Segments::unchecked);
  SetUp();
  const auto keep_syn = [](const uint8_t* data, uint32_t length) {
    if (length > 54 && data[23] == IPPROTO_TCP && (data[47] & 2) != 0) syn_frame.assign(data, data + length);
  };
  pair_.server_wire().set_gro_max_size(kGroMaxSize);
  pair_.server_wire().tap = keep_syn;
  auto [client, server] = connected(81);
  EXPECT_EQ(9000u, announced_segment());
  pair_.server_wire().tap = nullptr;
  tcp_info info{};
  EXPECT_EQ(100, send_text(*server, std::string(100, 's')));
  pair_.settle();
  server->info(&info);
  EXPECT_EQ(1460u, info.tcpi_snd_mss) << "what leaves is as large as ever";
  EXPECT_GE(info.tcpi_snd_cwnd, 90'000u / 1460);
  client->release();
  server->release();

  // The other end says what fits its own frames.
  syn_frame.clear();
  pair_.client_wire().tap = keep_syn;
  auto [again_client, again_server] = connected(81);
  EXPECT_EQ(1460u, announced_segment());
  pair_.client_wire().tap = nullptr;
  EXPECT_EQ(100, send_text(*again_client, std::string(100, 'c')));
  pair_.settle();
  again_client->info(&info);
  EXPECT_LT(info.tcpi_snd_cwnd, 20u);
  pair_.server_wire().set_gro_max_size(0);
  again_client->release();
  again_server->release();
}

// A peer that wants checksums comes in the place of one that wanted none, and the other way round: what is sent from then on has them, and
// what comes is verified, already what comes in the turn that notices.
TEST_F(TcpRare, ChecksumsFollowThePeer) {
  pair_ = Pair::get(Segments::unchecked);
  SetUp();
  auto [client, server] = connected(82);
  static uint32_t with, without;
  const auto count = [](const uint8_t* data, uint32_t length) {
    if (length > 54 && data[23] == IPPROTO_TCP) (data[50] != 0 || data[51] != 0 ? with : without)++;
  };
  for (const bool needed : {false, true, false}) {
    with = without = 0;
    for (MemoryWire* wire : {&pair_.client_wire(), &pair_.server_wire()}) {
      wire->tap = count;
      wire->set_checksums(needed);
      wire->new_peer();
    }
    EXPECT_EQ(1000, send_text(*client, std::string(1000, 'c')));
    pair_.settle();
    EXPECT_EQ(std::string(1000, 'c'), text_of(*server));
    EXPECT_EQ(1000, send_text(*server, std::string(1000, 's')));
    pair_.settle();
    EXPECT_EQ(std::string(1000, 's'), text_of(*client));
    EXPECT_GE(needed ? with : without, 2U);
    EXPECT_EQ(needed ? without : with, 0U);
  }
  pair_.server_wire().set_checksums(true);
  pair_.server_wire().new_peer();
  EXPECT_EQ(4, send_text(*client, "none"));
  pair_.settle();
  EXPECT_EQ("", text_of(*server));
  pair_.server_wire().set_checksums(false);
  pair_.server_wire().new_peer();
  EXPECT_TRUE(pair_.until([server = server] { return text_of(*server) == "none"; }));
  for (MemoryWire* wire : {&pair_.client_wire(), &pair_.server_wire()}) wire->tap = nullptr;
  client->release();
  server->release();
}

// Both ends hold a partial segment back until what they sent is acknowledged, and each has something to acknowledge.
TEST_F(TcpRare, NagleOnBothSidesDoesNotHoldAcknowledgements) {
  auto [client, server] = connected();
  for (TcpStream* stream : {client, server}) (void)send_text(*stream, std::string(2000, 'n'));
  pair_.client->flush();
  pair_.server->flush();
  pair_.pass(100);
  for (TcpStream* stream : {client, server}) {
    EXPECT_EQ(2000u, stream->readable_bytes());
    (void)text_of(*stream);
    stream->release();
  }
}

// A probe counts as sent, so the numbers of both are behind the other's window from then on.
TEST_F(TcpRare, TwoShutWindowsDoNotAnswerEachOther) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  auto [client, server] = connected();
  for (TcpStream* stream : {client, server}) (void)send_text(*stream, std::string(900'000, 's'));
  pair_.pass(5000);
  const uint64_t before = pair_.client_wire().sent + pair_.server_wire().sent;
  pair_.pass(60'000);
  EXPECT_GT(pair_.client_wire().sent + pair_.server_wire().sent, before);
  EXPECT_LT(pair_.client_wire().sent + pair_.server_wire().sent, before + 200);
  for (TcpStream* stream : {client, server}) stream->release();
}

// The last segment waits for an acknowledgement when its stream goes; it may have to be sent again, too.
TEST_F(TcpRare, WhatCloseLeavesIsSent) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  for (const int loss : {0, 400}) {
    auto [client, server] = connected();
    (void)send_text(*client, std::string(15'000, 'c'));
    pair_.link->ends[0].impairment.loss = loss;
    client->release();
    pair_.client->flush();
    EXPECT_TRUE(pair_.until([&, s = server] { return s->readable_bytes() == 15'000; })) << loss;
    pair_.link->ends[0].impairment.loss = 0;
    EXPECT_EQ(15'000u, text_of(*server).size());
    EXPECT_TRUE(pair_.until([&, s = server] { return read_some(*s) == 0; }));
    server->release();
    pair_.pass(3000);
  }
}

// What waits behind a shut window is cut as it opens, and the end of the stream is behind its last byte.
TEST_F(TcpRare, TheEndComesLastThroughASmallWindow) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  for (const int buffer : {2304, 5000, 9000, 20'000}) {
    for (const size_t step : {400u, 3000u}) {
      auto [client, server] = connected();
      pair_.server_wire().set_gro_max_size(MemoryWire::kMtu);  // so that the buffer may be less than two segments
      ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, buffer));
      (void)send_text(*client, std::string(600'000, 'e'));
      pair_.pass(1000);
      client->release();
      pair_.client->flush();
      size_t seen = 0;
      long n = -EAGAIN;
      for (int turn = 0; turn < 4000 && n != 0; turn++) {
        n = read_some(*server, step * (seen < 560'000 ? 20 : 1));
        if (n > 0) seen += static_cast<size_t>(n);
        if (n == -EAGAIN) pair_.pass(300, 20);
      }
      EXPECT_EQ(600'000u, seen) << buffer << " " << step;
      server->release();
      pair_.pass(3000);
      pair_.server_wire().set_gro_max_size(MemoryWire::kGroMaxSize);
    }
  }
}

// What a program asks for may be less than a segment; its peer would wait for room for a whole one.
TEST_F(TcpRare, AReceiveBufferHoldsTwoSegments) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  auto [client, server] = connected();
  ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, 20'000));
  int value = 0;
  EXPECT_EQ(0, server->get_option(TcpOption::receive_buffer_bytes, &value));
  EXPECT_EQ(20'000, value);
  const long written = send_text(*client, std::string(900'000, 'w'));
  ASSERT_GT(written, 600'000);
  size_t most = 0, seen = 0;
  while (seen < static_cast<size_t>(written)) {
    pair_.pass(5);
    if (seen > 600'000) most = std::max(most, server->readable_bytes());
    const long n = read_some(*server, 65'536);
    ASSERT_GT(n, 0) << seen;
    seen += static_cast<size_t>(n);
  }
  EXPECT_GT(most, size_t{MemoryWire::kGroMaxSize});
  EXPECT_LE(most, size_t{2 * MemoryWire::kGroMaxSize});
  client->release();
  server->release();
}

// No acknowledgement comes with it, and no timer is needed.
TEST_F(TcpRare, AWindowThatOpensIsUsedAtOnce) {
  auto [client, server] = connected();
  ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, 20'000));
  const long written = send_text(*client, std::string(2'000'000, 'w'));
  ASSERT_GT(written, 800'000);
  for (size_t seen = 0, total = static_cast<size_t>(written); seen < total;) {
    pair_.pass(200);  // for the acknowledgement of the last segment
    const bool shut = server->readable_bytes() <= 20'000;
    seen += text_of(*server).size();
    pair_.settle();
    if (shut) {
      ASSERT_GE(server->readable_bytes(), std::min<size_t>(10'000, total - seen)) << seen;
    }
  }
  client->release();
  server->release();
}

// A window that has shrunk with the buffer grows with it again.
TEST_F(TcpRare, AReceiveBufferGrowsAgain) {
  auto [client, server] = connected();
  ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, 20'000));
  ASSERT_EQ(800'000, send_text(*client, std::string(800'000, 'w')));
  size_t seen = 0;
  while (seen < 700'000) {
    pair_.pass(5);
    const std::string part = text_of(*server);
    ASSERT_FALSE(part.empty()) << seen;
    seen += part.size();
  }
  pair_.pass(500);
  EXPECT_LE(server->readable_bytes(), 20'000u);
  ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, 400'000));
  (void)send_text(*client, std::string(800'000, 'w'));
  pair_.pass(1000);
  EXPECT_GT(server->readable_bytes(), 380'000u);
  EXPECT_LE(server->readable_bytes(), 400'000u);
  (void)client->set_option(TcpOption::linger_s, 0);
  client->release();
  server->release();
}

TEST_F(TcpRare, AReceiveBufferMayChangeOften) {
  auto [client, server] = connected();
  for (int i = 0; i < 10; i++) ASSERT_EQ(0, server->set_option(TcpOption::receive_buffer_bytes, i % 2 == 0 ? 2304 : 400'000));
  size_t written = 0, seen = 0;
  for (int turn = 0; turn < 2000 && seen < 2'000'000; turn++) {
    const long n = send_text(*client, std::string(std::min<size_t>(2'000'000 - written, 50'000), 'b'));
    if (n > 0) written += static_cast<size_t>(n);
    pair_.pass(10);
    seen += text_of(*server).size();
  }
  EXPECT_EQ(2'000'000u, seen);
  client->release();
  EXPECT_TRUE(pair_.until([&, s = server] { return read_some(*s) == 0; }));
  server->release();
}

TEST_F(TcpRare, LongSegmentsWaitForANeighbour) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  auto [client, server] = connected();
  pair_.pass(900'000, 1000);
  int requests = 0;
  static int* asked;
  asked = &requests;
  pair_.client_wire().tap = [](const uint8_t* data, uint32_t) { *asked += data[12] == 8 && data[13] == 6 && data[21] == 1; };
  (void)send_text(*client, std::string(8000, 'a'));
  pair_.client->flush();
  pair_.settle();
  pair_.client_wire().tap = nullptr;
  EXPECT_EQ(1, requests) << "the neighbour was not forgotten";
  EXPECT_EQ(8000u, text_of(*server).size());
  client->release();
  EXPECT_TRUE(pair_.until([&, s = server] { return read_some(*s) == 0; }));
  server->release();
}

// What probes a shut window lies beyond it, and a reset there would be ignored.
TEST_F(TcpRare, AResetFitsAShutWindow) {
  pair_ = Pair::get(Segments::by_reference);
  make_contact();
  auto [client, server] = connected();
  (void)send_text(*client, std::string(900'000, 'w'));
  (void)send_text(*server, "unread");
  const uint64_t sent_before = (pair_.pass(1000), pair_.client_wire().sent);
  pair_.pass(20'000);
  EXPECT_GT(pair_.client_wire().sent, sent_before) << "probes";
  client->release();
  pair_.pass(100);
  EXPECT_EQ(ECONNRESET, server->take_error());
  server->release();
}

TEST_F(TcpRare, ANewPeerIsAskedForItsConnections) {
  auto [client, server] = connected(80);
  EXPECT_EQ(4, send_text(*client, "half"));
  EXPECT_TRUE(pair_.until([&] { return server->readable_bytes() == 4; }));
  pair_.server_wire().new_peer();
  pair_.pass(100);
  EXPECT_TRUE(server->connected()) << "the peer that came is the one that was there";

  // Now it is one that knows nothing, and whose farewell got lost.
  pair_.client_wire().impairment.loss = 1000;
  pair_.client->recover();
  pair_.pass(10'000, 50);
  pair_.client_wire().impairment.loss = 0;
  pair_.pass(1000);
  EXPECT_TRUE(server->connected()) << "nobody has told it anything";
  pair_.server_wire().new_peer();
  EXPECT_TRUE(pair_.until([&] { return !server->connected(); }, 1000));
  EXPECT_EQ(ECONNRESET, server->take_error());
  client->release();
  server->release();
}

TEST_F(TcpRare, FullArenaStopsWritersUntilThereIsRoom) {
  auto small_link = MemoryLink::make(Segments::unchecked);
  Stack* stacks[2];
  for (int i = 0; i < 2; i++) {
    netstack::StackPlan plan;
    plan.wire = &small_link->ends[i];
    plan.address_be = inet_addr(i == 0 ? kClientIp : kServerIp);
    plan.now_ns = test_now;
    plan.arena_bytes = 2 << 20;
    auto stack = netstack::build_stack(plan);
    ASSERT_TRUE(static_cast<bool>(stack));
    stacks[i] = *stack;
  }
  Pair small{small_link, stacks[0], stacks[1]};
  long error = 0;
  TcpListener* listener = small.server->listen({address("0.0.0.0", 80)}, nullptr, 100, &error);
  std::vector<TcpStream*> clients, servers;
  for (int i = 0; i < 20; i++) {
    clients.push_back(small.client->make_stream());
    ASSERT_EQ(0, clients.back()->connect(address(kServerIp, 80)));
    ASSERT_TRUE(small.until([&] {
      SocketAddress peer;
      TcpStream* server = listener->accept(&peer, &error);
      if (server != nullptr) servers.push_back(server);
      return servers.size() == clients.size();
    }));
  }
  // Far more than the arenas hold, at both ends: nobody reads.
  std::vector<size_t> sent(clients.size()), got(clients.size());
  const std::string piece(50'000, 'p');
  for (int round = 0; round < 60; round++) {
    for (size_t i = 0; i < clients.size(); i++) {
      const long n = send_text(*clients[i], piece);
      ASSERT_TRUE(n > 0 || n == -EAGAIN);
      if (n > 0) sent[i] += static_cast<size_t>(n);
    }
    small.pass(10);
  }
  EXPECT_NE(UINT64_MAX, small.client->next_timer_ns());
  // The readers wake up: everything arrives, and the writers may write again.
  EXPECT_TRUE(small.until([&] {
    bool all = true;
    for (size_t i = 0; i < servers.size(); i++) {
      const long n = read_some(*servers[i], 20'000);
      if (n > 0) got[i] += static_cast<size_t>(n);
      all = all && got[i] == sent[i];
    }
    return all;
  }, 600'000));
  EXPECT_EQ(sent, got);
  EXPECT_NE(0u, clients[0]->ready() & EPOLLOUT);
  for (TcpStream* client : clients) client->release();
  small.pass(100);
  for (TcpStream* server : servers) server->release();
  listener->release();
  small.pass(5000, 50);
  EXPECT_EQ(0u, small.client->levels().arena_bytes);
  EXPECT_EQ(0u, small.server->levels().arena_bytes);
}

// Milliseconds of the test's time for a megabyte over a wire that loses `loss` frames in a thousand, one round trip per ms.
int transfer_ms(const Pair& pair, TcpStream& from, TcpStream& to, int loss) {
  constexpr size_t kBytes = 1'000'000;
  size_t sent = 0, got = 0;
  const uint64_t start = test_clock->now_ns;
  const std::string piece(50'000, 'l');
  pair.client_wire().impairment = {loss, 0, 0, 99};
  for (int turn = 0; turn < 100'000 && got < kBytes; turn++) {
    if (sent < kBytes) {
      const long n = send_text(from, piece);
      if (n > 0) sent += static_cast<size_t>(n);
    }
    test_clock->now_ns += kMs;
    pair.client->poll(test_clock->now_ns);
    while (pair.server->poll(test_clock->now_ns) > 0) {
    }
    for (long n; (n = read_some(to, 60'000)) > 0;) got += static_cast<size_t>(n);
    pair.server->flush();
  }
  pair.client_wire().impairment = {};
  EXPECT_GE(got, kBytes);
  return static_cast<int>((test_clock->now_ns - start) / kMs);
}

TEST_F(TcpRare, LossesAreMendedWithinRoundTrips) {
  auto [client, server] = connected();
  const int clean = transfer_ms(pair_, *client, *server, 0);
  const int lossy = transfer_ms(pair_, *client, *server, 20);
  RecordProperty("clean_ms", clean);
  RecordProperty("lossy_ms", lossy);
  EXPECT_LT(lossy, clean + 250) << "a timeout takes 240 ms";
  client->release();
  pair_.pass(1000);
  text_of(*server);
  server->release();
}

std::vector<uint8_t> last_frame;

TEST_F(TcpRare, EchoRequestIsAnswered) {
  auto [client, server] = connected();  // both know each other's MAC
  std::vector<uint8_t> ping(14 + 20 + 8 + 56, 0x77);
  memcpy(&ping[0], pair_.server_wire().facts().mac, 6);
  memcpy(&ping[6], pair_.client_wire().facts().mac, 6);
  ping[12] = 8, ping[13] = 0;
  const uint8_t ip[20] = {0x45, 0, 0, 84, 0, 1, 0, 0, 64, 1, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2};
  memcpy(&ping[14], ip, sizeof ip);
  const uint8_t icmp[8] = {8, 0, 0, 0, 0x12, 0x34, 0, 1};
  memcpy(&ping[34], icmp, sizeof icmp);
  const auto sum = [](const uint8_t* data, size_t length) {
    uint32_t total = 0;
    for (size_t i = 0; i < length; i += 2) total += static_cast<uint32_t>(data[i] << 8 | data[i + 1]);
    while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
    return static_cast<uint16_t>(~total);
  };
  const auto put = [](uint8_t* at, uint16_t value) { at[0] = static_cast<uint8_t>(value >> 8), at[1] = static_cast<uint8_t>(value); };
  put(&ping[24], sum(&ping[14], 20));
  put(&ping[36], sum(&ping[34], 64));
  pair_.server_wire().tap = [](const uint8_t* data, uint32_t length) { last_frame.assign(data, data + length); };
  pair_.server_wire().deliver(ping.data(), static_cast<uint32_t>(ping.size()));
  pair_.server->poll(test_clock->now_ns);
  pair_.server_wire().tap = nullptr;
  ASSERT_EQ(ping.size(), last_frame.size());
  EXPECT_EQ(0, last_frame[34]) << "an echo reply";
  EXPECT_EQ(0, sum(&last_frame[34], 64));
  EXPECT_EQ(0, memcmp(&last_frame[38], &ping[38], 60));
  client->release();
  server->release();
}

TEST_F(TcpRare, UnreadDataDoesNotStarveTheWire) {
  // 20 connections fill their windows: far more bytes than the wire has frames, yet frames stay free.
  TcpListener* listener = listen(80);
  std::vector<TcpStream*> clients, servers;
  for (int i = 0; i < 20; i++) {
    clients.push_back(connect(80));
    ASSERT_TRUE(pair_.until([&] {
      if (TcpStream* server = accept(*listener)) servers.push_back(server);
      return servers.size() == clients.size();
    }));
  }
  for (TcpStream* client : clients) (void)send_text(*client, std::string(400'000, 'u'));
  pair_.pass(5000);
  EXPECT_GT(pair_.server_wire().free_frames(), MemoryWire::kFrames / 8);
  for (size_t i = 0; i < servers.size(); i++) {
    size_t got = 0;
    EXPECT_TRUE(pair_.until([&] {
      const long n = read_some(*servers[i], 100'000);
      if (n > 0) got += static_cast<size_t>(n);
      return got == 400'000;
    }));
    clients[i]->release();
    servers[i]->release();
  }
  listener->release();
}

}  // namespace
