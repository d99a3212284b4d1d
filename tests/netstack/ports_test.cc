// What bind() gives out: who has a port, in each state of a connection, who shares it, and when it comes back.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

using namespace netstack_test;
using netstack::PortBinding;
using netstack::PortSharing;

namespace {

constexpr PortSharing kAlone{}, kByAddress{true, false}, kByPort{false, true};

class Ports : public StackTest {
 protected:
  PortBinding* bind(uint16_t port, const PortSharing& sharing = kAlone, uint32_t range = 0) {
    return pair_.client->bind({address("0.0.0.0", port), sharing, range}, &error_);
  }
  // What a fresh socket is told.
  long try_bind(uint16_t port, const PortSharing& sharing = kAlone) {
    PortBinding* binding = bind(port, sharing);
    if (binding != nullptr) binding->release();
    return error_;
  }
  TcpStream* connect_from(uint16_t local, uint16_t port, long expected = 0) {
    TcpStream* stream = pair_.client->make_stream();
    EXPECT_EQ(0, pair_.client->bind_stream(stream, address(kClientIp, local)));
    EXPECT_EQ(expected, stream->connect(address(kServerIp, port)));
    return stream;
  }
  TcpStream* accept_one(TcpListener* listener) {
    TcpStream* server = nullptr;
    EXPECT_TRUE(pair_.until([&] { return (server = accept(*listener)) != nullptr; }));
    return server;
  }
  void reset(TcpStream* stream) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
  long error_ = 0;
};

TEST_F(Ports, AreOneSocketsUnlessBothShare) {
  PortBinding* first = bind(5555);
  EXPECT_EQ(-EADDRINUSE, try_bind(5555));
  EXPECT_EQ(-EADDRINUSE, try_bind(5555, {true, true}));
  EXPECT_EQ(nullptr, pair_.client->bind({address("198.18.0.66", 5555)}, &error_));
  EXPECT_EQ(-EADDRNOTAVAIL, error_);
  EXPECT_EQ(0, first->set_option(TcpOption::reuse_address, 1));
  EXPECT_EQ(0, try_bind(5555, kByAddress));
  EXPECT_EQ(-EADDRINUSE, try_bind(5555, kByPort));
  EXPECT_EQ(0, first->set_option(TcpOption::reuse_port, 1));
  EXPECT_EQ(-EADDRINUSE, try_bind(5555, {false, true, 7})) << "another user's";
  EXPECT_EQ(0, try_bind(5555, kByPort));
  EXPECT_EQ(0, first->set_option(TcpOption::reuse_port, 0));
  EXPECT_EQ(0, try_bind(5555, kByPort)) << "who came last could share";
  EXPECT_EQ(-EADDRINUSE, try_bind(5555, {false, true, 7}));
  first->release();
  EXPECT_EQ(0, try_bind(5555));
}

TEST_F(Ports, AListenerSharesWithListenersOfItsUser) {
  PortBinding* first = bind(80, kByAddress);
  PortBinding* second = bind(80, kByAddress);
  TcpListener* listener = pair_.client->listen({address("0.0.0.0", 80), kByAddress}, first, 5, &error_);
  ASSERT_NE(nullptr, listener) << "beside sockets that do not listen";
  EXPECT_EQ(nullptr, pair_.client->listen({address("0.0.0.0", 80), kByAddress}, second, 5, &error_));
  EXPECT_EQ(-EADDRINUSE, error_);
  listener->release();
  listener = pair_.client->listen({address("0.0.0.0", 80), {true, true, 7}}, second, 5, &error_);
  ASSERT_NE(nullptr, listener);
  EXPECT_EQ(nullptr, pair_.client->listen({address("0.0.0.0", 80), {true, true, 8}}, first, 5, &error_));
  TcpListener* other = pair_.client->listen({address("0.0.0.0", 80), {true, true, 7}}, first, 5, &error_);
  ASSERT_NE(nullptr, other);
  other->release();
  listener->release();
  first->release();
  second->release();
}

// A keepalive's probe, as all that is not taken, is answered seldom: what is noted for that leaves alone what a closed connection says of
// its port.
TEST_F(Ports, AreSharedAfterAProbeAsBefore) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  TcpStream* server = accept_one(listener);
  const uint16_t port = ntohs(client->local().port_be);
  EXPECT_EQ(0, client->set_option(TcpOption::reuse_address, 1));
  client->release();
  pair_.settle();
  EXPECT_EQ(0, try_bind(port, kByAddress)) << "FIN-WAIT-2";
  EXPECT_EQ(0, server->set_option(TcpOption::keepidle_s, 1));
  EXPECT_EQ(0, server->set_option(TcpOption::keepalive, 1));
  pair_.pass(2500);
  EXPECT_EQ(0, try_bind(port, kByAddress));
  reset(server);
  listener->release();
}

TEST_F(Ports, BelongToAConnectionThroughAllItsStates) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  const uint16_t port = ntohs(client->local().port_be);
  EXPECT_EQ(-EADDRINUSE, try_bind(port)) << "SYN-SENT";
  TcpStream* server = accept_one(listener);
  EXPECT_EQ(-EADDRINUSE, try_bind(port, kByAddress)) << "ESTABLISHED";
  EXPECT_EQ(0, client->set_option(TcpOption::reuse_address, 1));
  EXPECT_EQ(0, try_bind(port, kByAddress));
  EXPECT_EQ(-EADDRINUSE, try_bind(port));
  EXPECT_EQ(0, client->shutdown(SHUT_WR));
  pair_.settle();
  EXPECT_EQ(-EADDRINUSE, try_bind(port)) << "FIN-WAIT-2";
  client->release();
  EXPECT_EQ(-EADDRINUSE, try_bind(port)) << "FIN-WAIT-2, nobody's any more";
  EXPECT_EQ(0, try_bind(port, kByAddress)) << "as its socket said last";
  server->release();
  pair_.settle();
  EXPECT_EQ(1, pair_.client->levels().time_wait);
  EXPECT_EQ(-EADDRINUSE, try_bind(port)) << "TIME-WAIT";
  EXPECT_EQ(0, try_bind(port, kByAddress));
  pair_.pass(2000, 50);
  EXPECT_EQ(0, try_bind(port));
  listener->release();
}

TEST_F(Ports, OfAcceptedConnectionsOutliveTheListener) {
  TcpListener* listener = pair_.client->listen({address("0.0.0.0", 80), {false, true, 7}}, nullptr, 5, &error_);
  TcpStream* remote = pair_.server->make_stream();
  EXPECT_EQ(0, remote->connect(address(kClientIp, 80)));
  TcpStream* accepted = accept_one(listener);
  listener->release();
  EXPECT_EQ(-EADDRINUSE, try_bind(80));
  EXPECT_EQ(-EADDRINUSE, try_bind(80, {false, true, 8}));
  EXPECT_EQ(0, try_bind(80, {false, true, 7})) << "what the listener said is theirs too";
  reset(remote);
  pair_.settle();
  EXPECT_EQ(0, try_bind(80)) << "reset";
  accepted->release();
}

TEST_F(Ports, OfFourNumbersInUse) {
  TcpListener* listener = listen(80);
  TcpListener* another = listen(81);
  TcpStream* first = connect_from(5555, 80);
  TcpStream* server = accept_one(listener);
  TcpStream* second = connect_from(5555, 80, -EADDRNOTAVAIL);
  second->release();
  second = connect_from(5555, 81);
  TcpStream* other = accept_one(another);
  first->release();
  pair_.settle();
  server->release();
  pair_.settle();
  EXPECT_EQ(1, pair_.client->levels().time_wait);
  TcpStream* third = connect_from(5555, 80);
  TcpStream* again = accept_one(listener);
  EXPECT_EQ(0, pair_.client->levels().time_wait) << "it gave way: timestamps keep the old connection's segments out of the new one";
  reset(third);
  again->release();
  reset(second);
  other->release();
  listener->release();
  another->release();
}

TEST_F(Ports, ThatConnectChoosesAreNotThoseOfBind) {
  constexpr uint32_t kRange = 40000 | 40003u << 16;
  TcpListener* listener = listen(80);
  TcpListener* another = listen(81);
  PortBinding* bound = bind(0, kAlone, kRange);
  ASSERT_NE(nullptr, bound);
  std::vector<TcpStream*> streams;
  for (uint16_t port : {uint16_t{80}, uint16_t{81}}) {
    for (int i = 0; i < 4; i++) {
      streams.push_back(pair_.client->make_stream());
      EXPECT_EQ(0, streams.back()->set_option(TcpOption::port_range, static_cast<int>(kRange)));
      EXPECT_EQ(i < 3 ? 0 : -EADDRNOTAVAIL, streams.back()->connect(address(kServerIp, port))) << i;
      EXPECT_NE(bound->local(), streams.back()->local());
    }
  }
  EXPECT_EQ(nullptr, bind(0, kAlone, kRange));
  EXPECT_EQ(-EADDRINUSE, error_);
  bound->release();
  EXPECT_EQ(0, streams.back()->connect(address(kServerIp, 81))) << "connect() may have it again";
  pair_.settle();
  for (TcpStream* stream : streams) reset(stream);
  pair_.settle();
  for (TcpListener* each : {listener, another}) {
    while (TcpStream* server = accept(*each)) server->release();
    each->release();
  }
}

TEST_F(Ports, AreKeptWhenAMemberDies) {
  PortBinding* held = pair_.server->bind({address("0.0.0.0", 5555), kByAddress}, &error_);
  PortBinding* lost = pair_.server->bind({address("0.0.0.0", 5556)}, &error_);
  ASSERT_NE(nullptr, lost);
  pair_.server->forget_holders();
  EXPECT_TRUE(pair_.server->hold(held));
  EXPECT_FALSE(pair_.server->hold(held)) << "twice";
  EXPECT_FALSE(pair_.server->hold(static_cast<PortBinding*>(nullptr)));
  pair_.server->recover();
  EXPECT_EQ(nullptr, pair_.server->bind({address("0.0.0.0", 5555)}, &error_));
  EXPECT_EQ(-EADDRINUSE, error_);
  PortBinding* again = pair_.server->bind({address("0.0.0.0", 5556)}, &error_);
  ASSERT_NE(nullptr, again) << "nobody held it";
  again->release();
  held->release();
  make_contact();
}

}  // namespace
