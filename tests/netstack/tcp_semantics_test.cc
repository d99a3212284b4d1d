// What Linux does at the edges of a connection: refusal, FIN, RST, shutdown, errors told once, readiness bits, options.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <linux/tcp.h>

using namespace netstack_test;

namespace {

constexpr uint32_t kIn = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kOut = EPOLLOUT | EPOLLWRNORM;

class TcpSemantics : public StackTest {};

struct Recorder final : netstack::Observer {
  void on_ready(netstack::Pollable&, uint32_t events) noexcept override {
    seen |= events;
    calls++;
  }
  uint32_t seen = 0;
  int calls = 0;
};

TEST_F(TcpSemantics, RefusedConnect) {
  TcpStream* stream = connect(9);
  EXPECT_TRUE(stream->connecting());
  EXPECT_EQ(0u, stream->ready());
  EXPECT_EQ(-EALREADY, stream->connect(address(kServerIp, 9)));
  EXPECT_EQ(-EAGAIN, read_some(*stream));
  EXPECT_EQ(-EAGAIN, send_text(*stream, "x"));
  pair_.settle();
  EXPECT_FALSE(stream->connecting());
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP | EPOLLHUP | EPOLLERR, stream->ready());
  EXPECT_EQ(ECONNREFUSED, stream->take_error());
  EXPECT_EQ(0, stream->take_error());
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP | EPOLLHUP, stream->ready());
  EXPECT_EQ(-EPIPE, send_text(*stream, "x"));
  EXPECT_EQ(0, read_some(*stream));
  // The same socket may try again, and then succeeds.
  TcpListener* listener = listen(9);
  EXPECT_EQ(0, stream->connect(address(kServerIp, 9)));
  EXPECT_TRUE(pair_.until([&] { return stream->connected(); }));
  stream->release();
  listener->release();
}

TEST_F(TcpSemantics, FreshStream) {
  TcpStream* stream = pair_.client->make_stream();
  EXPECT_EQ(kOut | EPOLLHUP, stream->ready());
  EXPECT_EQ(-ENOTCONN, read_some(*stream));
  EXPECT_EQ(-EPIPE, send_text(*stream, "x"));
  EXPECT_EQ(-ENOTCONN, stream->shutdown(SHUT_WR));
  EXPECT_EQ(-ENETUNREACH, stream->connect(address("8.8.8.8", 53)));
  stream->release();
}

TEST_F(TcpSemantics, ConnectTimesOutAfterTheSynRetries) {
  TcpListener* listener = listen(80);
  TcpStream* known = connect(80);  // fills the neighbour tables
  ASSERT_TRUE(pair_.until([&] { return known->connected(); }));
  pair_.server_wire().cut = true;
  TcpStream* stream = connect(80);
  const uint64_t start = test_clock->now_ns;
  int error = 0;
  EXPECT_TRUE(pair_.until([&] { return (error = stream->take_error()) != 0; }, 200'000));
  EXPECT_EQ(ETIMEDOUT, error);
  const uint64_t seconds = (test_clock->now_ns - start) / (1000 * kMs);
  EXPECT_GE(seconds, 100u);
  EXPECT_LE(seconds, 140u);
  pair_.server_wire().cut = false;
  stream->release();
  known->release();
  listener->release();
  pair_.pass(30'000, 50);
}

TEST_F(TcpSemantics, UnknownNeighbourIsUnreachable) {
  TcpStream* stream = pair_.client->make_stream();
  ASSERT_EQ(0, stream->connect(address("198.18.0.77", 80)));
  int error = 0;
  EXPECT_TRUE(pair_.until([&] { return (error = stream->take_error()) != 0; }, 10'000));
  EXPECT_EQ(EHOSTUNREACH, error);
  stream->release();
  pair_.pass(10'000, 50);
}

// A process that was stopped, and its neighbour with it, has not asked in that time: what counts is how often it asked.
TEST_F(TcpSemantics, UnknownNeighbourHasItsTimeAfterAStop) {
  TcpStream* stream = pair_.client->make_stream();
  ASSERT_EQ(0, stream->connect(address("198.18.0.77", 80)));
  pair_.settle();
  test_clock->now_ns += 30'000 * kMs;
  pair_.pass(1500);
  EXPECT_EQ(0, stream->take_error());
  int error = 0;
  EXPECT_TRUE(pair_.until([&] { return (error = stream->take_error()) != 0; }, 10'000));
  EXPECT_EQ(EHOSTUNREACH, error);
  stream->release();
  pair_.pass(10'000, 50);
}

TEST_F(TcpSemantics, FinIsEndOfFileAndSendingGoesOn) {
  auto [client, server] = connected();
  send_text(*client, "last words");
  EXPECT_EQ(0, client->shutdown(SHUT_WR));
  EXPECT_EQ(-EPIPE, send_text(*client, "more"));
  pair_.settle();
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP, server->ready());
  EXPECT_EQ("last words", text_of(*server));
  EXPECT_EQ(0, read_some(*server));
  EXPECT_EQ(0, read_some(*server));
  EXPECT_EQ(6, send_text(*server, "answer"));
  pair_.settle();
  EXPECT_EQ("answer", text_of(*client));
  EXPECT_EQ(kOut, client->ready());
  server->release();
  pair_.settle();
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP | EPOLLHUP, client->ready());
  EXPECT_EQ(0, read_some(*client));
  client->release();
}

TEST_F(TcpSemantics, ResetIsToldOnce) {
  auto [client, server] = connected();
  Recorder recorder;
  server->observers.push_back(&recorder);
  EXPECT_EQ(0, client->set_option(TcpOption::linger_s, 0));
  client->release();
  pair_.settle();
  EXPECT_NE(0u, recorder.seen & EPOLLERR);
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP | EPOLLHUP | EPOLLERR, server->ready());
  EXPECT_EQ(-ECONNRESET, read_some(*server));
  EXPECT_EQ(0, read_some(*server));
  EXPECT_EQ(-EPIPE, send_text(*server, "x"));
  recorder.unlink();
  server->release();
}

TEST_F(TcpSemantics, DataBeforeTheResetIsStillRead) {
  auto [client, server] = connected();
  send_text(*client, "before");
  pair_.settle();
  (void)client->set_option(TcpOption::linger_s, 0);
  client->release();
  pair_.settle();
  EXPECT_EQ(6, read_some(*server));
  EXPECT_EQ(-ECONNRESET, read_some(*server));
  server->release();
}

TEST_F(TcpSemantics, ResetAfterFinIsBrokenPipe) {
  auto [client, server] = connected();
  (void)client->shutdown(SHUT_WR);
  pair_.settle();
  send_text(*server, "unread by the client");
  pair_.settle();
  client->release();  // unread data: RST
  pair_.settle();
  EXPECT_EQ(EPIPE, server->take_error());
  server->release();
}

TEST_F(TcpSemantics, CloseWithUnreadDataResets) {
  auto [client, server] = connected();
  send_text(*client, "never read");
  pair_.settle();
  server->release();
  pair_.settle();
  EXPECT_EQ(-ECONNRESET, read_some(*client));
  client->release();
}

TEST_F(TcpSemantics, DataAfterCloseResets) {
  auto [client, server] = connected();
  server->release();
  pair_.settle();
  EXPECT_EQ(0, read_some(*client));
  EXPECT_EQ(1, send_text(*client, "x"));
  pair_.settle();
  EXPECT_EQ(-EPIPE, send_text(*client, "y"));
  client->release();
}

TEST_F(TcpSemantics, CloseSendsAllThatIsQueued) {
  auto [client, server] = connected();
  const std::string big(700'000, 'q');
  ASSERT_EQ(static_cast<long>(big.size()), send_text(*client, big));
  client->release();
  size_t got = 0;
  EXPECT_TRUE(pair_.until([&, s = server] {
    const long n = read_some(*s, 100'000);
    if (n > 0) got += static_cast<size_t>(n);
    return n == 0;
  }));
  EXPECT_EQ(big.size(), got);
  server->release();
}

TEST_F(TcpSemantics, SendBufferIsBoundedAndWritableAgainAtAThird) {
  auto [client, server] = connected();
  Recorder recorder;
  ASSERT_EQ(0, client->set_option(TcpOption::send_buffer_bytes, 300'000));
  const std::string big(1'000'000, 'b');
  const long first = send_text(*client, big);
  EXPECT_EQ(300'000, first);
  EXPECT_EQ(-EAGAIN, send_text(*client, big));
  EXPECT_EQ(0u, client->ready() & EPOLLOUT);
  client->observers.push_back(&recorder);
  // The peer's window (512 KB) takes all of it without being read.
  pair_.until([&, c = client] { return c->unsent_bytes() == 0; });
  EXPECT_NE(0u, recorder.seen & EPOLLOUT);
  EXPECT_NE(0u, client->ready() & EPOLLOUT);
  EXPECT_EQ(300'000u, server->readable_bytes());
  recorder.unlink();
  (void)server->set_option(TcpOption::linger_s, 0);
  server->release();
  pair_.settle();
  client->release();
}

TEST_F(TcpSemantics, ZeroWindowOpensAgain) {
  auto [client, server] = connected();
  const std::string big(3'000'000, 'w');
  size_t sent = 0;
  for (int i = 0; i < 2000; i++) {
    const long n = send_text(*client, big);
    if (n > 0) sent += static_cast<size_t>(n);
    pair_.pass(10);
    if (n == -EAGAIN && i > 20) break;
  }
  pair_.pass(5000, 50);  // probes of the closed window
  size_t got = 0;
  EXPECT_TRUE(pair_.until([&, s = server] {
    const long n = read_some(*s, 50'000);
    if (n > 0) got += static_cast<size_t>(n);
    return got == sent;
  }));
  client->release();
  server->release();
}

TEST_F(TcpSemantics, EdgeForEachArrival) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::nodelay, 1));
  Recorder recorder;
  server->observers.push_back(&recorder);
  for (int i = 1; i <= 3; i++) {
    send_text(*client, "data");
    pair_.settle();
    EXPECT_EQ(i, recorder.calls);
  }
  EXPECT_EQ(kIn | EPOLLPRI | EPOLLRDBAND, recorder.seen);  // as Linux's sock_def_readable() tells it
  EXPECT_EQ(12u, server->readable_bytes());
  recorder.unlink();
  EXPECT_EQ(12u, text_of(*server).size());
  client->release();
  server->release();
}

TEST_F(TcpSemantics, TheFirstAcknowledgementsAreNotDelayed) {
  auto [client, server] = connected();
  for (int i = 0; i < 4; i++) {
    send_text(*client, "one");
    pair_.settle();
    send_text(*client, "two");
    pair_.settle();
    EXPECT_EQ("onetwo", text_of(*server));
  }
  send_text(*client, "ask");
  pair_.settle();
  send_text(*server, "answer");  // acknowledges as well, and will the next time
  pair_.settle();
  send_text(*client, "one");
  pair_.settle();
  send_text(*client, "two");
  pair_.settle();
  EXPECT_EQ("askone", text_of(*server));
  pair_.pass(100);
  EXPECT_EQ("two", text_of(*server));
  client->release();
  server->release();
}

TEST_F(TcpSemantics, NagleHoldsTheSecondSmallWrite) {
  auto [client, server] = connected();
  send_text(*client, "zero");
  pair_.settle();
  EXPECT_EQ("zero", text_of(*server));
  send_text(*server, "an answer: the next acknowledgement will wait for one");
  pair_.settle();
  send_text(*client, "one");
  pair_.settle();
  send_text(*client, "two");
  send_text(*client, "three");
  pair_.settle();
  EXPECT_EQ("one", text_of(*server));
  pair_.pass(100);  // the delayed ACK
  EXPECT_EQ("twothree", text_of(*server));
  client->release();
  server->release();
}

TEST_F(TcpSemantics, CorkHoldsPartialSegments) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::nodelay, 1));
  ASSERT_EQ(0, client->set_option(TcpOption::cork, 1));
  send_text(*client, "part one, ");
  pair_.settle();
  EXPECT_EQ(0u, server->readable_bytes());
  send_text(*client, std::string(2000, 'f'));
  pair_.settle();
  EXPECT_EQ(1448u, server->readable_bytes());
  ASSERT_EQ(0, client->set_option(TcpOption::cork, 0));
  pair_.settle();
  EXPECT_EQ(2010u, server->readable_bytes());
  EXPECT_EQ(2010u, text_of(*server).size());
  send_text(*client, "held by MSG_MORE", true);
  pair_.settle();
  EXPECT_EQ(0u, server->readable_bytes());
  pair_.pass(300);
  EXPECT_EQ(16u, text_of(*server).size()) << "nothing is held for over 200 ms";
  client->release();
  server->release();
}

TEST_F(TcpSemantics, OptionsEndWhatHoldsBack) {
  auto [client, server] = connected();
  send_text(*client, "held by MSG_MORE", true);
  ASSERT_EQ(0, client->set_option(TcpOption::cork, 0));
  pair_.settle();
  EXPECT_EQ("held by MSG_MORE", text_of(*server));
  pair_.pass(100);
  send_text(*client, "and again", true);
  ASSERT_EQ(0, client->set_option(TcpOption::nodelay, 1));
  pair_.settle();
  EXPECT_EQ("and again", text_of(*server));
  ASSERT_EQ(0, client->set_option(TcpOption::cork, 1));
  send_text(*client, "held by a cork");
  ASSERT_EQ(0, client->set_option(TcpOption::nodelay, 1));
  pair_.settle();
  EXPECT_EQ("held by a cork", text_of(*server));
  send_text(*client, "held still");
  pair_.settle();
  EXPECT_EQ(0u, server->readable_bytes());
  client->release();
  server->release();
}

TEST_F(TcpSemantics, ShutReadIsLocal) {
  auto [client, server] = connected();
  EXPECT_EQ(0, server->shutdown(SHUT_RD));
  EXPECT_EQ(0, read_some(*server));
  EXPECT_EQ(kIn | kOut | EPOLLRDHUP, server->ready());
  EXPECT_EQ(5, send_text(*server, "still"));
  pair_.settle();
  EXPECT_EQ("still", text_of(*client));
  client->release();
  server->release();
}

TEST_F(TcpSemantics, UserTimeout) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::user_timeout_ms, 3000));
  pair_.server_wire().cut = true;
  send_text(*client, "lost");
  int error = 0;
  const uint64_t start = test_clock->now_ns;
  EXPECT_TRUE(pair_.until([&, c = client] { return (error = c->take_error()) != 0; }));
  EXPECT_EQ(ETIMEDOUT, error);
  EXPECT_NEAR(3000, static_cast<double>((test_clock->now_ns - start) / kMs), 200);
  pair_.server_wire().cut = false;
  client->release();
  (void)server->set_option(TcpOption::linger_s, 0);
  server->release();
}

TEST_F(TcpSemantics, OrphanWhosePeerTakesNothingEnds) {
  auto [client, server] = connected();
  (void)send_text(*client, std::string(900'000, 'o'));  // more than the peer's window
  pair_.pass(1000);
  client->release();
  pair_.pass(60'000, 50);
  EXPECT_EQ(client_before_.streams + 1, pair_.client->levels().streams) << "it still tries";
  pair_.pass(60'000, 50);
  EXPECT_EQ(client_before_.streams, pair_.client->levels().streams);
  EXPECT_EQ(client_before_.pcbs, pair_.client->levels().pcbs);
  EXPECT_EQ(ECONNRESET, server->take_error());
  server->release();
}

struct CallCounter final : netstack::Observer {
  void on_ready(netstack::Pollable&, uint32_t) noexcept override { calls++; }
  int calls = 0;
};

// Somebody may be waiting for just that, while others drive the wire.
TEST_F(TcpSemantics, DeliveryAfterTheEndIsAnnounced) {
  auto [client, server] = connected();
  CallCounter counter;
  client->observers.push_back(&counter);
  send_text(*client, "last words");
  ASSERT_EQ(0, client->shutdown(SHUT_WR));
  const int before = counter.calls;
  EXPECT_EQ(10u, client->unsent_bytes());
  pair_.pass(500);
  EXPECT_EQ(0u, client->unsent_bytes());
  EXPECT_GT(counter.calls, before);
  counter.unlink();
  client->release();
  text_of(*server);
  server->release();
}

class Keepalive : public StackTest {
 protected:
  static void set(TcpStream& stream) {
    for (const auto& [option, value] :
         {std::pair{TcpOption::keepalive, 1}, {TcpOption::keepidle_s, 5}, {TcpOption::keepintvl_s, 2}, {TcpOption::keepcnt, 3}}) {
      ASSERT_EQ(0, stream.set_option(option, value));
    }
  }
  // The server goes silent, and its client finds out in time.
  void expect_death_noticed(TcpStream* client) {
    pair_.server_wire().cut = true;
    const uint64_t start = test_clock->now_ns;
    int error = 0;
    EXPECT_TRUE(pair_.until([&] { return (error = client->take_error()) != 0; }, 30'000));
    EXPECT_EQ(ETIMEDOUT, error);
    EXPECT_LE(test_clock->now_ns - start, 12'500 * kMs);
    pair_.server_wire().cut = false;
  }
};

TEST_F(Keepalive, FindsADeadPeer) {
  auto [client, server] = connected();
  set(*client);
  pair_.pass(60'000, 50);
  EXPECT_TRUE(client->connected()) << "a living peer answers";
  expect_death_noticed(client);
  client->release();
  (void)server->set_option(TcpOption::linger_s, 0);
  server->release();
}

// One direction is shut, and the answer never comes.
TEST_F(Keepalive, WorksAfterTheFin) {
  auto [client, server] = connected();
  set(*client);
  ASSERT_EQ(0, client->shutdown(SHUT_WR));
  pair_.client->flush();
  pair_.pass(1000);
  const uint64_t sent = pair_.client_wire().sent;
  pair_.pass(60'000, 50);
  EXPECT_TRUE(client->connected()) << "a living peer answers";
  EXPECT_GE(pair_.client_wire().sent, sent + 8);
  EXPECT_LE(pair_.client_wire().sent, sent + 14);
  EXPECT_EQ(0, client->take_error());
  expect_death_noticed(client);
  client->release();
  (void)server->set_option(TcpOption::linger_s, 0);
  server->release();
}

TEST_F(TcpSemantics, IdleStacksHaveNoTimer) {
  auto [client, server] = connected();
  send_text(*client, "x");
  pair_.pass(500);
  text_of(*server);
  pair_.pass(1000);
  EXPECT_EQ(UINT64_MAX, pair_.client->next_timer_ns());
  EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
  // After an hour in which nobody polled, the first round trip is not taken for a long one.
  test_clock->now_ns += 3'600'000 * kMs;
  send_text(*client, "y");
  pair_.client->flush();
  pair_.pass(100);
  tcp_info info;
  client->info(&info);
  EXPECT_LE(info.tcpi_rto, 1'200'000u);
  EXPECT_EQ(1u, text_of(*server).size());
  client->release();
  server->release();
}

TEST_F(TcpSemantics, InfoHasTrueFigures) {
  auto [client, server] = connected();
  tcp_info info;
  client->info(&info);
  EXPECT_EQ(1, info.tcpi_state);
  EXPECT_EQ(1448u, info.tcpi_snd_mss);
  send_text(*client, std::string(4344, 'i'));
  pair_.client->flush();
  send_text(*client, "a short segment");
  pair_.client->flush();
  send_text(*client, std::string(641, 'i'));
  pair_.client->flush();
  client->info(&info);
  EXPECT_EQ(10u, info.tcpi_snd_cwnd);
  EXPECT_EQ(641u, info.tcpi_notsent_bytes) << "Nagle keeps the second short segment";
  EXPECT_EQ(4u, info.tcpi_unacked);
  EXPECT_EQ(5000u, client->unsent_bytes());
  test_clock->now_ns += 7 * kMs;
  pair_.pass(100);
  client->info(&info);
  EXPECT_EQ(5000u, info.tcpi_bytes_acked);
  EXPECT_EQ(0u, info.tcpi_unacked);
  EXPECT_GE(info.tcpi_rtt, 7000u);
  EXPECT_EQ(0u, client->unsent_bytes());
  server->info(&info);
  EXPECT_EQ(5000u, info.tcpi_bytes_received);
  text_of(*server);
  client->release();
  server->release();
}

TEST_F(TcpSemantics, SmallReceiveBufferSlowsTheSender) {
  TcpListener* listener = listen(80);
  ASSERT_EQ(0, listener->set_option(TcpOption::receive_buffer_bytes, 20'000));
  TcpStream* client = connect(80);
  TcpStream* server = nullptr;
  ASSERT_TRUE(pair_.until([&] { return (server = accept(*listener)) != nullptr; }));
  int value = 0;
  EXPECT_EQ(0, server->get_option(TcpOption::receive_buffer_bytes, &value));
  EXPECT_EQ(20'000, value);
  (void)send_text(*client, std::string(1'000'000, 'r'));
  size_t got = 0, most = 0;
  EXPECT_TRUE(pair_.until([&] {
    if (got > 600'000) most = std::max(most, server->readable_bytes());
    const long n = read_some(*server, 10'000);
    if (n > 0) got += static_cast<size_t>(n);
    return got == 1'000'000;
  }));
  EXPECT_LE(most, 20'000u);
  client->release();
  server->release();
  listener->release();
}

TEST_F(TcpSemantics, TimeWaitEndsAndTheTupleComesBack) {
  auto [client, server] = connected();
  client->release();
  pair_.settle();
  server->release();
  pair_.settle();
  EXPECT_EQ(client_before_.pcbs + 1, pair_.client->levels().pcbs);
  EXPECT_NE(UINT64_MAX, pair_.client->next_timer_ns());
  pair_.pass(1300, 50);
  EXPECT_EQ(client_before_.pcbs, pair_.client->levels().pcbs);
  EXPECT_EQ(UINT64_MAX, pair_.client->next_timer_ns());
}

TEST_F(TcpSemantics, StarvedWireIsRetried) {
  auto [client, server] = connected();
  pair_.client_wire().refuse = true;
  send_text(*client, std::string(10'000, 's'));
  pair_.client->flush();
  pair_.client->poll(test_clock->now_ns);
  EXPECT_NE(UINT64_MAX, pair_.client->next_timer_ns());
  pair_.client_wire().refuse = false;
  pair_.settle();
  EXPECT_EQ(10'000u, text_of(*server).size());
  client->release();
  server->release();
}

}  // namespace
