// TIME-WAIT and who comes to the same four numbers again: at once, anew, or not at all.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/tcp.h>

#include "raw_client.h"

using namespace netstack_test;

namespace {

constexpr uint16_t kPort = 80, kClientPort = 5000;

// A wire without timestamps: a SYN is told from an old duplicate by its sequence number alone.
class TimeWait : public StackTest {
 protected:
  TimeWait() { pair_ = Pair::get(Segments::unchecked); }

  TcpStream* connect_again() {
    TcpStream* client = pair_.client->make_stream();
    EXPECT_EQ(0, pair_.client->bind_stream(client, address(kClientIp, kClientPort)));
    EXPECT_EQ(0, client->connect(address(kServerIp, kPort)));
    pair_.settle();
    return client;
  }

  // A request of 100 bytes, and the server closes first.
  void once(TcpListener& listener) {
    TcpStream* const client = connect_again();
    ASSERT_TRUE(client->connected());
    TcpStream* const server = accept(listener);
    ASSERT_NE(nullptr, server);
    EXPECT_EQ(100, send_text(*client, std::string(100, 'x')));
    pair_.settle();
    EXPECT_EQ(100u, text_of(*server).size());
    server->release();
    pair_.settle();
    EXPECT_EQ(0, read_some(*client));
    tcp_info info{};
    client->info(&info);
    retransmitted_ += info.tcpi_total_retrans;
    client->release();
    pair_.settle();
    EXPECT_EQ(1, pair_.server->levels().time_wait);
  }

  unsigned retransmitted_ = 0;
};

// The clock of sequence numbers stands still, as it seems to when a client begins anew with another secret: the server knows a later
// segment of these four numbers. It acknowledges that, the client resets what it does not know, and comes again (RFC 9293, 3.10.7.3 and
// tcp_timewait_state_process(), which ends TIME-WAIT for such a reset).
TEST_F(TimeWait, EndsForAPeerThatBeganAnew) {
  TcpListener* const listener = listen(kPort);
  for (int i = 0; i < 3 && !HasFatalFailure(); i++) once(*listener);
  EXPECT_EQ(2u, retransmitted_) << "each but the first was refused once";
  listener->release();
}

// A connection that asked for a few bytes is over in microseconds: the next one's first sequence number is beyond its last by then
// (secure_tcp_seq(): a clock of 64 ns).
TEST_F(TimeWait, IsNoneForWhoComesBackMicrosecondsLater) {
  TcpListener* const listener = listen(kPort);
  for (int i = 0; i < 3 && !HasFatalFailure(); i++) {
    once(*listener);
    test_clock->now_ns += 20'000;
    pair_.settle();
  }
  EXPECT_EQ(0u, retransmitted_);
  listener->release();
}

class TimeWaitReset : public RawClientTest {};

TEST_F(TimeWaitReset, EndsItAtTheNextSequenceNumberOnly) {
  Raw raw = open();
  raw.server->release();
  pair_.settle();
  raw.got++;
  say(raw, kFin | kAck);
  raw.next++;
  ASSERT_EQ(1, pair_.server->levels().time_wait);
  for (int away : {-1, 1, 1000}) {
    say(raw, kRst, "", away);
    EXPECT_EQ(1, pair_.server->levels().time_wait) << away;
  }
  say(raw, kRst);
  EXPECT_EQ(0, pair_.server->levels().time_wait);
}

}  // namespace
