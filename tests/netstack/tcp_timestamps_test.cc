// Timestamps (RFC 7323): who offers them, that each segment carries them, and what they are good for.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <cstring>
#include <linux/tcp.h>
#include <netinet/in.h>

using namespace netstack_test;

namespace {

constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr size_t kTcp = 34;

struct Segment {
  std::vector<uint8_t> frame;

  uint8_t flags() const { return frame[kTcp + 13]; }
  uint32_t word(size_t at) const {
    uint32_t value;
    memcpy(&value, &frame[at], sizeof value);
    return ntohl(value);
  }
  void set_word(size_t at, uint32_t value) {
    value = htonl(value);
    memcpy(&frame[at], &value, sizeof value);
  }
  size_t header_bytes() const { return static_cast<size_t>(frame[kTcp + 12] >> 4) * 4; }
  size_t payload() const { return (static_cast<size_t>(frame[16]) << 8 | frame[17]) - 20 - header_bytes(); }
  // Where the timestamps lie, or 0.
  size_t stamps_at() const {
    for (size_t at = kTcp + 20; at + 4 <= kTcp + header_bytes(); at += 4) {
      if (word(at) == 0x0101080a) return at + 4;
    }
    return 0;
  }
};

std::vector<Segment> sent[2];  // by client and server

template <int kEnd>
void keep(const uint8_t* data, uint32_t length) {
  if (length >= 54 && data[12] == 8 && data[13] == 0 && data[23] == IPPROTO_TCP) sent[kEnd].push_back({{data, data + length}});
}

class TcpTimestamps : public StackTest {
 protected:
  void begin(Segments segments) {
    pair_ = Pair::get(segments);
    SetUp();
    for (auto& segments_of : sent) segments_of.clear();
    pair_.client_wire().tap = keep<0>;
    pair_.server_wire().tap = keep<1>;
  }
  void end() { pair_.client_wire().tap = pair_.server_wire().tap = nullptr; }
  // The segments that the server answers `segment` with.
  std::vector<Segment> answers(const Segment& segment) {
    sent[1].clear();
    pair_.server_wire().deliver(segment.frame.data(), static_cast<uint32_t>(segment.frame.size()));
    pair_.server->poll(test_clock->now_ns);
    return sent[1];
  }
  static bool offers(TcpStream& stream) {
    tcp_info info{};
    stream.info(&info);
    return (info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0;
  }
};

// Data both ways, a shut window and its probes, keepalive, FINs.
TEST_F(TcpTimestamps, EachSegmentCarriesThem) {
  begin(Segments::checked);
  auto [client, server] = connected();
  EXPECT_TRUE(offers(*client));
  EXPECT_TRUE(offers(*server));
  int mss = 0;
  EXPECT_EQ(0, client->get_option(TcpOption::max_segment, &mss));
  EXPECT_EQ(1448, mss);
  EXPECT_EQ(0, client->set_option(TcpOption::keepidle_s, 1));
  EXPECT_EQ(0, client->set_option(TcpOption::keepalive, 1));
  std::string data(1 << 20, 'x');
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i * 7 >> 3);
  size_t written = 0;
  std::string got;
  for (int i = 0; i < 40 && written < data.size(); i++) {  // more than fits the peer's window
    written += static_cast<size_t>(std::max(0L, send_text(*client, data.substr(written))));
    pair_.pass(200);
  }
  EXPECT_LT(got.size(), data.size());
  pair_.pass(5000);
  ASSERT_TRUE(pair_.until([&] {
    got += text_of(*server);
    if (written < data.size()) written += static_cast<size_t>(std::max(0L, send_text(*client, data.substr(written))));
    return got.size() == data.size();
  }));
  EXPECT_TRUE(got == data);
  pair_.pass(3000);
  client->release();
  pair_.settle();
  server->release();
  pair_.settle();
  for (const auto& segments : sent) {
    ASSERT_GT(segments.size(), 100u);
    uint32_t last = segments[0].word(segments[0].stamps_at());
    for (const Segment& segment : segments) {
      if ((segment.flags() & kRst) != 0) continue;
      const size_t at = segment.stamps_at();
      ASSERT_NE(at, 0u) << "flags " << int{segment.flags()} << ", payload " << segment.payload();
      ASSERT_GE(static_cast<int32_t>(segment.word(at) - last), 0) << "it never goes back";
      last = segment.word(at);
    }
  }
  const Segment& final = sent[0].back();
  EXPECT_GE(final.word(final.stamps_at()) - sent[0][0].word(sent[0][0].stamps_at()), 8000u) << "milliseconds";
  end();
}

// A stack at the other end of a memory wire is not offered any.
TEST_F(TcpTimestamps, AreNotOfferedOnAMemoryWire) {
  begin(Segments::unchecked);
  auto [client, server] = connected();
  EXPECT_FALSE(offers(*client));
  EXPECT_EQ(5, send_text(*client, "hello"));
  pair_.settle();
  EXPECT_EQ("hello", text_of(*server));
  for (const auto& segments : sent) {
    for (const Segment& segment : segments) EXPECT_EQ(segment.stamps_at(), 0u);
  }
  client->release();
  server->release();
  end();
}

// Section 5: what is older than the last is not taken, however well its sequence number fits; a reset is.
TEST_F(TcpTimestamps, OldDuplicatesAreRejected) {
  begin(Segments::by_reference);
  auto [client, server] = connected();
  EXPECT_EQ(3, send_text(*client, "one"));
  pair_.settle();
  EXPECT_EQ("one", text_of(*server));
  Segment next;
  for (const Segment& segment : sent[0]) {
    if (segment.payload() == 3) next = segment;
  }
  ASSERT_FALSE(next.frame.empty());
  const size_t at = next.stamps_at();
  const uint32_t stamp = next.word(at);
  next.set_word(kTcp + 4, next.word(kTcp + 4) + 3);
  next.set_word(at, stamp - 1);
  const auto answer = answers(next);
  ASSERT_EQ(answer.size(), 1u);
  EXPECT_EQ(answer[0].flags(), kAck);
  EXPECT_EQ(answer[0].word(kTcp + 8), next.word(kTcp + 4)) << "it acknowledges what came before";
  EXPECT_EQ(0u, server->readable_bytes());
  next.set_word(at, stamp + 5);
  (void)answers(next);
  EXPECT_EQ("one", text_of(*server)) << "a newer one is taken";
  next.set_word(kTcp + 4, next.word(kTcp + 4) + 3);
  next.set_word(at, stamp);
  (void)answers(next);
  EXPECT_EQ(0u, server->readable_bytes()) << "and it is the last one now";
  next.frame[kTcp + 13] = kRst | kAck;
  (void)answers(next);
  EXPECT_EQ(ECONNRESET, server->take_error());
  client->release();
  server->release();
  end();
}

// RFC 6191: a SYN ends TIME-WAIT if its timestamp is newer, whatever its sequence number, and does not if it is older.
TEST_F(TcpTimestamps, ANewerSynEndsTimeWait) {
  begin(Segments::by_reference);
  long error = 1;
  TcpListener* listener = pair_.server->listen({address("0.0.0.0", 81)}, nullptr, 8, &error);
  ASSERT_EQ(0, error);
  TcpStream* client = connect(81);
  TcpStream* server = nullptr;
  ASSERT_TRUE(pair_.until([&] { return (server = accept(*listener)) != nullptr; }));
  server->release();
  pair_.settle();
  EXPECT_EQ(0, read_some(*client));
  client->release();
  pair_.settle();
  Segment syn = sent[0][0];
  ASSERT_EQ(syn.flags(), kSyn);
  const size_t at = syn.stamps_at();
  ASSERT_NE(at, 0u);
  const uint32_t sequence = syn.word(kTcp + 4), stamp = syn.word(at);
  const auto accepted = [&](uint32_t from, uint32_t value) {
    syn.set_word(kTcp + 4, from);
    syn.set_word(at, value);
    for (const Segment& segment : answers(syn)) {
      if ((segment.flags() & (kSyn | kAck)) == (kSyn | kAck)) return true;
    }
    return false;
  };
  EXPECT_FALSE(accepted(sequence + 100'000, stamp - 1)) << "an old duplicate";
  EXPECT_FALSE(accepted(sequence - 1000, stamp)) << "neither newer nor beyond the old connection";
  EXPECT_TRUE(accepted(sequence - 1000, stamp + 1000));
  pair_.settle();
  listener->release();
  end();
}

// Section 4: what was sent twice gives a round trip all the same.
TEST_F(TcpTimestamps, MeasureTheRoundTripOfARetransmission) {
  begin(Segments::checked);
  auto [client, server] = connected();
  tcp_info info{};
  EXPECT_EQ(3, send_text(*client, "one"));
  pair_.client->flush();
  for (int ms = 0; ms < 1600; ms += 20) {
    test_clock->now_ns += 20 * kMs;
    pair_.client->poll(test_clock->now_ns);
  }
  client->info(&info);
  EXPECT_GT(info.tcpi_retransmits, 0);
  pair_.settle();
  pair_.pass(100);
  client->info(&info);
  EXPECT_EQ(info.tcpi_retransmits, 0);
  EXPECT_GT(info.tcpi_rto, 1'200'000u);
  EXPECT_EQ("one", text_of(*server));
  client->release();
  server->release();
  end();
}

}  // namespace
