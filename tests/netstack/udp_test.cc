// UDP endpoints on a pair of stacks: names and ports, whose a datagram is, the queue and its bound, fragments, reports of ICMP.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

using namespace netstack_test;

namespace {

constexpr const char* kNothing = "Resource temporarily unavailable";

using Udp = UdpTest;

TEST_F(Udp, ThereAndBack) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(kNothing, take(server));
  EXPECT_EQ(uint32_t{EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND}, server->ready());
  EXPECT_EQ(5, send_to(client, address(kServerIp, 53), "query"));
  EXPECT_NE(0, client->local().port_be) << "a port was chosen";
  EXPECT_EQ(inet_addr("0.0.0.0"), client->local().address.v4_be()) << "but no address";
  pair_.settle();
  EXPECT_NE(0u, server->ready() & EPOLLIN);
  EXPECT_EQ(5u, server->next_bytes());
  Datagram about;
  EXPECT_EQ("query", take(server, &about, true));
  EXPECT_EQ("query", take(server, &about));
  EXPECT_EQ(address(kClientIp, ntohs(client->local().port_be)), about.from);
  EXPECT_EQ(inet_addr(kServerIp), about.to.address.v4_be());
  EXPECT_EQ(64, about.ttl);
  EXPECT_EQ(test_clock->now_ns, about.received_ns);
  EXPECT_EQ(0u, server->ready() & EPOLLIN);
  EXPECT_EQ(6, send_to(server, about.from, "answer"));
  pair_.settle();
  EXPECT_EQ("answer", take(client));
}

TEST_F(Udp, EmptyAndTruncated) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  for (const char* text : {"", "abcdef", "", "xyz"})
    EXPECT_EQ(static_cast<long>(strlen(text)), send_to(client, address(kServerIp, 53), text));
  pair_.settle();
  EXPECT_TRUE(server->readable());
  EXPECT_EQ("", take(server));
  char few[4];
  iovec parts[2] = {{few, 1}, {few + 1, 3}};
  Datagram about;
  EXPECT_EQ(4, server->receive(parts, 2, false, &about));
  EXPECT_EQ(6u, about.bytes);
  EXPECT_EQ("abcd", std::string(few, 4));
  EXPECT_EQ(0, server->receive(nullptr, 0, false, &about));
  EXPECT_EQ("xyz", take(server)) << "the rest of the truncated one is gone";
  EXPECT_EQ(kNothing, take(server));
}

TEST_F(Udp, Ports) {
  UdpEndpoint* first = bound(pair_.server, 53);
  EXPECT_EQ(-EINVAL, first->bind({address("0.0.0.0", 54)}));
  UdpEndpoint* second = open(pair_.server);
  EXPECT_EQ(-EADDRINUSE, second->bind({address("0.0.0.0", 53)}));
  EXPECT_EQ(-EADDRINUSE, second->bind({address(kServerIp, 53)}));
  EXPECT_EQ(-EADDRNOTAVAIL, second->bind({address(kClientIp, 53)}));
  EXPECT_EQ(-EADDRINUSE, second->bind({address("0.0.0.0", 53), {true, false}})) << "the first does not say so";
  EXPECT_EQ(0, first->set_option(UdpOption::reuse_address, 1));
  EXPECT_EQ(0, second->bind({address(kServerIp, 53), {true, false}}));
  UdpEndpoint* third = open(pair_.server);
  EXPECT_EQ(-EADDRINUSE, third->bind({address("0.0.0.0", 53), {false, true}}));
  EXPECT_EQ(0, third->bind({address("0.0.0.0", 0)}));
  EXPECT_GE(ntohs(third->local().port_be), 32768);
  close(first);
  close(second);
  bound(pair_.server, 53, "0.0.0.0", {false, true, 7});
  UdpEndpoint* other_user = open(pair_.server);
  EXPECT_EQ(-EADDRINUSE, other_user->bind({address("0.0.0.0", 53), {false, true, 8}}));
  EXPECT_EQ(0, other_user->bind({address("0.0.0.0", 53), {false, true, 7}}));
}

TEST_F(Udp, TheMostSpecificGetsIt) {
  UdpEndpoint* any = bound(pair_.server, 53, "0.0.0.0", {true});
  UdpEndpoint* own = bound(pair_.server, 53, kServerIp, {true});
  UdpEndpoint* later = bound(pair_.server, 53, "0.0.0.0", {true});
  UdpEndpoint* peers = bound(pair_.server, 53, "0.0.0.0", {true});
  UdpEndpoint* client = bound(pair_.client, 1000);
  UdpEndpoint* other = bound(pair_.client, 1001);
  EXPECT_EQ(0, peers->connect(address(kClientIp, 1000)));
  EXPECT_EQ(address(kServerIp, 53), peers->local());
  send_to(client, address(kServerIp, 53), "from the peer");
  send_to(other, address(kServerIp, 53), "from another");
  pair_.settle();
  EXPECT_EQ("from the peer", take(peers));
  EXPECT_EQ(kNothing, take(peers));
  EXPECT_EQ("from another", take(own));
  close(own);
  send_to(other, address(kServerIp, 53), "again");
  pair_.settle();
  EXPECT_EQ("again", take(later)) << "the last that came";
  EXPECT_EQ(kNothing, take(any));
  peers->disconnect();
  EXPECT_EQ(address("0.0.0.0", 53), peers->local());
  EXPECT_FALSE(peers->connected());
  send_to(client, address(kServerIp, 53), "open again");
  pair_.settle();
  EXPECT_EQ("open again", take(peers));
}

TEST_F(Udp, DisconnectGivesBackWhatWasNotAskedFor) {
  bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, client->connect(address(kServerIp, 53)));
  EXPECT_EQ(inet_addr(kClientIp), client->local().address.v4_be());
  EXPECT_NE(0, client->local().port_be);
  client->disconnect();
  EXPECT_EQ(SocketAddress{}, client->local());
  EXPECT_EQ(0, client->bind({address(kClientIp, 0)}));
  EXPECT_EQ(0, client->connect(address(kServerIp, 53)));
  client->disconnect();
  EXPECT_EQ(address(kClientIp, 0), client->local());
}

TEST_F(Udp, SharersDivideTheSources) {
  std::vector<UdpEndpoint*> workers;
  for (int i = 0; i < 4; i++) workers.push_back(bound(pair_.server, 53, "0.0.0.0", {false, true, 1}));
  for (uint16_t i = 0; i < 200; i++) {
    UdpEndpoint* client = bound(pair_.client, static_cast<uint16_t>(2000 + i));
    send_to(client, address(kServerIp, 53), "1");
    send_to(client, address(kServerIp, 53), "2");
    pair_.settle();
    close(client);
  }
  for (UdpEndpoint* worker : workers) {
    int count = 0;
    Datagram first, second;
    for (; take(worker, &first) == "1"; count++) {
      EXPECT_EQ("2", take(worker, &second)) << "one source stays with one worker";
      EXPECT_EQ(first.from, second.from);
    }
    EXPECT_GT(count, 20);
    EXPECT_LT(count, 90);
  }
}

TEST_F(Udp, TheQueueIsBounded) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, server->set_option(UdpOption::receive_buffer, 10 * 832));
  for (int i = 0; i < 25; i++) send_to(client, address(kServerIp, 53), std::to_string(i));
  pair_.settle();
  EXPECT_EQ(10u * 832, server->figures().held);
  EXPECT_EQ(15u, server->figures().drops);
  for (int i = 0; i < 10; i++) EXPECT_EQ(std::to_string(i), take(server));
  EXPECT_EQ(kNothing, take(server));
  EXPECT_EQ(0, server->set_option(UdpOption::receive_buffer, 1));
  send_to(client, address(kServerIp, 53), std::string(1000, 'x'));
  send_to(client, address(kServerIp, 53), "y");
  pair_.settle();
  EXPECT_EQ(std::string(1000, 'x'), take(server)) << "one is always taken";
  EXPECT_EQ(kNothing, take(server));
  EXPECT_EQ(16u, server->figures().drops);
}

TEST_F(Udp, LongerThanAFrame) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, server->set_option(UdpOption::receive_buffer, 1 << 20));
  for (const size_t bytes : {1472u, 1473u, 2953u, 20000u, 65507u}) {
    std::string text(bytes, '\0');
    for (size_t i = 0; i < bytes; i++) text[i] = static_cast<char>(i * 7 + bytes);
    EXPECT_EQ(static_cast<long>(bytes), send_to(client, address(kServerIp, 53), text));
    pair_.settle();
    EXPECT_EQ(bytes, server->next_bytes());
    Datagram about;
    EXPECT_EQ(text, take(server, &about));
    EXPECT_EQ(inet_addr(kClientIp), about.from.address.v4_be());
    EXPECT_EQ(client->local().port_be, about.from.port_be);
  }
  EXPECT_EQ(-EMSGSIZE, send_to(client, address(kServerIp, 53), std::string(65508, 'x')));
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, 2));
  EXPECT_EQ(-EMSGSIZE, send_to(client, address(kServerIp, 53), std::string(1473, 'x')));
  EXPECT_EQ(1472, send_to(client, address(kServerIp, 53), std::string(1472, 'x')));
  pair_.settle();
  EXPECT_EQ(1472u, take(server).size());
}

TEST_F(Udp, LongSegmentsOfTcpAreNoLongFrames) {
  pair_ = Pair::get(Segments::by_reference);
  SetUp();
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  pair_.client_wire().longest_sent = 0;
  EXPECT_EQ(5000, send_to(client, address(kServerIp, 53), std::string(5000, 'x')));
  pair_.settle();
  EXPECT_EQ(std::string(5000, 'x'), take(server));
  EXPECT_LE(pair_.client_wire().longest_sent, 1514u);
}

TEST_F(Udp, ToItself) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.server);
  EXPECT_EQ(3000, send_to(client, address(kServerIp, 53), std::string(3000, 'x')));
  pair_.settle();
  Datagram about;
  EXPECT_EQ(std::string(3000, 'x'), take(server, &about));
  EXPECT_EQ(address(kServerIp, ntohs(client->local().port_be)), about.from);
  EXPECT_EQ(test_clock->now_ns, about.received_ns);
}

TEST_F(Udp, NobodyThere) {
  UdpEndpoint* client = open(pair_.client);
  send_to(client, address(kServerIp, 9), "anybody?");
  pair_.settle();
  EXPECT_EQ(0u, client->ready() & EPOLLERR) << "who is not connected is not told";
  EXPECT_EQ(0, client->connect(address(kServerIp, 9)));
  EXPECT_EQ(1, send_on(client, "x"));
  pair_.settle();
  EXPECT_NE(0u, client->ready() & EPOLLERR);
  EXPECT_EQ(strerror(ECONNREFUSED), take(client));
  EXPECT_EQ(kNothing, take(client)) << "once";
  EXPECT_EQ(1, send_on(client, "x"));
  pair_.settle();
  EXPECT_EQ(-ECONNREFUSED, send_on(client, "y"));
  EXPECT_EQ(1, send_on(client, "z"));
  pair_.settle();
  EXPECT_EQ(ECONNREFUSED, client->take_error());
  EXPECT_EQ(0, client->take_error());
}

TEST_F(Udp, TheErrorQueue) {
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, client->set_option(UdpOption::errors, 1));
  send_to(client, address(kServerIp, 9), "anybody?");
  pair_.settle();
  EXPECT_NE(0u, client->ready() & EPOLLERR);
  UdpError about;
  char buffer[16];
  iovec part{buffer, sizeof buffer};
  EXPECT_GE(client->receive_error(&part, 1, &about), 0);
  EXPECT_EQ(static_cast<uint32_t>(ECONNREFUSED), about.error);
  EXPECT_EQ(2, about.origin);
  EXPECT_EQ(3, about.type);
  EXPECT_EQ(3, about.code);
  EXPECT_EQ(address(kServerIp, 9), about.to);
  EXPECT_EQ(inet_addr(kServerIp), about.offender.address.v4_be());
  EXPECT_EQ(-EAGAIN, client->receive_error(&part, 1, &about));
  EXPECT_EQ(0, client->take_error());
  for (int i = 0; i < 40; i++) send_to(client, address(kServerIp, 9), "x"), (void)client->take_error();
  pair_.settle();
}

TEST_F(Udp, AnswersToNobodyAreFew) {
  UdpEndpoint* client = open(pair_.client);
  for (int i = 0; i < 10; i++) (void)send_to(client, address(kServerIp, 9), "x");
  pair_.settle();
  pair_.pass(1000);
  const uint64_t before = pair_.server_wire().sent;
  for (int i = 0; i < 500; i++) (void)send_to(client, address(kServerIp, 9), "x");
  pair_.settle();
  EXPECT_EQ(50u, pair_.server_wire().sent - before);
}

TEST_F(Udp, ShutAndBroadcast) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* second = bound(pair_.server, 54);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(-EACCES, send_to(client, address("198.18.0.255", 53), "all"));
  EXPECT_EQ(-EACCES, client->connect(address("198.18.0.255", 53)));
  EXPECT_EQ(0, client->set_option(UdpOption::broadcast, 1));
  EXPECT_EQ(3, send_to(client, address("198.18.0.255", 53), "all"));
  EXPECT_EQ(3, send_to(client, address("255.255.255.255", 53), "ALL"));
  EXPECT_EQ(3, send_to(client, address("198.18.0.255", 9), "nil"));
  pair_.settle();
  Datagram about;
  EXPECT_EQ("all", take(server, &about));
  EXPECT_EQ(inet_addr("198.18.0.255"), about.to.address.v4_be());
  EXPECT_EQ("ALL", take(server));
  EXPECT_EQ(kNothing, take(second));
  EXPECT_EQ(0, client->connect(address(kServerIp, 53)));
  client->shutdown(SHUT_WR);
  EXPECT_EQ(-EPIPE, send_on(client, "x"));
  client->shutdown(SHUT_RD);
  EXPECT_EQ(uint32_t{EPOLLHUP | EPOLLRDHUP | EPOLLIN | EPOLLRDNORM}, client->ready() & ~uint32_t{EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND});
}

TEST_F(Udp, EverybodyGetsABroadcast) {
  std::vector<UdpEndpoint*> all;
  for (int i = 0; i < 3; i++) all.push_back(bound(pair_.server, 53, "0.0.0.0", {true}));
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, client->set_option(UdpOption::broadcast, 1));
  send_to(client, address("198.18.0.255", 53), "all");
  send_to(client, address(kServerIp, 53), "one");
  pair_.settle();
  int ones = 0;
  for (UdpEndpoint* each : all) {
    Datagram about;
    EXPECT_EQ("all", take(each, &about));
    EXPECT_EQ(address(kClientIp, ntohs(client->local().port_be)), about.from);
    ones += take(each) == "one";
  }
  EXPECT_EQ(1, ones);
}

TEST_F(Udp, NoWay) {
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(-ENETUNREACH, send_to(client, address("203.0.113.1", 53), "x"));
  EXPECT_EQ(-ENETUNREACH, client->connect(address("203.0.113.1", 53)));
  EXPECT_EQ(-EINVAL, send_to(client, address(kServerIp, 0), "x"));
  EXPECT_EQ(-EDESTADDRREQ, send_on(client, "x"));
}

TEST_F(Udp, AWireWithoutRoom) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(1, send_to(client, address(kServerIp, 53), "a"));
  pair_.settle();
  pair_.client_wire().refuse = true;
  EXPECT_EQ(-EAGAIN, send_to(client, address(kServerIp, 53), "b"));
  EXPECT_EQ(0u, client->ready() & EPOLLOUT);
  EXPECT_LE(pair_.client->next_timer_ns(), test_clock->now_ns + kMs);
  pair_.client_wire().refuse = false;
  pair_.pass(5, 1);
  EXPECT_NE(0u, client->ready() & EPOLLOUT);
  EXPECT_EQ(1, send_to(client, address(kServerIp, 53), "c"));
  pair_.settle();
  EXPECT_EQ("a", take(server));
  EXPECT_EQ("c", take(server));
}

}  // namespace
