// What happens when a stack's memory is full of what programs have written or not read: who is served meanwhile, and what is left of it
// afterwards.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <algorithm>
#include <cstring>

using namespace netstack_test;

namespace {

constexpr size_t kArena = 2 << 20;

// Two stacks of little memory.
struct Small : Pair {
  TcpListener* listener = nullptr;

  explicit Small(Segments segments = Segments::unchecked, size_t servers_arena = kArena)
      : Pair{MemoryLink::make(segments), nullptr, nullptr} {
    client = make_stack(0, kClientIp, kArena);
    server = make_stack(1, kServerIp, servers_arena);
    long error = 1;
    listener = server->listen({address("0.0.0.0", 80)}, nullptr, 1000, &error);
    EXPECT_EQ(0, error);
  }
  Stack* make_stack(int end, const char* ip, size_t arena_bytes) {
    netstack::StackPlan plan;
    plan.wire = &link->ends[end];
    plan.address_be = inet_addr(ip);
    plan.now_ns = test_now;
    plan.time_wait_ms = 100;
    plan.arena_bytes = arena_bytes;
    auto stack = netstack::build_stack(plan);
    EXPECT_TRUE(static_cast<bool>(stack));
    return *stack;
  }

  // A connection to the server; the client may be the server's own stack.
  std::pair<TcpStream*, TcpStream*> connect(Stack* from) const {
    TcpStream* near = from->make_stream();
    EXPECT_EQ(0, near->connect(address(kServerIp, 80)));
    TcpStream* far = nullptr;
    EXPECT_TRUE(until([&] {
      SocketAddress peer;
      long error = 0;
      return far != nullptr || (far = listener->accept(&peer, &error)) != nullptr;
    }, 10'000)) << "a connection can always be made";
    return {near, far};
  }
  std::pair<TcpStream*, TcpStream*> connect() const { return connect(client); }

  // A small request and its answer on this connection; false if it takes longer than a second or two.
  bool ask(const std::pair<TcpStream*, TcpStream*>& pair) const {
    const auto moves = [&](TcpStream* from, TcpStream* to, const std::string& text) {
      if (send_text(*from, text) != static_cast<long>(text.size())) return false;
      std::string got;
      return until([&] { return (got += text_of(*to)) == text; }, 2000);
    };
    return moves(pair.first, pair.second, "a small request") && moves(pair.second, pair.first, std::string(500, 'a'));
  }
  bool has_room_for_all() const {
    std::vector<std::pair<TcpStream*, TcpStream*>> made;
    bool served = true;
    for (int i = 0; i < 200 && served; i++) {
      made.push_back(connect());
      served = made.back().second != nullptr && ask(made.back());
    }
    for (const auto& [near, far] : made) {
      near->release();
      if (far != nullptr) far->release();
    }
    return served;
  }
  void end() {
    listener->release();
    pass(70'000, 100);
    for (Stack* stack : {client, server}) {
      EXPECT_EQ(0u, stack->levels().arena_bytes);
      EXPECT_EQ(0, stack->levels().streams);
    }
    for (MemoryWire& wire : link->ends) EXPECT_EQ(wire.total_frames(), wire.free_frames());
  }
};

using Connections = std::vector<std::pair<TcpStream*, TcpStream*>>;

// Writes from one side of each until nothing moves any more; who was written to does not read.
void fill(const Small& bed, const Connections& connections, bool from_far) {
  const std::string piece(50'000, 'f');
  for (int quiet = 0; quiet < 20; quiet++) {
    for (const auto& [near, far] : connections) {
      if (send_text(from_far ? *far : *near, piece) > 0) quiet = 0;
    }
    bed.pass(10);
  }
}

class MemoryBound : public testing::TestWithParam<bool> {};

TEST_P(MemoryBound, OthersAreServedMeanwhileAndAllAfterwards) {
  Small bed;
  Connections idle;
  const auto early = bed.connect();
  for (int i = 0; i < 30; i++) idle.push_back(bed.connect());
  fill(bed, idle, GetParam());
  EXPECT_GT(std::max(bed.client->levels().arena_bytes, bed.server->levels().arena_bytes), kArena / 2) << "the burst is too small";
  EXPECT_TRUE(bed.ask(early));
  for (int i = 0; i < 20; i++) {
    const auto late = bed.connect();
    ASSERT_NE(nullptr, late.second);
    EXPECT_TRUE(bed.ask(late)) << i;
    late.first->release();
    late.second->release();
  }
  for (const auto& [near, far] : idle) near->release();
  for (const auto& [near, far] : idle) far->release();
  bed.pass(1000);
  early.first->release();
  early.second->release();
  EXPECT_TRUE(bed.has_room_for_all());
  bed.end();
}

INSTANTIATE_TEST_SUITE_P(, MemoryBound, testing::Values(false, true),
                         [](const auto& test) { return test.param ? "ThePeersDoNotRead" : "TheServerDoesNotRead"; });

TEST(MemoryBoundShare, OneThatTakesAllItGetsLeavesMostToOthers) {
  Small bed;
  Connections greedy{bed.connect()};
  int most = 4 << 20;
  EXPECT_EQ(0, greedy[0].second->set_option(TcpOption::send_buffer_bytes, most));
  fill(bed, greedy, true);
  EXPECT_LE(bed.server->levels().arena_bytes, kArena / 2);
  const auto other = bed.connect();
  EXPECT_GT(send_text(*other.second, std::string(200'000, 'o')), 100'000);
  for (const auto& [near, far] : {greedy[0], other}) {
    near->release();
    far->release();
  }
  bed.end();
}

// Everybody writes a lot and reads what comes, as an event loop does; within one stack, and between two.
class BothWays : public testing::TestWithParam<std::tuple<bool, Segments>> {};

TEST_P(BothWays, EverythingArrives) {
  constexpr size_t kBytes = 300'000;
  Small bed(std::get<1>(GetParam()));
  struct Side {
    TcpStream* stream;
    size_t sent, got;
  };
  std::vector<Side> sides;
  for (int i = 0; i < 25; i++) {
    const auto [near, far] = bed.connect(std::get<0>(GetParam()) ? bed.server : bed.client);
    sides.push_back({near, 0, 0});
    sides.push_back({far, 0, 0});
  }
  const std::string data(kBytes, 'b');
  EXPECT_TRUE(bed.until([&] {
    bool all = true;
    for (Side& side : sides) {
      const long sent = side.sent < kBytes ? send_text(*side.stream, data.substr(side.sent)) : 0;
      if (sent > 0) side.sent += static_cast<size_t>(sent);
      const long got = read_some(*side.stream, 20'000);
      if (got > 0) side.got += static_cast<size_t>(got);
      all = all && side.got == kBytes;
    }
    return all;
  }, 600'000));
  for (const Side& side : sides) {
    EXPECT_EQ(kBytes, side.got);
    side.stream->release();
  }
  bed.end();
}

INSTANTIATE_TEST_SUITE_P(, BothWays, testing::Combine(testing::Bool(), testing::Values(Segments::unchecked, Segments::by_reference)));

// Writers that share short memory are woken when each can take much of its share at once: a program may copy what it has still to write at
// each call, and pays for each piece.
TEST(MemoryBoundShare, WritersTakeLargePieces) {
  constexpr size_t kBytes = 2'000'000, kWriters = 12;
  constexpr size_t kShare = kArena / 8 * 7 / (kWriters + 4);
  Small bed;
  Connections writers;
  for (size_t i = 0; i < kWriters; i++) writers.push_back(bed.connect());
  const std::string data(kBytes, 'w');
  size_t sent[kWriters] = {}, got[kWriters] = {}, pieces = 0;
  EXPECT_TRUE(bed.until([&] {
    bool all = true;
    for (size_t i = 0; i < kWriters; i++) {
      const auto& [near, far] = writers[i];
      if (sent[i] < kBytes && (near->ready() & EPOLLOUT) != 0) {
        const long n = send_text(*near, data.substr(sent[i]));
        EXPECT_GT(n, 0) << "what says that it is writable is";
        sent[i] += static_cast<size_t>(std::max(n, 0l));
        pieces++;
      }
      const long n = read_some(*far, 50'000);
      if (n > 0) got[i] += static_cast<size_t>(n);
      all = all && got[i] == kBytes;
    }
    return all;
  }, 600'000));
  EXPECT_GT(kBytes * kWriters / pieces, kShare / 4 * 3);
  for (const auto& [near, far] : writers) {
    near->release();
    far->release();
  }
  bed.end();
}

// A listener that nobody accepts from: its queue is bounded, and what waits in it gives way to others as any other bulk does.
TEST(MemoryBoundShare, WhoNeverAcceptsKeepsNobodyOut) {
  constexpr int kBacklog = 50;
  Small bed;
  long error = 1;
  TcpListener* const idle = bed.server->listen({address("0.0.0.0", 81), {true, false}}, nullptr, kBacklog, &error);
  ASSERT_EQ(0, error);
  Connections waiting;
  for (int i = 0; i < 3 * kBacklog; i++) {
    waiting.emplace_back(bed.client->make_stream(), nullptr);
    EXPECT_EQ(0, waiting.back().first->connect(address(kServerIp, 81)));
    bed.pass(1);
  }
  fill(bed, waiting, false);
  EXPECT_LE(bed.server->levels().streams, kBacklog + 1);
  for (int i = 0; i < 20; i++) {
    const auto late = bed.connect();
    ASSERT_NE(nullptr, late.second);
    EXPECT_TRUE(bed.ask(late)) << i;
    late.first->release();
    late.second->release();
  }
  for (const auto& [near, far] : waiting) {
    (void)near->set_option(TcpOption::linger_s, 0);
    near->release();
  }
  bed.pass(1000);
  EXPECT_TRUE(bed.has_room_for_all()) << "those that have left wait still, but hold little";
  idle->release();
  bed.end();
}

// Who waits for more than memory can keep is told of what there is.
// A segment that is longer than what is left for a connection is taken in part, however often it comes.
TEST(MemoryBoundShare, WhatIsLongComesInPieces) {
  Small bed(Segments::by_reference, 32 * kArena);
  Connections all;
  for (int i = 0; i < 500; i++) all.push_back(bed.connect());
  const auto [reader, writer] = all.front();
  fill(bed, {all.begin() + 1, all.end()}, true);
  EXPECT_GT(bed.client->levels().arena_bytes, kArena / 8 * 7) << "the burst is too small";
  const std::string answer(50'000, 'l');
  for (int turn = 0; turn < 20; turn++) {
    size_t written = 0, got = 0;
    for (int pause = 0; pause < 10; pause++) {  // what nobody reads shuts the window
      written += static_cast<size_t>(std::max(0L, send_text(*writer, answer.substr(written))));
      bed.pass(10);
    }
    EXPECT_TRUE(bed.until([&, reader = reader, writer = writer] {
      if (written < answer.size()) written += static_cast<size_t>(std::max(0L, send_text(*writer, answer.substr(written))));
      got += text_of(*reader).size();
      return got == answer.size();
    }, 20'000)) << turn << ": " << got << " of " << written << " bytes";
  }
  for (const auto& [near, far] : all) EXPECT_TRUE(far->connected());
  for (const auto& [near, far] : all) {
    near->release();
    far->release();
  }
  bed.end();
}

TEST(MemoryBoundShare, LowWaterGivesWay) {
  Small bed;
  Connections all;
  for (int i = 0; i < 30; i++) {
    all.push_back(bed.connect());
    EXPECT_EQ(0, all.back().second->set_option(TcpOption::receive_low_water, 200'000));
  }
  fill(bed, all, false);
  for (const auto& [near, far] : all) EXPECT_NE(0u, far->ready() & EPOLLIN) << far->readable_bytes();
  for (const auto& [near, far] : all) {
    near->release();
    far->release();
  }
  bed.end();
}

}  // namespace
