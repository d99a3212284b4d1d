// A router on the way that takes less than the wire: what it says is believed if it can be true, by TCP and UDP over IPv6.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/in6.h>

#include "udp_pair.h"

#include <netinet/icmp6.h>

using namespace netstack_test;

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> seen;  // what the client has sent
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

constexpr size_t kIp = 14, kTcp = kIp + 40;
constexpr const char* kRouter = "fdc6:1200::9";
constexpr uint32_t kSmall = 1300;

class PathMtu : public UdpTest {
 protected:
  void SetUp() override {
    UdpTest::SetUp();
    pair_.client_wire().tap = look;
    seen.clear();
  }
  void TearDown() override {
    pair_.client_wire().tap = nullptr;
    pair_.client_wire().longest_passed = UINT32_MAX;
    UdpTest::TearDown();
    pair_.pass(700'000, 10'000);  // what was learnt is forgotten
  }
  // Quotes a frame of the client's in a message to it.
  void too_big(const Bytes& frame, uint32_t mtu, uint16_t wrong_sum = 0) {
    const size_t quoted = std::min<size_t>(frame.size() - kIp, 1280 - 40 - 8);
    Bytes message(kIp + 40 + 8 + quoted);
    memcpy(&message[0], pair_.client_wire().facts().mac, 6);
    memcpy(&message[6], pair_.server_wire().facts().mac, 6);
    const auto put16 = [&](size_t at, uint32_t v) {
      message[at] = static_cast<uint8_t>(v >> 8), message[at + 1] = static_cast<uint8_t>(v);
    };
    put16(12, 0x86dd);
    message[kIp] = 0x60;
    put16(kIp + 4, static_cast<uint32_t>(8 + quoted));
    message[kIp + 6] = IPPROTO_ICMPV6, message[kIp + 7] = 64;
    memcpy(&message[kIp + 8], ip6(kRouter).words_be, 16);
    memcpy(&message[kIp + 24], ip6(kClientIp6).words_be, 16);
    uint8_t* const icmp = &message[kIp + 40];
    icmp[0] = ICMP6_PACKET_TOO_BIG;
    put16(kIp + 44, mtu >> 16), put16(kIp + 46, mtu & 0xffff);
    memcpy(icmp + 8, &frame[kIp], quoted);
    const auto length = static_cast<uint32_t>(8 + quoted);
    put16(kIp + 42, wrong_sum + sum_of(icmp, length, static_cast<uint16_t>(~sum_of(&message[kIp + 8], 32, IPPROTO_ICMPV6 + length))));
    pair_.client_wire().deliver(message.data(), static_cast<uint32_t>(message.size()));
    pair_.settle();
  }
  static size_t longest_seen() {
    size_t longest = 0;
    for (const Bytes& frame : seen) longest = std::max(longest, frame.size() - kIp);
    return longest;
  }
  static const Bytes* longer_than(size_t bytes) {
    for (const Bytes& frame : seen) {
      if (frame.size() - kIp > bytes) return &frame;
    }
    return nullptr;
  }
  std::pair<TcpStream*, TcpStream*> connected6() {
    long error = 1;
    TcpListener* listener = pair_.server->listen({{IpAddress{}, htons(80)}, {}}, nullptr, 128, &error);
    TcpStream* client = pair_.client->make_stream();
    EXPECT_EQ(0, client->connect(address6(kServerIp6, 80)));
    TcpStream* server = nullptr;
    EXPECT_TRUE(pair_.until([&] { return server != nullptr || (server = accept(*listener)) != nullptr; }));
    listener->release();
    return {client, server};
  }
  static void end(TcpStream* stream) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
  static int mtu_of(TcpStream* stream) {
    int mtu = 0;
    EXPECT_EQ(0, stream->get_option(TcpOption::path_mtu, &mtu));
    return mtu;
  }
  static int mtu_of(UdpEndpoint* endpoint) {
    int mtu = 0;
    EXPECT_EQ(0, endpoint->get_option(UdpOption::path_mtu, &mtu));
    return mtu;
  }
  UdpEndpoint* connected_endpoint(int discovery) {
    UdpEndpoint* client = open(pair_.client);
    EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery6, discovery));
    EXPECT_EQ(0, client->connect(address6(kServerIp6, 53)));
    return client;
  }
  UdpEndpoint* server() {
    UdpEndpoint* made = open(pair_.server);
    EXPECT_EQ(0, made->bind({{IpAddress{}, htons(53)}}));
    return made;
  }
};

// The router drops what is too long and says so, as often as it comes.
TEST_F(PathMtu, AStreamGetsThrough) {
  auto [client, server] = connected6();
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(1500, mtu_of(client));
  pair_.client_wire().longest_passed = kSmall + kIp;
  std::string text(200'000, '\0'), got;
  for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i * 7 + i / 256);
  size_t sent = 0;
  int reports = 0;
  const uint64_t begin_ns = test_clock->now_ns;
  pair_.until([&] {
    if (sent < text.size()) {
      const long n = send_text(*client, text.substr(sent));
      if (n > 0) sent += static_cast<size_t>(n);
      if (sent == text.size()) (void)client->shutdown(SHUT_WR);  // the FIN is in the last one
    }
    pair_.settle();
    if (const Bytes* dropped = longer_than(kSmall); dropped != nullptr) {
      const Bytes quoted = *dropped;
      seen.clear();
      reports++;
      too_big(quoted, kSmall);
    }
    got += text_of(*server);
    return got.size() >= text.size();
  });
  EXPECT_TRUE(got == text);
  EXPECT_LE(reports, 2);
  EXPECT_LT(test_clock->now_ns - begin_ns, 1000 * kMs);  // at once, not after a timeout
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  int segment = 0;
  EXPECT_EQ(0, client->get_option(TcpOption::max_segment, &segment));
  EXPECT_LE(segment, static_cast<int>(kSmall) - 60);
  end(client), end(server);
  pair_.settle();
  // The next connection knows.
  seen.clear();
  std::tie(client, server) = connected6();
  EXPECT_GT(send_text(*client, text.substr(0, 10'000)), 0);
  pair_.settle();
  EXPECT_LE(longest_seen(), kSmall);
  EXPECT_GT(longest_seen(), kSmall - 20);
  end(client), end(server);
}

TEST_F(PathMtu, WhatWasNotSentIsNotBelieved) {
  auto [client, server] = connected6();
  ASSERT_NE(nullptr, server);
  pair_.client_wire().cut = false;
  pair_.server_wire().cut = true;  // what is sent stays in flight
  EXPECT_EQ(5000, send_text(*client, std::string(5000, 'x')));
  pair_.settle();
  const Bytes* const found = longer_than(1400);
  ASSERT_NE(nullptr, found);
  const Bytes sent = *found;
  const auto refused = [&](Bytes frame, uint32_t mtu, uint16_t wrong_sum = 0) {
    too_big(frame, mtu, wrong_sum);
    EXPECT_EQ(1500, mtu_of(client)) << mtu;
  };
  for (const uint32_t mtu : {0u, 68u, 1279u, 1500u, 9000u, 0xffff'ffffu, 0x0001'0514u}) refused(sent, mtu);
  refused(sent, kSmall, 1);  // a wrong checksum
  const auto changed = [&](size_t at, uint8_t by) {
    Bytes frame = sent;
    frame[at] = static_cast<uint8_t>(frame[at] + by);
    return frame;
  };
  refused(changed(kIp + 8 + 15, 7), kSmall);   // from another address
  refused(changed(kIp + 24 + 15, 7), kSmall);  // to another one
  refused(changed(kTcp + 1, 1), kSmall);       // ports of no connection
  refused(changed(kTcp + 3, 1), kSmall);
  refused(changed(kTcp + 4, 0x40), kSmall);    // a sequence number that is far ahead, and one that is far behind
  refused(changed(kTcp + 4, 0xc0), kSmall);
  refused(changed(kIp + 6, 100), kSmall);      // another protocol
  refused(Bytes(sent.begin(), sent.begin() + kTcp + 7), kSmall);  // cut within the sequence number
  EXPECT_EQ(0, client->set_option(TcpOption::path_mtu_discovery6, IPV6_PMTUDISC_INTERFACE));
  refused(sent, kSmall);
  EXPECT_EQ(0, client->set_option(TcpOption::path_mtu_discovery6, IPV6_PMTUDISC_WANT));
  too_big(sent, kSmall);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  pair_.server_wire().cut = false;
  std::string got;
  EXPECT_TRUE(pair_.until([&] { return (got += text_of(*server)).size() == 5000; }));
  end(client), end(server);
}

TEST_F(PathMtu, DatagramsAreCutOrRefused) {
  UdpEndpoint* to = server();
  UdpEndpoint* client = connected_endpoint(IPV6_PMTUDISC_WANT);
  const std::string text(1452, 'd');
  EXPECT_EQ(1452, send_on(client, text));
  pair_.settle();
  EXPECT_EQ(1500u, longest_seen());
  EXPECT_EQ(text, take(to));
  too_big(*longer_than(1400), kSmall);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  EXPECT_EQ(-EMSGSIZE, send_on(client, text));  // what came is told once
  for (const int discovery : {IPV6_PMTUDISC_WANT, IPV6_PMTUDISC_DONT}) {
    EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery6, discovery));
    seen.clear();
    EXPECT_EQ(1452, send_on(client, text));
    EXPECT_EQ(1240, send_on(client, std::string(1240, 'e')));
    EXPECT_EQ(9000, send_on(client, std::string(9000, 'f')));
    pair_.settle();
    EXPECT_LE(longest_seen(), kSmall);
    EXPECT_EQ(text, take(to));
    EXPECT_EQ(std::string(1240, 'e'), take(to));
    EXPECT_EQ(std::string(9000, 'f'), take(to));
  }
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery6, IPV6_PMTUDISC_DO));
  EXPECT_EQ(-EMSGSIZE, send_on(client, std::string(1253, 'x')));
  EXPECT_EQ(1252, send_on(client, std::string(1252, 'x')));
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery6, IPV6_PMTUDISC_PROBE));
  seen.clear();
  EXPECT_EQ(1452, send_on(client, text));
  EXPECT_EQ(-EMSGSIZE, send_on(client, text + "x"));
  pair_.settle();
  EXPECT_EQ(1500u, longest_seen());
  pair_.pass(601'000, 1000);
  EXPECT_EQ(1500, mtu_of(client));
}

// A datagram that was sent in fragments is quoted by its first one.
TEST_F(PathMtu, FragmentsAreReportedAsWell) {
  UdpEndpoint* to = server();
  UdpEndpoint* client = connected_endpoint(IPV6_PMTUDISC_DONT);
  const std::string text(20'000, 'f');
  EXPECT_EQ(20'000, send_on(client, text));
  pair_.settle();
  EXPECT_EQ(text, take(to));
  std::vector<Bytes> sent = seen;
  std::erase_if(sent, [](const Bytes& frame) { return frame[kIp + 6] != IPPROTO_FRAGMENT; });
  ASSERT_LT(10u, sent.size());
  too_big(sent[1], kSmall);  // another tells nobody whose it is
  EXPECT_EQ(1500, mtu_of(client));
  too_big(sent[0], kSmall);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  seen.clear();
  EXPECT_EQ(20'000, send_on(client, text));
  pair_.settle();
  EXPECT_LE(longest_seen(), kSmall);
  EXPECT_EQ(text, take(to));
}

TEST_F(PathMtu, WhoWantsErrorsHearsOfIt) {
  server();
  UdpEndpoint* client = connected_endpoint(IPV6_PMTUDISC_DONT);
  EXPECT_EQ(1452, send_on(client, std::string(1452, 'd')));
  pair_.settle();
  const Bytes sent = *longer_than(1400);
  too_big(sent, kSmall);
  EXPECT_EQ(0, client->take_error());  // not asked for, and its datagrams may be cut
  EXPECT_EQ(0, client->set_option(UdpOption::errors6, 1));
  too_big(sent, 1279);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  UdpError about;
  EXPECT_GE(client->receive_error(nullptr, 0, &about), 0);
  EXPECT_EQ(static_cast<uint32_t>(EMSGSIZE), about.error);
  EXPECT_EQ(1279u, about.info);
  EXPECT_EQ(ip6(kRouter), about.offender.address);
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery6, IPV6_PMTUDISC_OMIT));
  too_big(sent, 1290);
  EXPECT_EQ(-EAGAIN, client->receive_error(nullptr, 0, &about));
}

// Whoever quotes an endpoint's datagrams to thousands of destinations gets no memory for that, and hurts no other path.
TEST_F(PathMtu, AFloodIsBounded) {
  server();
  UdpEndpoint* client = open(pair_.client);
  EXPECT_EQ(1452, send_to(client, address6(kServerIp6, 53), std::string(1452, 'd')));
  pair_.settle();
  Bytes sent = *longer_than(1400);
  for (int i = 0; i < 20'000; i++) {
    sent[kIp + 24 + 12] = 1, sent[kIp + 24 + 13] = static_cast<uint8_t>(i >> 8), sent[kIp + 24 + 14] = static_cast<uint8_t>(i);
    too_big(sent, kSmall);
  }
  EXPECT_EQ(0, client->connect(address6(kServerIp6, 53)));
  EXPECT_EQ(1500, mtu_of(client));
  SocketAddress last;
  memcpy(last.address.words_be, &sent[kIp + 24], sizeof last.address.words_be);
  last.port_be = htons(53);
  EXPECT_EQ(0, client->connect(last));
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
}

}  // namespace
