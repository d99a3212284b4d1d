// A stream that is disconnected, in every state, and what shutdown() has told a stream before its connection.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <linux/tcp.h>

using namespace netstack_test;

namespace {

constexpr uint32_t kOut = EPOLLOUT | EPOLLWRNORM;

class TcpDisconnect : public StackTest {
 protected:
  // As tcp_disconnect() leaves a socket: new, but for the error that there may be. And it may be used again.
  void expect_new(TcpStream* stream, int error) {
    EXPECT_EQ(kOut | EPOLLHUP | (error != 0 ? uint32_t{EPOLLERR} : 0u), stream->ready());
    EXPECT_FALSE(stream->connected() || stream->connecting());
    EXPECT_EQ(error, stream->take_error());
    EXPECT_EQ(-ENOTCONN, read_some(*stream));
    EXPECT_EQ(-EPIPE, send_text(*stream, "x"));
    EXPECT_EQ(0u, stream->readable_bytes() + stream->unsent_bytes());
    pair_.settle();
    TcpListener* listener = listen(81);
    ASSERT_EQ(0, stream->connect(address(kServerIp, 81)));
    ASSERT_TRUE(pair_.until([&] { return (listener->ready() & EPOLLIN) != 0; }));
    long unused;
    SocketAddress peer;
    TcpStream* far = listener->accept(&peer, &unused);
    ASSERT_NE(nullptr, far);
    EXPECT_EQ(3, send_text(*stream, "new"));
    pair_.settle();
    EXPECT_EQ("new", text_of(*far));
    far->release();
    listener->release();
    stream->release();
  }
};

TEST_F(TcpDisconnect, Established) {
  auto [client, server] = connected();
  send_text(*server, "unread");
  pair_.settle();
  send_text(*client, "on its way");
  client->disconnect();
  pair_.settle();
  EXPECT_EQ(ECONNRESET, server->take_error());
  EXPECT_EQ("on its way", text_of(*server)) << "what was written had left";
  server->release();
  expect_new(client, ECONNRESET);
}

TEST_F(TcpDisconnect, WithMuchUnsent) {
  auto [client, server] = connected();
  (void)send_text(*client, std::string(900'000, 'u'));  // more than the peer's window
  pair_.settle();
  EXPECT_EQ(0, client->shutdown(SHUT_WR));
  EXPECT_EQ(0, server->shutdown(SHUT_WR));
  pair_.settle();
  tcp_info info{};
  client->info(&info);
  EXPECT_EQ(11, info.tcpi_state) << "CLOSING, as its FIN came first";
  client->disconnect();
  pair_.settle();
  server->release();
  expect_new(client, ECONNRESET);
}

TEST_F(TcpDisconnect, InTimeWait) {
  auto [client, server] = connected();
  EXPECT_EQ(0, client->shutdown(SHUT_WR));
  pair_.settle();
  server->release();
  pair_.settle();
  EXPECT_FALSE(client->connected());
  client->disconnect();
  expect_new(client, 0);
}

TEST_F(TcpDisconnect, AnAttempt) {
  TcpStream* stream = pair_.client->make_stream();
  EXPECT_EQ(-ENOTCONN, stream->shutdown(SHUT_RDWR));
  ASSERT_EQ(0, stream->connect(address("198.18.0.77", 80)));
  EXPECT_NE(0u, stream->ready() & EPOLLHUP);
  stream->disconnect();
  expect_new(stream, ECONNRESET);
}

TEST_F(TcpDisconnect, ShutBeforeTheConnection) {
  TcpListener* listener = listen(80);
  TcpStream* stream = pair_.client->make_stream();
  EXPECT_EQ(-ENOTCONN, stream->shutdown(SHUT_RDWR));
  ASSERT_EQ(0, stream->connect(address(kServerIp, 80)));
  ASSERT_TRUE(pair_.until([&] { return (listener->ready() & EPOLLIN) != 0; }));
  long unused;
  SocketAddress peer;
  TcpStream* far = listener->accept(&peer, &unused);
  ASSERT_NE(nullptr, far);
  EXPECT_TRUE(stream->connected());
  EXPECT_EQ(-EPIPE, send_text(*stream, "x"));
  EXPECT_EQ(-EAGAIN, read_some(*far)) << "no FIN";
  EXPECT_EQ(0, stream->shutdown(SHUT_WR));
  pair_.settle();
  EXPECT_EQ(0, read_some(*far));
  far->release();
  stream->release();
  listener->release();
}

}  // namespace
