// Urgent data: where the mark lies, what becomes of the byte, and what the segments say.
// SPDX-License-Identifier: BSD-3-Clause
#include "raw_client.h"

#include <algorithm>

using namespace netstack_test;

namespace {

long send_urgent(TcpStream& stream, const std::string& text) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  return stream.write_urgent(&part, 1, false);
}

// One read, as much as it gives.
std::string read_once(TcpStream& stream, bool peek = false) {
  char buffer[4096];
  iovec part{buffer, sizeof buffer};
  const long n = stream.read(&part, 1, peek);
  return n > 0 ? std::string(buffer, static_cast<size_t>(n)) : std::to_string(n);
}

std::string urgent_byte(TcpStream& stream, bool peek = false) {
  char byte = 0;
  const long result = stream.read_urgent(&byte, peek);
  return result == 1 ? std::string(1, byte) : std::to_string(result);
}

struct Announcements final : netstack::Observer {
  int urgent = 0;
  void on_ready(netstack::Pollable&, uint32_t events) noexcept override { urgent += (events & netstack::kUrgentAnnounced) != 0 ? 1 : 0; }
};

class Urgent : public StackTest {
 protected:
  void SetUp() override {
    StackTest::SetUp();
    std::tie(client_, server_) = connected();
    server_->observers.push_back(&told_);
  }
  void TearDown() override {
    told_.unlink();
    for (TcpStream* stream : {client_, server_}) {
      (void)stream->set_option(TcpOption::linger_s, 0);
      stream->release();
    }
    StackTest::TearDown();
  }
  void send(const std::string& before, const std::string& urgent, const std::string& after) {
    if (!before.empty()) send_text(*client_, before);
    send_urgent(*client_, urgent);
    if (!after.empty()) send_text(*client_, after);
    pair_.settle();
  }
  TcpStream* client_ = nullptr;
  TcpStream* server_ = nullptr;
  Announcements told_;
};

const std::string kAgain = std::to_string(-EAGAIN), kNone = std::to_string(-EINVAL);

TEST_F(Urgent, AReadEndsAtTheMarkAndTheByteIsNotInTheStream) {
  send("abc", "X", "def");
  EXPECT_EQ(1, told_.urgent);
  EXPECT_EQ(3u, server_->readable_to_mark());
  EXPECT_NE(0u, server_->ready() & EPOLLPRI);
  EXPECT_FALSE(server_->at_mark());
  EXPECT_EQ("abc", read_once(*server_));
  EXPECT_TRUE(server_->at_mark());
  EXPECT_EQ(0u, server_->readable_to_mark());
  EXPECT_EQ("X", urgent_byte(*server_, true));
  EXPECT_EQ("X", urgent_byte(*server_));
  EXPECT_EQ(kNone, urgent_byte(*server_));
  EXPECT_EQ(0u, server_->ready() & EPOLLPRI);
  EXPECT_TRUE(server_->at_mark());
  EXPECT_EQ("def", read_once(*server_, true));
  EXPECT_EQ("def", read_once(*server_));
  EXPECT_FALSE(server_->at_mark());
  EXPECT_EQ(kAgain, read_once(*server_));
}

TEST_F(Urgent, WhoReadsOnLosesIt) {
  send("", "X", "def");
  EXPECT_TRUE(server_->at_mark());
  EXPECT_EQ("def", read_once(*server_));
  EXPECT_EQ(kNone, urgent_byte(*server_));
}

TEST_F(Urgent, AloneItIsNothingToRead) {
  send("", "X", "");
  EXPECT_EQ(0u, server_->ready() & EPOLLIN);
  EXPECT_EQ("X", urgent_byte(*server_));
  EXPECT_EQ(kAgain, read_once(*server_));
  send("", "", "more");
  EXPECT_EQ("more", read_once(*server_));
}

TEST_F(Urgent, InlineItIsPartOfTheStream) {
  EXPECT_EQ(0, server_->set_option(TcpOption::oob_inline, 1));
  send("abc", "X", "def");
  EXPECT_EQ(7u, server_->readable_to_mark());
  EXPECT_EQ("abc", read_once(*server_));
  EXPECT_TRUE(server_->at_mark());
  EXPECT_EQ(kNone, urgent_byte(*server_));
  EXPECT_EQ("Xdef", read_once(*server_));
  EXPECT_FALSE(server_->at_mark());
}

TEST_F(Urgent, ANewOneMakesTheOldOneOrdinary) {
  send("abc", "X", "def");
  send("", "Y", "ghi");
  EXPECT_EQ(2, told_.urgent);
  EXPECT_EQ("abcXdef", read_once(*server_));
  EXPECT_EQ("Y", urgent_byte(*server_));
  EXPECT_EQ("ghi", read_once(*server_));
}

TEST_F(Urgent, ANewOneDropsTheOldOneAtTheMark) {
  send("", "X", "def");
  EXPECT_TRUE(server_->at_mark());
  send("", "Y", "");
  EXPECT_EQ("def", read_once(*server_));
  EXPECT_TRUE(server_->at_mark());
  EXPECT_EQ("Y", urgent_byte(*server_));
}

TEST_F(Urgent, ManyBytesOneIsUrgent) {
  send("", "abcX", "def");
  EXPECT_EQ("abc", read_once(*server_));
  EXPECT_EQ("X", urgent_byte(*server_));
  EXPECT_EQ("def", read_once(*server_));
}

TEST_F(Urgent, AtTheEndOfTheStream) {
  send("abc", "X", "");
  EXPECT_EQ(0, client_->shutdown(SHUT_WR));
  pair_.settle();
  EXPECT_EQ("abc", read_once(*server_));
  EXPECT_EQ("X", urgent_byte(*server_));
  EXPECT_EQ("0", read_once(*server_));
}

// A megabyte with a mark every now and then, and losses: each mark comes where it was set, or not at all because a newer one came.
TEST_F(Urgent, LossesMoveNoMark) {
  pair_.link->ends[0].impairment = {20, 10, 0, 7};
  pair_.link->ends[1].impairment = {20, 0, 0, 9};
  size_t sent = 0, got = 0;
  std::vector<size_t> marks;
  const auto read_all = [&] {
    while (true) {
      if (server_->at_mark()) {
        EXPECT_NE(marks.end(), std::find(marks.begin(), marks.end(), got)) << got;
        if (urgent_byte(*server_) == "!") got++;
      }
      const std::string text = read_once(*server_);
      if (text == kAgain) return;
      ASSERT_EQ('.', text[0]);
      got += text.size();
    }
  };
  while (sent < 1'000'000 && !HasFailure()) {
    sent += static_cast<size_t>(std::max(0l, send_text(*client_, std::string(7000, '.'))));
    marks.push_back(sent);
    sent += static_cast<size_t>(std::max(0l, send_urgent(*client_, "!")));
    pair_.pass(20);
    read_all();
  }
  EXPECT_TRUE(pair_.until([&] {
    read_all();
    return client_->unsent_bytes() == 0;
  }));
  read_all();
  EXPECT_LE(sent - got, marks.size()) << "what is missing are urgent bytes";
}

class UrgentSegments : public RawClientTest {};

TEST_F(UrgentSegments, ThePointerMayComeBeforeTheByte) {
  Raw raw = open();
  Announcements told;
  raw.server->observers.push_back(&told);
  say(raw, kAck | kUrg, "", 0, 4);
  EXPECT_EQ(1, told.urgent);
  EXPECT_EQ(kAgain, urgent_byte(*raw.server));
  say(raw, kAck | kPsh | kUrg, "abcXdef", 0, 4);
  raw.next += 7;
  EXPECT_EQ(1, told.urgent);
  EXPECT_EQ("abc", read_once(*raw.server));
  EXPECT_EQ("X", urgent_byte(*raw.server));
  say(raw, kAck | kUrg, "", -7, 4);  // an old one
  EXPECT_EQ(1, told.urgent);
  EXPECT_EQ("def", read_once(*raw.server));
  say(raw, kAck | kUrg, "", 0, 1);
  EXPECT_EQ("0", (say(raw, kFin | kAck), urgent_byte(*raw.server))) << "it will not come";
  told.unlink();
  raw.server->release();
  say(raw, kRst, "", 1);
}

TEST_F(UrgentSegments, AllThatLeavesBeforeTheByteSaysIt) {
  Raw raw = open();
  EXPECT_EQ(3, send_text(*raw.server, "abc"));
  EXPECT_EQ(1, send_urgent(*raw.server, "X"));
  EXPECT_EQ(3, send_text(*raw.server, "def"));
  pair_.settle();
  const auto check = [&](bool urgent) {
    const Seen* const segment = last(raw.port);
    ASSERT_NE(nullptr, segment);
    EXPECT_EQ(urgent, (segment->flags & kUrg) != 0);
    EXPECT_EQ(urgent ? raw.got + 4 - segment->sequence : 0, segment->urgent);
  };
  const auto is_ordinary = [](const Seen& s) { return (s.flags & kUrg) == 0; };
  seen_segments.erase(std::remove_if(seen_segments.begin(), seen_segments.end(), is_ordinary), seen_segments.end());
  check(true);
  seen_segments.clear();
  pair_.pass(1500);  // retransmitted
  ASSERT_NE(nullptr, last(raw.port));
  EXPECT_NE(0, seen_segments.front().flags & kUrg);
  EXPECT_EQ(raw.got + 4, seen_segments.front().sequence + seen_segments.front().urgent);
  raw.got += 7;
  say(raw, kAck);
  EXPECT_EQ(4, send_text(*raw.server, "more"));
  pair_.settle();
  check(false);
  raw.server->release();
  say(raw, kRst);
}

TEST_F(UrgentSegments, AProbeSaysIt) {
  Raw raw = open(0);
  EXPECT_EQ(1, send_urgent(*raw.server, "X"));
  pair_.pass(1000);
  ASSERT_NE(nullptr, last(raw.port));
  EXPECT_NE(0, last(raw.port)->flags & kUrg);
  EXPECT_EQ(raw.got + 1, last(raw.port)->sequence + last(raw.port)->urgent);
  raw.server->release();
  say(raw, kRst);
}

}  // namespace
