// UDP over IPv6 between two stacks: which wildcard gets what, fragments, reports, checksums.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

using namespace netstack_test;

namespace {

constexpr const char* kNothing = "Resource temporarily unavailable";
constexpr IpAddress kAll{};

class Udp6 : public UdpTest {
 protected:
  UdpEndpoint* bound_to(Stack* on, const IpAddress& at, uint16_t port, bool v6_only = false, long expected = 0) {
    netstack::PortRequest request{{at, htons(port)}};
    request.v6_only = v6_only;
    UdpEndpoint* made = open(on);
    EXPECT_EQ(expected, made->bind(request));
    return made;
  }
};

TEST_F(Udp6, ThereAndBack) {
  UdpEndpoint* server = bound_to(pair_.server, kAll, 53);
  UdpEndpoint* client = open(pair_.client);
  for (const size_t bytes : {size_t{0}, size_t{5}, size_t{1452}, size_t{1453}, size_t{20'000}, size_t{65'487}}) {
    std::string text(bytes, '\0');
    for (size_t i = 0; i < bytes; i++) text[i] = static_cast<char>(i * 3 + bytes);
    EXPECT_EQ(static_cast<long>(bytes), send_to(client, address6(kServerIp6, 53), text));
    pair_.settle();
    Datagram about;
    EXPECT_TRUE(text == take(server, &about)) << bytes;
    EXPECT_EQ(address6(kClientIp6, ntohs(client->local().port_be)), about.from);
    EXPECT_EQ(ip6(kServerIp6), about.to.address);
    EXPECT_EQ(64, about.ttl);
    EXPECT_EQ(test_clock->now_ns, about.received_ns);
    EXPECT_EQ(3, send_to(server, about.from, "yes"));
    pair_.settle();
    EXPECT_EQ("yes", take(client, &about));
    EXPECT_EQ(address6(kServerIp6, 53), about.from);
  }
  EXPECT_EQ(-EMSGSIZE, send_to(client, address6(kServerIp6, 53), std::string(65'488, 'x')));
}

TEST_F(Udp6, Wildcards) {
  UdpEndpoint* both = bound_to(pair_.server, kAll, 53);
  bound_to(pair_.server, IpAddress::v4(0), 53, false, -EADDRINUSE);
  UdpEndpoint* client = open(pair_.client);
  Datagram about;
  send_to(client, address(kServerIp, 53), "four");
  send_to(client, address6(kServerIp6, 53), "six");
  pair_.settle();
  EXPECT_EQ("four", take(both, &about));
  EXPECT_EQ(inet_addr(kClientIp), about.from.address.v4_be());
  EXPECT_EQ("six", take(both, &about));
  EXPECT_FALSE(about.from.address.is_v4());
  UdpEndpoint* six = bound_to(pair_.server, kAll, 54, true);
  UdpEndpoint* four = bound_to(pair_.server, IpAddress::v4(0), 54);
  send_to(client, address(kServerIp, 54), "four");
  send_to(client, address6(kServerIp6, 54), "six");
  pair_.settle();
  EXPECT_EQ("four", take(four));
  EXPECT_EQ("six", take(six));
  EXPECT_EQ(kNothing, take(four));
  EXPECT_EQ(kNothing, take(six));
}

TEST_F(Udp6, Connected) {
  UdpEndpoint* server = bound_to(pair_.server, kAll, 53);
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, client->connect(address6(kServerIp6, 53)));
  EXPECT_EQ(ip6(kClientIp6), client->local().address);
  EXPECT_EQ(2, send_on(client, "hi"));
  pair_.settle();
  Datagram about;
  EXPECT_EQ("hi", take(server, &about));
  EXPECT_EQ(client->local(), about.from);
  UdpEndpoint* other = bound_to(pair_.server, kAll, 99);
  send_to(other, client->local(), "from another");
  send_to(server, client->local(), "from the peer");
  pair_.settle();
  EXPECT_EQ("from the peer", take(client));
  EXPECT_EQ(kNothing, take(client));
}

TEST_F(Udp6, NobodyThere) {
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(0, client->connect(address6(kServerIp6, 9)));
  EXPECT_EQ(1, send_on(client, "x"));
  pair_.settle();
  EXPECT_EQ(strerror(ECONNREFUSED), take(client));
  EXPECT_EQ(0, client->set_option(UdpOption::errors6, 1));
  EXPECT_EQ(4, send_on(client, "lost"));
  pair_.settle();
  UdpError about;
  char buffer[16];
  iovec part{buffer, sizeof buffer};
  EXPECT_GE(client->receive_error(&part, 1, &about), 0);
  EXPECT_EQ(static_cast<uint32_t>(ECONNREFUSED), about.error);
  EXPECT_EQ(3, about.origin);
  EXPECT_EQ(1, about.type);
  EXPECT_EQ(4, about.code);
  EXPECT_EQ(address6(kServerIp6, 9), about.to);
  EXPECT_EQ(ip6(kServerIp6), about.offender.address);
}

TEST_F(Udp6, ManyToANewNeighbour) {
  UdpEndpoint* server = bound_to(pair_.server, kAll, 53);
  EXPECT_EQ(0, server->set_option(UdpOption::receive_buffer, 1 << 20));
  UdpEndpoint* client = open(pair_.client);
  pair_.pass(60'000, 1000);
  int sent = 0;
  for (int i = 0; i < 200; i++) {
    if (send_to(client, address6(kServerIp6, 53), "x") == 1) {
      sent++;
    } else {
      pair_.settle();  // what the caller does who is refused
    }
  }
  EXPECT_GT(sent, 150);
  pair_.settle();
  int got = 0;
  while (take(server) == "x") got++;
  EXPECT_EQ(sent, got);
}

}  // namespace
