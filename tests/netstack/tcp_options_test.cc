// What options do to a connection, and what TCP_INFO counts, over time.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/tcp.h>
#include <sys/epoll.h>

#include "raw_client.h"

namespace netstack_test {
namespace {

using netstack::TcpOption;

class TcpOptions : public StackTest {
 protected:
  static tcp_info info_of(const TcpStream& stream) {
    tcp_info info{};
    stream.info(&info);
    return info;
  }
  void end(TcpStream* client, TcpStream* server) {
    client->release();
    pair_.pass(1000);
    text_of(*server);
    server->release();
  }
};

TEST_F(TcpOptions, WhatIsSentAgainIsCounted) {
  auto [client, server] = connected();
  send_text(*client, std::string(3000, 'a'));
  pair_.pass(100);
  EXPECT_EQ(0u, info_of(*client).tcpi_total_retrans);
  pair_.server_wire().cut = true;
  send_text(*client, std::string(1000, 'b'));
  pair_.pass(8000, 50);
  tcp_info info = info_of(*client);
  EXPECT_EQ(4, info.tcpi_ca_state);
  EXPECT_EQ(1u, info.tcpi_retrans);
  EXPECT_GE(info.tcpi_total_retrans, 2u);
  EXPECT_EQ(info.tcpi_total_retrans * 1000u, info.tcpi_bytes_retrans);
  EXPECT_EQ(info.tcpi_total_retrans, client->info_tail().total_rto);
  EXPECT_EQ(1, client->info_tail().total_rto_recoveries);
  const uint32_t lasts_ms = client->info_tail().total_rto_time;
  EXPECT_GT(lasts_ms, 3000u);
  EXPECT_LT(lasts_ms, 8000u);
  pair_.server_wire().cut = false;
  pair_.pass(20000, 50);
  const uint32_t lasted_ms = client->info_tail().total_rto_time;
  EXPECT_GE(lasted_ms, lasts_ms);
  pair_.pass(1000);
  EXPECT_EQ(lasted_ms, client->info_tail().total_rto_time);
  EXPECT_EQ(1, client->info_tail().total_rto_recoveries);
  info = info_of(*client);
  EXPECT_EQ(4000u, info.tcpi_bytes_acked);
  EXPECT_EQ(4000u + info.tcpi_bytes_retrans, info.tcpi_bytes_sent);
  EXPECT_EQ(0u, info.tcpi_retrans);
  EXPECT_EQ(0, info.tcpi_ca_state);
  EXPECT_EQ(4u, info.tcpi_delivered);
  end(client, server);
}

class FiguresOfARawClient : public RawClientTest {};

TEST_F(FiguresOfARawClient, WhatCameBehindAGap) {
  Raw raw = open();
  tcp_info info{};
  say(raw, kAck, "behind", 10);
  raw.server->info(&info);
  EXPECT_EQ(1u, info.tcpi_rcv_ooopack);
  EXPECT_EQ(0u, info.tcpi_bytes_received);
  say(raw, kAck, "beyond", 1 << 24);
  raw.server->info(&info);
  EXPECT_EQ(1u, info.tcpi_rcv_ooopack) << "what is not in the window is not taken";
  say(raw, kAck, "0123456789");
  raw.server->info(&info);
  EXPECT_EQ(16u, info.tcpi_bytes_received);
  raw.next += 16;
  raw.server->release();
  say(raw, kRst);
}

TEST_F(FiguresOfARawClient, WhatIsAcknowledgedTwice) {
  Raw raw = open();
  for (int i = 0; i < 3; i++) {
    send_text(*raw.server, std::string(1000, 'x'));
    pair_.settle();
  }
  tcp_info info{};
  for (uint32_t twice = 0; twice < 3; twice++) {
    raw.server->info(&info);
    EXPECT_EQ(twice, info.tcpi_sacked);
    say(raw, kAck);
  }
  raw.got += 3000;
  say(raw, kAck);
  raw.server->info(&info);
  EXPECT_EQ(0u, info.tcpi_sacked);
  raw.server->release();
  say(raw, kRst);
}

// While the window lets nothing out; and not while the peer takes what there is.
TEST_F(FiguresOfARawClient, HowLongTheWindowWasFull) {
  Raw raw = open(2000);
  tcp_info info{};
  send_text(*raw.server, std::string(1000, 'x'));
  pair_.pass(100);
  raw.got += 1000;
  say(raw, kAck);
  raw.server->info(&info);
  EXPECT_EQ(0u, info.tcpi_rwnd_limited);
  send_text(*raw.server, std::string(200'000, 'x'));
  pair_.pass(100, 10);
  raw.server->info(&info);
  EXPECT_GE(info.tcpi_rwnd_limited, 90'000u);
  EXPECT_LE(info.tcpi_rwnd_limited, info.tcpi_busy_time);
  raw.got += 2000;
  say(raw, kAck);
  raw.server->info(&info);
  EXPECT_GE(info.tcpi_rwnd_limited, 90'000u);
  EXPECT_LE(info.tcpi_rwnd_limited, 120'000u);
  (void)raw.server->set_option(TcpOption::linger_s, 0);
  raw.server->release();
}

TEST_F(TcpOptions, WhatAResetThrewAwayIsNotAcknowledged) {
  auto [client, server] = connected();
  send_text(*client, "abc");
  pair_.pass(100);
  pair_.server_wire().cut = true;
  send_text(*client, "lost");
  (void)client->set_option(TcpOption::user_timeout_ms, 1000);
  EXPECT_TRUE(pair_.until([&, c = client] { return c->take_error() != 0; }));
  pair_.server_wire().cut = false;
  EXPECT_EQ(3u, info_of(*client).tcpi_bytes_acked);
  EXPECT_EQ(7, info_of(*client).tcpi_state);
  client->release();
  (void)server->set_option(TcpOption::linger_s, 0);
  server->release();
}

TEST_F(TcpOptions, TheHandshakeIsARoundTrip) {
  TcpListener* listener = listen(80);
  TcpStream* client = pair_.client->make_stream();
  ASSERT_EQ(0, client->connect(address(kServerIp, 80)));
  pair_.client->flush();
  test_clock->now_ns += 5 * kMs;
  ASSERT_TRUE(pair_.until([&] { return client->connected(); }));
  EXPECT_GE(info_of(*client).tcpi_rtt, 4999u);
  EXPECT_LE(info_of(*client).tcpi_rtt, 30'000u);
  EXPECT_EQ(info_of(*client).tcpi_rtt, info_of(*client).tcpi_min_rtt);
  client->release();
  listener->release();
  pair_.pass(100);
}

TEST_F(TcpOptions, SynCountBoundsAnAttempt) {
  pair_.server_wire().cut = true;
  TcpStream* stream = pair_.client->make_stream();
  ASSERT_EQ(0, stream->set_option(TcpOption::syn_count, 2));
  ASSERT_EQ(0, stream->connect(address(kServerIp, 80)));
  const uint64_t start = test_clock->now_ns;
  int error = 0;
  EXPECT_TRUE(pair_.until([&] { return (error = stream->take_error()) != 0; }, 60'000));
  EXPECT_EQ(ETIMEDOUT, error);
  EXPECT_NEAR(7000, static_cast<double>((test_clock->now_ns - start) / kMs), 500) << "1 + 2 + 4 seconds";
  pair_.server_wire().cut = false;
  stream->release();
  pair_.pass(10'000, 50);
}

TEST_F(TcpOptions, Linger2BoundsFinWait2) {
  for (const int seconds : {-1, 2, 90}) {
    auto [client, server] = connected();
    ASSERT_EQ(0, client->set_option(TcpOption::fin_wait_s, seconds));
    client->release();
    pair_.pass(seconds < 0 ? 200 : seconds * 1000 - 500, 20);
    EXPECT_EQ(seconds < 0 ? ECONNRESET : 0, server->take_error() == 0 ? 0 : ECONNRESET) << seconds;
    EXPECT_EQ(client_before_.pcbs + (seconds < 0 ? 0 : 1), pair_.client->levels().pcbs) << seconds;
    pair_.pass(1000, 20);
    EXPECT_EQ(client_before_.pcbs, pair_.client->levels().pcbs) << seconds;
    server->release();
    pair_.pass(1000, 50);
  }
}

TEST_F(TcpOptions, PacingIsARate) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::pacing_rate, 1'000'000));
  size_t sent = 0, got = 0;
  const uint64_t start = test_clock->now_ns;
  const std::string piece(20'000, 'p');
  ASSERT_TRUE(pair_.until([&, c = client, s = server] {
    if (sent < 2'000'000) {
      const long n = send_text(*c, piece);
      if (n > 0) sent += static_cast<size_t>(n);
      c->ready();
    }
    got += text_of(*s).size();
    return got >= 2'000'000;
  }));
  EXPECT_NEAR(2000, static_cast<double>((test_clock->now_ns - start) / kMs), 200);
  ASSERT_EQ(0, client->set_option(TcpOption::pacing_rate, -1));
  end(client, server);
}

TEST_F(TcpOptions, LittleUnsent) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::notsent_low_water, 10'000));
  size_t sent = 0;
  for (long n; (n = send_text(*client, std::string(30'000, 'n'))) > 0;) {
    sent += static_cast<size_t>(n);
    pair_.settle();
  }
  EXPECT_GE(info_of(*client).tcpi_notsent_bytes, 10'000u);
  EXPECT_LE(info_of(*client).tcpi_notsent_bytes, 74'000u);
  EXPECT_EQ(0u, client->ready() & EPOLLOUT);
  struct Flag final : netstack::Observer {
    void on_ready(netstack::Pollable&, uint32_t events) noexcept override { seen |= events; }
    uint32_t seen = 0;
  } flag;
  client->observers.push_back(&flag);
  size_t got = 0;
  ASSERT_TRUE(pair_.until([&, s = server] {
    if (const long n = read_some(*s, 4000); n > 0) got += static_cast<size_t>(n);
    return (flag.seen & EPOLLOUT) != 0;
  }));
  EXPECT_LT(got, sent) << "before all of it has arrived";
  EXPECT_LT(info_of(*client).tcpi_notsent_bytes, 5000u);
  flag.unlink();
  end(client, server);
}

TEST_F(TcpOptions, AClampedWindow) {
  auto [client, server] = connected();
  ASSERT_EQ(0, server->set_option(TcpOption::window_clamp, 20'000));
  send_text(*client, std::string(900'000, 'w'));
  pair_.pass(2000);
  const size_t unread = server->readable_bytes();
  text_of(*server);
  for (int i = 0; i < 50; i++) {  // what was offered comes once
    pair_.pass(10);
    text_of(*server);
  }
  pair_.pass(1000);
  EXPECT_GT(unread, 0u);
  EXPECT_LE(info_of(*server).tcpi_rcv_space, 20'000u);
  EXPECT_LE(server->readable_bytes(), 20'000u);
  end(client, server);
}

class Deferring : public TcpOptions {
 protected:
  void SetUp() override {
    TcpOptions::SetUp();
    listener_ = listen(80);
    ASSERT_EQ(0, listener_->set_option(TcpOption::defer_accept_s, 3));  // two retransmissions
    client_ = connect(80);
    ASSERT_TRUE(pair_.until([&] { return client_->connected(); }));
  }
  void TearDown() override {
    client_->release();
    if (server_ != nullptr) server_->release();
    listener_->release();
    TcpOptions::TearDown();
  }
  TcpListener* listener_;
  TcpStream *client_, *server_ = nullptr;
};

TEST_F(Deferring, DataCompletesTheHandshake) {
  pair_.pass(700);
  EXPECT_EQ(nullptr, accept(*listener_));
  send_text(*client_, "at last");
  ASSERT_TRUE(pair_.until([&] { return (server_ = accept(*listener_)) != nullptr; }, 100));
  EXPECT_EQ("at last", text_of(*server_));
}

TEST_F(Deferring, SoDoesItsTime) {
  const uint64_t start = test_clock->now_ns;
  ASSERT_TRUE(pair_.until([&] { return (server_ = accept(*listener_)) != nullptr; }, 10'000));
  EXPECT_NEAR(3000, static_cast<double>((test_clock->now_ns - start) / kMs), 400);
  EXPECT_EQ(0u, server_->ready() & EPOLLIN);
  send_text(*client_, "later");
  pair_.pass(100);
  EXPECT_EQ("later", text_of(*server_));
}

TEST_F(Deferring, SoDoesAnEnd) {
  EXPECT_EQ(0, client_->shutdown(1));
  ASSERT_TRUE(pair_.until([&] { return (server_ = accept(*listener_)) != nullptr; }, 100));
  EXPECT_NE(0u, server_->ready() & EPOLLRDHUP);
}

TEST_F(Deferring, AResetForgetsIt) {
  ASSERT_EQ(0, client_->set_option(TcpOption::linger_s, 0));
  client_->release();
  pair_.pass(5000);
  EXPECT_EQ(nullptr, accept(*listener_));
  EXPECT_EQ(0, pair_.server->levels().half_open);
  client_ = pair_.client->make_stream();
}

}  // namespace
}  // namespace netstack_test
