// Connections that nobody holds any more, whose peer does not let them end.
// SPDX-License-Identifier: BSD-3-Clause
#include "raw_client.h"

#include <algorithm>

using namespace netstack_test;

namespace {

class Orphans : public RawClientTest {};

constexpr int kGivenUpMs = 110'000;     // Linux's eight retransmissions take about 100 s
constexpr int kFinWaitMs = 60'000;      // net.ipv4.tcp_fin_timeout
constexpr int kStepMs = 100;

enum class End { fin_wait_1, fin_wait_1_with_data, last_ack, closing };

class SilentPeer : public Orphans, public testing::WithParamInterface<End> {};

TEST_P(SilentPeer, IsGivenUp) {
  Raw raw = open();
  if (GetParam() == End::last_ack) {
    say(raw, kFin | kAck);
    raw.next++;
  }
  if (GetParam() == End::fin_wait_1_with_data) send_text(*raw.server, std::string(200'000, 'd'));
  raw.server->release();
  pair_.settle();
  if (GetParam() == End::closing) say(raw, kFin | kAck);  // it has not seen ours
  pair_.pass(50'000, kStepMs);
  EXPECT_EQ(1, connections()) << "it may come back";
  pair_.pass(kGivenUpMs - 50'000, kStepMs);
  EXPECT_EQ(0, connections());
  EXPECT_EQ(server_before_.streams, pair_.server->levels().streams);
  EXPECT_EQ(server_before_.arena_bytes, pair_.server->levels().arena_bytes);
}

std::string name_of(const testing::TestParamInfo<End>& test) {
  constexpr const char* kNames[] = {"FinWait1", "FinWait1WithData", "LastAck", "Closing"};
  return kNames[static_cast<int>(test.param)];
}
INSTANTIATE_TEST_SUITE_P(, SilentPeer, testing::Values(End::fin_wait_1, End::fin_wait_1_with_data, End::last_ack, End::closing), name_of);

// A peer that lives, but has no room: each probe is answered.
TEST_F(Orphans, AShutWindowIsNotProbedForEver) {
  for (const bool all_sent : {false, true}) {
    Raw raw = open(1000);
    send_text(*raw.server, std::string(all_sent ? 500 : 5000, 'd'));
    raw.server->release();
    pair_.settle();
    raw.window = 0;
    for (int passed = 0; passed < 300'000 && connections() > 0; passed += kStepMs) {
      const size_t before = answers(raw.port);
      pair_.pass(kStepMs, kStepMs);
      if (answers(raw.port) > before) say(raw, kAck);
    }
    EXPECT_EQ(0, connections()) << all_sent;
  }
}

TEST_F(Orphans, FinWait2Lasts60Seconds) {
  Raw raw = open();
  raw.server->release();
  pair_.settle();
  raw.got++;
  say(raw, kAck);
  pair_.pass(kFinWaitMs - 5000, kStepMs);
  EXPECT_EQ(1, connections());
  pair_.pass(10'000, kStepMs);
  EXPECT_EQ(0, connections());
}

TEST_F(Orphans, FinWait2IsNotProlongedByWhoSaysNothing) {
  Raw raw = open();
  raw.server->release();
  pair_.settle();
  raw.got++;
  say(raw, kAck);
  for (int passed = 0; passed < kFinWaitMs + 5000; passed += 1000) {
    pair_.pass(1000, kStepMs);
    inject(raw, kAck, "", -1);  // keepalive
  }
  EXPECT_EQ(0, connections());
}

// The peer has let us wait for as long as FIN-WAIT-2 lasts, and only then begins it.
TEST_F(Orphans, FinWait2BeginsWithTheAcknowledgement) {
  Raw raw = open(0);
  send_text(*raw.server, std::string(500, 'd'));
  raw.server->release();
  for (int passed = 0; passed < kFinWaitMs + 10'000; passed += 1000) {
    pair_.pass(1000, kStepMs);
    inject(raw, kAck);
  }
  raw.window = 60'000;
  for (int i = 0; i < 20 && last_flags(raw.port) != (kFin | kAck) && (last_flags(raw.port) & kFin) == 0; i++) {
    say(raw, kAck);
    pair_.pass(1000, kStepMs);
  }
  ASSERT_NE(0, last_flags(raw.port) & kFin);
  raw.got += 501;
  say(raw, kAck);
  pair_.pass(kFinWaitMs - 5000, kStepMs);
  say(raw, kFin | kAck);
  EXPECT_EQ(kAck, last_flags(raw.port)) << "the peer's FIN is no surprise";
}

// Peers that take nothing, as many as memory holds: who comes afterwards is served.
TEST_F(Orphans, MakeRoomForTheLiving) {
  size_t held = 0;
  for (bool fits = true; fits; held = pair_.server->levels().arena_bytes) {
    const Raw hostile = open(0);
    ASSERT_NE(nullptr, hostile.server);
    fits = send_text(*hostile.server, std::string(1 << 20, 'h')) > 5000;
    hostile.server->release();
  }
  pair_.pass(4000);
  EXPECT_LT(pair_.server->levels().arena_bytes, held);
  TcpStream* client = connect(80);
  TcpStream* server = nullptr;
  EXPECT_TRUE(pair_.until([&] { return (server = accept(*listener_)) != nullptr; }, 1000));
  EXPECT_GT(send_text(*server, std::string(200'000, 'l')), 100'000) << "more than the least that anybody has";
  client->release();
  server->release();
  pair_.pass(kGivenUpMs, kStepMs);
}

}  // namespace
