// Segments that are not taken: how many of them are answered.
// SPDX-License-Identifier: BSD-3-Clause
#include "raw_client.h"

using namespace netstack_test;

namespace {

constexpr int kFlood = 640, kBatch = 32;

struct Kind {
  const char* name;
  uint8_t flags;
  int ahead;             // of RCV.NXT
  size_t bytes;
  int64_t acknowledged;  // behind SND.UNA
  size_t most;           // answers to a flood that comes at one time
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class RejectedSegments : public RawClientTest, public testing::WithParamInterface<Kind> {
 protected:
  void flood(const Raw& raw) {
    seen_segments.clear();
    const Kind& kind = GetParam();
    Raw said = raw;
    said.got += static_cast<uint32_t>(kind.acknowledged);
    for (int i = 0; i < kFlood; i += kBatch) {
      for (int k = 0; k < kBatch; k++) inject(said, kind.flags, std::string(kind.bytes, 'x'), kind.ahead);
      pair_.settle();
    }
  }
};

TEST_P(RejectedSegments, AFloodIsNotAnsweredOneByOne) {
  Raw raw = open();
  for (int i = 0; i < 2; i++) {
    flood(raw);
    EXPECT_LE(answers(raw.port), GetParam().most);
    EXPECT_EQ(GetParam().most > 0, answers(raw.port) > 0);
    pair_.pass(600);
  }
  say(raw, kAck | kPsh, "hello");
  EXPECT_EQ("hello", text_of(*raw.server)) << "the connection is as it was";
  raw.next += 5;
  EXPECT_EQ(3, send_text(*raw.server, "yes"));
  pair_.settle();
  EXPECT_EQ(raw.got, last(raw.port)->sequence);
  EXPECT_EQ(raw.next, last(raw.port)->acknowledgement);
  raw.server->release();
  say(raw, kRst);
}

constexpr Kind kKinds[] = {
    {"Syn", kSyn, 100, 0, 0, 1},
    {"SynAck", kSyn | kAck, 0, 0, 0, 1},
    {"ResetInTheWindow", kRst, 100, 0, 0, 1},
    {"ResetBehindTheWindow", kRst, 1 << 24, 0, 0, 0},
    {"OldAck", kAck, -100, 0, 0, 1},
    {"DataBeyondTheWindow", kAck, 1 << 24, 10, 0, kFlood / kBatch},
    {"OldData", kAck, -1000, 10, 0, kFlood / kBatch},
    {"AckOfTheFuture", kAck, 0, 0, 1000, 0},
    {"DataWithAnAckOfTheFuture", kAck, 0, 10, 1000, 0},
    {"AckOfThePast", kAck, 0, 0, -(1 << 24), 1},
    {"DataWithAnAckOfThePast", kAck, 0, 10, -(1 << 24), kFlood / kBatch},
};
INSTANTIATE_TEST_SUITE_P(, RejectedSegments, testing::ValuesIn(kKinds), [](const auto& test) { return std::string(test.param.name); });

class Rejections : public RawClientTest {};

TEST_F(Rejections, TimeWaitAnswersSeldom) {
  Raw raw = open();
  raw.server->release();
  pair_.settle();
  raw.got++;
  say(raw, kFin | kAck);
  EXPECT_EQ(1, pair_.server->levels().time_wait);
  seen_segments.clear();
  for (int i = 0; i < kFlood; i++) say(raw, kFin | kAck);
  EXPECT_EQ(1u, answers(raw.port));
}

TEST_F(Rejections, HalfOpenConnectionsAnswerSeldom) {
  Raw raw{999, 1000, 0};
  say(raw, kSyn);
  seen_segments.clear();
  for (int i = 0; i < kFlood; i++) say(raw, kSyn, "", 1 + i);
  EXPECT_EQ(1u, answers(raw.port));
  raw.next++;
  say(raw, kRst);
}

}  // namespace
