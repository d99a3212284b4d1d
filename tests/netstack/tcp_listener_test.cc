// Accept order, backlog, several listeners on a port, ports that run out.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <algorithm>
#include <map>
#include <set>

using namespace netstack_test;

namespace {

class Listener : public StackTest {
 protected:
  void reset(TcpStream* stream) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
};

TEST_F(Listener, AcceptsOldestFirst) {
  TcpListener* listener = listen(80);
  std::vector<TcpStream*> clients;
  for (int i = 0; i < 20; i++) {
    clients.push_back(connect(80));
    pair_.settle();
  }
  EXPECT_EQ(static_cast<uint32_t>(EPOLLIN | EPOLLRDNORM), listener->ready());
  for (TcpStream* client : clients) {
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server);
    EXPECT_EQ(client->local(), server->peer());
    server->release();
  }
  EXPECT_EQ(nullptr, accept(*listener));
  EXPECT_EQ(0u, listener->ready());
  for (TcpStream* client : clients) client->release();
  listener->release();
}

TEST_F(Listener, BacklogBoundsTheQueueAndPeersTryAgain) {
  TcpListener* listener = listen(80, 2);
  std::vector<TcpStream*> clients;
  for (int i = 0; i < 6; i++) clients.push_back(connect(80));
  pair_.settle();
  std::vector<TcpStream*> servers;
  while (TcpStream* server = accept(*listener)) servers.push_back(server);
  EXPECT_EQ(3u, servers.size()) << "Linux: backlog + 1";
  EXPECT_TRUE(pair_.until([&] {
    if (TcpStream* server = accept(*listener)) servers.push_back(server);
    return servers.size() == 6;
  }));
  for (TcpStream* server : servers) server->release();
  for (TcpStream* client : clients) client->release();
  listener->release();
}

TEST_F(Listener, ALargerBacklogLetsInWhoWaits) {
  TcpListener* listener = listen(80, 0);
  std::vector<TcpStream*> clients;
  for (int i = 0; i < 4; i++) clients.push_back(connect(80));
  pair_.settle();
  const auto connected = [&] {
    return std::count_if(clients.begin(), clients.end(), [](TcpStream* client) { return client->connected(); });
  };
  EXPECT_EQ(1, connected());
  listener->set_backlog(2);
  pair_.settle();
  EXPECT_EQ(3, connected()) << "without another SYN";
  listener->set_backlog(1);
  accept(*listener)->release();
  pair_.settle();
  EXPECT_EQ(3, connected()) << "two are in the queue still";
  for (TcpStream* client : clients) client->release();
  listener->release();
}

TEST_F(Listener, PeerResetBeforeAcceptStaysInTheQueue) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  ASSERT_TRUE(pair_.until([&] { return listener->ready() != 0; }));
  send_text(*client, "gone");
  pair_.settle();
  reset(client);
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(4, read_some(*server));
  EXPECT_EQ(-ECONNRESET, read_some(*server));
  server->release();
  listener->release();
}

TEST_F(Listener, DataBeforeAcceptIsKept) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  pair_.settle();
  send_text(*client, "early");
  client->release();
  pair_.settle();
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ("early", text_of(*server));
  EXPECT_EQ(0, read_some(*server));
  server->release();
  listener->release();
}

TEST_F(Listener, ReleaseResetsWhatNobodyAccepted) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  pair_.settle();
  EXPECT_TRUE(client->connected());
  listener->release();
  pair_.settle();
  EXPECT_EQ(ECONNRESET, client->take_error());
  client->release();
}

TEST_F(Listener, ReleaseDropsHalfOpenConnections) {
  TcpListener* listener = listen(80);
  pair_.client_wire().cut = true;  // the SYN-ACK is lost
  TcpStream* client = connect(80);
  pair_.settle();
  EXPECT_EQ(1, pair_.server->levels().half_open);
  listener->release();
  EXPECT_EQ(0, pair_.server->levels().half_open);
  pair_.client_wire().cut = false;
  client->release();
}

TEST_F(Listener, OneListenerPerAddressUnlessShared) {
  TcpListener* listener = listen(80);
  long error = 0;
  EXPECT_EQ(nullptr, pair_.server->listen({address("0.0.0.0", 80)}, nullptr, 1, &error));
  EXPECT_EQ(-EADDRINUSE, error);
  EXPECT_EQ(nullptr, pair_.server->listen({address(kServerIp, 80)}, nullptr, 1, &error));
  EXPECT_EQ(-EADDRINUSE, error);
  EXPECT_EQ(nullptr, pair_.server->listen({address("198.18.0.9", 81)}, nullptr, 1, &error));
  EXPECT_EQ(-EADDRNOTAVAIL, error);
  listener->release();
  TcpListener* chosen = pair_.server->listen({address("0.0.0.0", 0)}, nullptr, 1, &error);
  ASSERT_NE(nullptr, chosen);
  EXPECT_NE(0, chosen->local().port_be);
  chosen->release();
}

TEST_F(Listener, SharedPortSpreadsConnections) {
  std::vector<TcpListener*> listeners;
  for (int i = 0; i < 4; i++) listeners.push_back(listen(80, 512, true));
  std::vector<TcpStream*> clients;
  for (int i = 0; i < 200; i++) {
    clients.push_back(connect(80));
    pair_.settle();
  }
  int total = 0;
  for (TcpListener* listener : listeners) {
    int count = 0;
    while (TcpStream* server = accept(*listener)) {
      count++;
      reset(server);
    }
    EXPECT_GT(count, 20);
    total += count;
    listener->release();
  }
  EXPECT_EQ(200, total);
  for (TcpStream* client : clients) client->release();
}

TEST_F(Listener, BoundPortsAreShared) {
  TcpListener* listener = listen(80);
  TcpStream* bound = pair_.client->make_stream();
  EXPECT_EQ(0, pair_.client->bind_stream(bound, address("0.0.0.0", 5555)));
  EXPECT_EQ(-EINVAL, pair_.client->bind_stream(bound, address("0.0.0.0", 5556)));
  TcpStream* second = pair_.client->make_stream();
  EXPECT_EQ(-EADDRNOTAVAIL, pair_.client->bind_stream(second, address("198.18.0.66", 5555)));
  EXPECT_EQ(0, pair_.client->bind_stream(second, address("0.0.0.0", 5555)));
  EXPECT_EQ(0, bound->connect(address(kServerIp, 80)));
  EXPECT_EQ(-EADDRNOTAVAIL, second->connect(address(kServerIp, 80))) << "the same four addresses";
  EXPECT_TRUE(pair_.until([&, b = bound] { return b->connected(); }));
  EXPECT_EQ(5555, ntohs(bound->local().port_be));
  reset(bound);
  second->release();
  listener->release();
}

TEST_F(Listener, PortsRunOutAndComeBack) {
  constexpr int kPorts = 60999 - 32768 + 1;
  std::vector<TcpStream*> streams;
  std::set<uint16_t> ports;
  // Nobody answers: every stream stays in SYN-SENT, none is ever sent to the wire twice.
  pair_.server_wire().cut = true;
  for (int i = 0; i < kPorts; i++) {
    TcpStream* stream = pair_.client->make_stream();
    ASSERT_NE(nullptr, stream);
    ASSERT_EQ(0, stream->connect(address(kServerIp, 80))) << i;
    ports.insert(stream->local().port_be);
    streams.push_back(stream);
  }
  EXPECT_EQ(static_cast<size_t>(kPorts), ports.size());
  TcpStream* extra = pair_.client->make_stream();
  EXPECT_EQ(-EADDRNOTAVAIL, extra->connect(address(kServerIp, 80)));
  EXPECT_EQ(0, extra->connect(address(kServerIp, 81))) << "another peer port is another connection";
  extra->release();
  for (TcpStream* stream : streams) stream->release();
  pair_.server_wire().cut = false;
  EXPECT_EQ(client_before_.pcbs, pair_.client->levels().pcbs);
}

TEST_F(Listener, StreamsRunOutWithoutHarm) {
  std::vector<TcpStream*> streams;
  while (TcpStream* stream = pair_.client->make_stream()) streams.push_back(stream);
  EXPECT_GE(streams.size(), 60000u);
  for (TcpStream* stream : streams) stream->release();
}

}  // namespace
