// A router on the way that takes less than the wire, over IPv4: what may not be cut says so, and what the router says of it is heeded.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>

#include "udp_pair.h"

using namespace netstack_test;

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> seen;  // what the client has sent
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

constexpr size_t kIp = 14, kTcp = kIp + 20, kOffset = kIp + 6;
constexpr uint32_t kRouterBe = 0x0900'12c6;  // 198.18.0.9
constexpr uint32_t kSmall = 1300, kLeast = 552;  // net.ipv4.route.min_pmtu
constexpr uint8_t kMayNotBeCut = 0x40;

class PathMtu4 : public UdpTest {
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
  void too_big(const Bytes& frame, uint32_t mtu, uint16_t wrong_sum = 0, size_t most = 548) {
    const size_t quoted = std::min(frame.size() - kIp, most);
    Bytes message(pair_.client_wire().facts().mac, pair_.client_wire().facts().mac + 6);
    message.insert(message.end(), pair_.server_wire().facts().mac, pair_.server_wire().facts().mac + 6);
    message.resize(kIp + 20 + 8 + quoted);
    const auto put16 = [&](size_t at, uint32_t v) {
      message[at] = static_cast<uint8_t>(v >> 8), message[at + 1] = static_cast<uint8_t>(v);
    };
    message[12] = 8;
    message[kIp] = 0x45;
    put16(kIp + 2, static_cast<uint32_t>(28 + quoted));
    message[kIp + 8] = 64, message[kIp + 9] = IPPROTO_ICMP;
    memcpy(&message[kIp + 12], &kRouterBe, 4);
    const uint32_t own_be = inet_addr(kClientIp);
    memcpy(&message[kIp + 16], &own_be, 4);
    put16(kIp + 10, sum_of(&message[kIp], 20, 0));
    message[kIp + 20] = 3, message[kIp + 21] = 4;  // fragmentation needed
    put16(kIp + 26, mtu);
    memcpy(&message[kIp + 28], &frame[kIp], quoted);
    put16(kIp + 22, wrong_sum + sum_of(&message[kIp + 20], 8 + quoted, 0));
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
  // Of all packets of this protocol: 0 none, 1 some, 2 all may not be cut.
  static int uncut(uint8_t protocol) {
    size_t all = 0, marked = 0;
    for (const Bytes& frame : seen) {
      if (frame[12] != 8 || frame[kIp + 9] != protocol) continue;
      all++;
      marked += (frame[kOffset] & kMayNotBeCut) != 0;
      EXPECT_EQ(0, sum_of(&frame[kIp], 20, 0)) << "the header's sum";
    }
    EXPECT_NE(0u, all);
    return marked == 0 ? 0 : marked == all ? 2 : 1;
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
    EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, discovery));
    EXPECT_EQ(0, client->connect(address(kServerIp, 53)));
    return client;
  }
};

// The router drops what is too long and says so, as often as it comes.
TEST_F(PathMtu4, AStreamGetsThrough) {
  for (const uint32_t takes : {kSmall, kLeast}) {
    auto [client, server] = connected();
    ASSERT_NE(nullptr, server);
    pair_.client_wire().longest_passed = takes + kIp;
    std::string text(200'000, '\0'), got;
    for (size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i * 7 + i / 256);
    size_t sent = 0;
    int reports = 0;
    const uint64_t begin_ns = test_clock->now_ns;
    pair_.until([&] {
      if (sent < text.size()) {
        const long n = send_text(*client, text.substr(sent));
        if (n > 0) sent += static_cast<size_t>(n);
      }
      pair_.settle();
      if (const Bytes* dropped = longer_than(takes); dropped != nullptr) {
        const Bytes quoted = *dropped;
        seen.clear();
        reports++;
        too_big(quoted, takes, 0, 28);  // RFC 792: header and 8 bytes are enough
      }
      got += text_of(*server);
      return got.size() >= text.size();
    });
    EXPECT_TRUE(got == text);
    EXPECT_LE(reports, 2);
    EXPECT_LT(test_clock->now_ns - begin_ns, 1000 * kMs);
    EXPECT_EQ(static_cast<int>(takes), mtu_of(client));
    EXPECT_EQ(2, uncut(IPPROTO_TCP));
    end(client), end(server);
    pair_.settle();
    seen.clear();
    std::tie(client, server) = connected();  // the next connection knows
    EXPECT_GT(send_text(*client, text.substr(0, 10'000)), 0);
    pair_.settle();
    EXPECT_LE(longest_seen(), takes);
    end(client), end(server);
    pair_.client_wire().longest_passed = UINT32_MAX;
  }
}

TEST_F(PathMtu4, LessThanIsWorthHavingIsCut) {
  auto [client, server] = connected();
  ASSERT_NE(nullptr, server);
  pair_.server_wire().cut = true;
  EXPECT_EQ(5000, send_text(*client, std::string(5000, 'x')));
  pair_.settle();
  const Bytes sent = *longer_than(1400);
  pair_.server_wire().cut = false;
  seen.clear();
  too_big(sent, 0);  // a router of before RFC 1191
  EXPECT_EQ(static_cast<int>(kLeast), mtu_of(client));
  std::string got;
  EXPECT_TRUE(pair_.until([&] { return (got += text_of(*server)).size() == 5000; }));
  EXPECT_LE(longest_seen(), kLeast);
  EXPECT_EQ(0, uncut(IPPROTO_TCP));
  end(client), end(server);
  pair_.pass(601'000, 1000);
  seen.clear();
  std::tie(client, server) = connected();
  EXPECT_EQ(1500, mtu_of(client));
  EXPECT_EQ(2, uncut(IPPROTO_TCP));
  EXPECT_EQ(0, client->set_option(TcpOption::path_mtu_discovery, IP_PMTUDISC_DONT));
  seen.clear();
  EXPECT_EQ(5000, send_text(*client, std::string(5000, 'x')));
  pair_.settle();
  EXPECT_EQ(0, uncut(IPPROTO_TCP));
  end(client), end(server);
}

TEST_F(PathMtu4, WhatWasNotSentIsNotBelieved) {
  auto [client, server] = connected();
  ASSERT_NE(nullptr, server);
  pair_.server_wire().cut = true;  // what is sent stays in flight
  EXPECT_EQ(5000, send_text(*client, std::string(5000, 'x')));
  pair_.settle();
  const Bytes sent = *longer_than(1400);
  const auto refused = [&](Bytes frame, uint32_t mtu, uint16_t wrong_sum = 0) {
    too_big(frame, mtu, wrong_sum);
    EXPECT_EQ(1500, mtu_of(client)) << mtu;
  };
  for (const uint32_t mtu : {1500u, 9000u, 0xffffu}) refused(sent, mtu);
  refused(sent, kSmall, 1);  // a wrong checksum
  const auto changed = [&](size_t at, uint8_t by) {
    Bytes frame = sent;
    frame[at] = static_cast<uint8_t>(frame[at] + by);
    return frame;
  };
  refused(changed(kIp + 15, 7), kSmall);     // from another address
  refused(changed(kIp + 19, 7), kSmall);     // to another one
  refused(changed(kTcp + 1, 1), kSmall);     // ports of no connection
  refused(changed(kTcp + 3, 1), kSmall);
  refused(changed(kTcp + 4, 0x40), kSmall);  // a sequence number that is far ahead, and one that is far behind
  refused(changed(kTcp + 4, 0xc0), kSmall);
  refused(changed(kIp + 9, 100), kSmall);    // another protocol
  refused(changed(kOffset + 1, 1), kSmall);  // not a first fragment
  refused(changed(kIp, 10), kSmall);         // header and ports do not fit
  refused(Bytes(sent.begin(), sent.begin() + kTcp + 7), kSmall);
  EXPECT_EQ(0, client->set_option(TcpOption::path_mtu_discovery, IP_PMTUDISC_INTERFACE));
  refused(sent, kSmall);
  EXPECT_EQ(0, client->set_option(TcpOption::path_mtu_discovery, IP_PMTUDISC_WANT));
  too_big(sent, kSmall);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  pair_.server_wire().cut = false;
  std::string got;
  EXPECT_TRUE(pair_.until([&] { return (got += text_of(*server)).size() == 5000; }));
  end(client), end(server);
}

TEST_F(PathMtu4, DatagramsAreCutOrRefused) {
  UdpEndpoint* to = bound(pair_.server, 53);
  UdpEndpoint* client = connected_endpoint(IP_PMTUDISC_WANT);
  const std::string text(1472, 'd');
  EXPECT_EQ(1472, send_on(client, text));
  pair_.settle();
  EXPECT_EQ(text, take(to));
  seen.clear();
  EXPECT_EQ(1472, send_on(client, text));  // the neighbour is known now
  pair_.settle();
  EXPECT_EQ(2, uncut(IPPROTO_UDP));
  EXPECT_EQ(text, take(to));
  too_big(*longer_than(1400), kSmall);
  EXPECT_EQ(static_cast<int>(kSmall), mtu_of(client));
  EXPECT_EQ(-EMSGSIZE, send_on(client, text));  // what came is told once
  for (const int discovery : {IP_PMTUDISC_WANT, IP_PMTUDISC_DONT}) {
    EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, discovery));
    seen.clear();
    for (const size_t bytes : {size_t{1472}, size_t{1260}, size_t{9000}}) {
      EXPECT_EQ(static_cast<long>(bytes), send_on(client, std::string(bytes, 'e')));
      pair_.settle();
      EXPECT_EQ(std::string(bytes, 'e'), take(to));
    }
    EXPECT_LE(longest_seen(), kSmall);
    EXPECT_EQ(discovery == IP_PMTUDISC_WANT ? 1 : 0, uncut(IPPROTO_UDP));
  }
  for (const int discovery : {IP_PMTUDISC_DO, IP_PMTUDISC_INTERFACE}) {
    EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, discovery));
    const size_t most = discovery == IP_PMTUDISC_DO ? kSmall - 28 : 1472;
    EXPECT_EQ(-EMSGSIZE, send_on(client, std::string(most + 1, 'x')));
    seen.clear();
    EXPECT_EQ(static_cast<long>(most), send_on(client, std::string(most, 'x')));
    pair_.settle();
    EXPECT_EQ(discovery == IP_PMTUDISC_DO ? 2 : 0, uncut(IPPROTO_UDP));
  }
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, IP_PMTUDISC_PROBE));
  EXPECT_EQ(1472, send_on(client, text));
  EXPECT_EQ(-EMSGSIZE, send_on(client, text + "x"));
  pair_.pass(601'000, 1000);
  EXPECT_EQ(1500, mtu_of(client));
}

TEST_F(PathMtu4, WhoWantsErrorsHearsOfIt) {
  (void)bound(pair_.server, 53);
  UdpEndpoint* client = connected_endpoint(IP_PMTUDISC_WANT);
  EXPECT_EQ(0, client->set_option(UdpOption::errors, 1));
  EXPECT_EQ(1472, send_on(client, std::string(1472, 'd')));
  pair_.settle();
  const Bytes sent = *longer_than(1400);
  too_big(sent, 500);
  EXPECT_EQ(static_cast<int>(kLeast), mtu_of(client));
  UdpError about;
  EXPECT_GE(client->receive_error(nullptr, 0, &about), 0);
  EXPECT_EQ(static_cast<uint32_t>(EMSGSIZE), about.error);
  EXPECT_EQ(500u, about.info);
  EXPECT_EQ(kRouterBe, about.offender.address.v4_be());
  EXPECT_EQ(0, client->set_option(UdpOption::path_mtu_discovery, IP_PMTUDISC_DONT));
  too_big(sent, 500);
  EXPECT_EQ(-EAGAIN, client->receive_error(nullptr, 0, &about));
}

}  // namespace
