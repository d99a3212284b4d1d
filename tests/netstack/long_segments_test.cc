// Long segments that come: the host's own kernel sends 64 KB in one, anybody else's frame of that length is many that were put together.
// SPDX-License-Identifier: BSD-3-Clause
#include <string>
#include <tuple>

#include "raw_client.h"

namespace netstack_test {
namespace {

constexpr int kQuickAcks = 16;  // the first acknowledgements of a connection are not delayed

class LongSegments : public StackTest {
 protected:
  static constexpr size_t kSegment = 6 * (MemoryWire::kMtu - 40 - 12);  // the longest that the stack sends over this wire

  LongSegments() { pair_ = Pair::get(Segments::by_reference); }
  void SetUp() override {
    StackTest::SetUp();
    std::tie(client_, server_) = connected();
    for (int i = 0; i < kQuickAcks; i++) {
      send_text(*client_, "quick");
      pair_.settle();
      EXPECT_EQ(5u, text_of(*server_).size());
      pair_.settle();
      ASSERT_EQ(0u, client_->unsent_bytes());
    }
  }
  void TearDown() override {
    text_of(*server_);
    pair_.pass(100);
    EXPECT_EQ(0u, client_->unsent_bytes());
    client_->release();
    server_->release();
    StackTest::TearDown();
  }
  void send_segment() {
    EXPECT_EQ(static_cast<long>(kSegment), send_text(*client_, std::string(kSegment, 's')));
    pair_.settle();
  }
  // How many the server sends while the program reads so much.
  uint64_t frames_for_reading(size_t bytes) {
    const uint64_t before = pair_.server_wire().sent;
    EXPECT_EQ(static_cast<long>(bytes), read_some(*server_, bytes));
    pair_.settle();
    return pair_.server_wire().sent - before;
  }

  TcpStream *client_ = nullptr, *server_ = nullptr;
};

TEST_F(LongSegments, EverySecondIsAcknowledged) {
  send_segment();
  EXPECT_EQ(kSegment, client_->unsent_bytes());
  send_segment();
  EXPECT_EQ(0u, client_->unsent_bytes());
  send_segment();
  EXPECT_EQ(kSegment, client_->unsent_bytes());
  pair_.pass(100);
  EXPECT_EQ(0u, client_->unsent_bytes()) << "in time, if no other comes";
}

TEST_F(LongSegments, RoomIsToldWhenItHasDoubled) {
  constexpr size_t kSegments = 32;
  for (size_t i = 0; i < kSegments; i++) send_segment();
  ASSERT_EQ(0u, client_->unsent_bytes());
  ASSERT_EQ(kSegments * kSegment, server_->readable_bytes());
  EXPECT_EQ(0u, frames_for_reading(100'000));
  EXPECT_EQ(0u, frames_for_reading(100'000));
  EXPECT_EQ(1u, frames_for_reading(kSegments * kSegment - 200'000));
}

// A peer whose own segments are short.
class PutTogether : public RawClientTest {
 protected:
  PutTogether() { pair_ = Pair::get(Segments::by_reference); }
};

TEST_F(PutTogether, IsAcknowledgedAtOnce) {
  Raw raw = open();
  const auto bring = [&](size_t bytes) {
    seen_segments.clear();
    say(raw, kAck, std::string(bytes, 'g'));
    raw.next += static_cast<uint32_t>(bytes);
    return answers(raw.port);
  };
  for (int i = 0; i < kQuickAcks; i++) (void)bring(10);
  pair_.pass(100);
  EXPECT_EQ(0u, bring(10)) << "delayed";
  pair_.pass(100);
  EXPECT_EQ(1u, bring(10'000));
  text_of(*raw.server);
  raw.server->release();
  say(raw, kRst);
}

}  // namespace
}  // namespace netstack_test
