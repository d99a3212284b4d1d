// Addresses and default router from what routers advertise.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/icmp6.h>

#include "udp_pair.h"

using namespace netstack_test;

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> seen;  // what the host has sent
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

constexpr size_t kIp = 14, kIcmp = kIp + 40;
constexpr const char *kRouter = "fe80::9", *kSomewhere = "2001:db8:9::1";
constexpr uint8_t kBoth = 0xc0, kAddressOnly = 0x40, kOnLinkOnly = 0x80;
constexpr int kSecond = 1000;

Bytes number(uint32_t value) {
  return {static_cast<uint8_t>(value >> 24), static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value)};
}
Bytes prefix(const char* text, uint32_t valid_s, uint32_t preferred_s, uint8_t flags = kBoth, uint8_t length = 64) {
  Bytes made{3, 4, length, flags};
  const IpAddress network = ip6(text);
  for (const Bytes& part : {number(valid_s), number(preferred_s), Bytes(4)}) made.insert(made.end(), part.begin(), part.end());
  made.insert(made.end(), reinterpret_cast<const uint8_t*>(network.words_be), reinterpret_cast<const uint8_t*>(network.words_be) + 16);
  return made;
}
Bytes link_mtu(uint32_t mtu) {
  Bytes made{5, 1, 0, 0};
  const Bytes value = number(mtu);
  made.insert(made.end(), value.begin(), value.end());
  return made;
}

class Autoconfiguration : public ::testing::Test {
 protected:
  // Each test has prefixes of its own: what is learnt stays.
  static Pair& pair() {
    static Pair made = [] {
      Pair fresh{};
      fresh.link = MemoryLink::make(Segments::checked);
      Stack** stacks[2] = {&fresh.client, &fresh.server};
      for (int i = 0; i < 2; i++) {
        netstack::StackPlan plan;
        plan.wire = &fresh.link->ends[i];
        plan.address_be = inet_addr(i == 0 ? kClientIp : kServerIp);
        if (i == 1) plan.ip6[0] = {ip6(kServerIp6), 64};
        plan.autoconfigure = i == 0;
        plan.now_ns = test_now;
        if (i == 0) fresh.link->ends[0].tap = look;
        auto stack = netstack::build_stack(plan);
        EXPECT_TRUE(stack);
        *stacks[i] = *stack;
      }
      return fresh;
    }();
    return made;
  }
  void SetUp() override {
    pair().settle();
    pair().client_wire().tap = look;
  }
  void TearDown() override {
    advertise(0);
    pair().pass(4 * 7200 * kSecond, 600 * kSecond);  // nothing lasts
    seen.clear();
  }
  static Stack& host() { return *pair().client; }
  static void send(Bytes icmp, const char* from, const char* to, uint8_t hops = 255, uint16_t wrong_sum = 0) {
    Bytes frame(kIcmp);
    memcpy(&frame[0], pair().client_wire().facts().mac, 6);
    memcpy(&frame[6], pair().server_wire().facts().mac, 6);
    frame[12] = 0x86, frame[13] = 0xdd;
    frame[kIp] = 0x60;
    frame[kIp + 4] = static_cast<uint8_t>(icmp.size() >> 8), frame[kIp + 5] = static_cast<uint8_t>(icmp.size());
    frame[kIp + 6] = IPPROTO_ICMPV6, frame[kIp + 7] = hops;
    const IpAddress source = ip6(from), destination = ip6(to);
    memcpy(&frame[kIp + 8], source.words_be, 16);
    memcpy(&frame[kIp + 24], destination.words_be, 16);
    const auto length = static_cast<uint32_t>(icmp.size());
    const uint16_t sum = static_cast<uint16_t>(
        wrong_sum + sum_of(icmp.data(), length, static_cast<uint16_t>(~sum_of(&frame[kIp + 8], 32, IPPROTO_ICMPV6 + length))));
    icmp[2] = static_cast<uint8_t>(sum >> 8), icmp[3] = static_cast<uint8_t>(sum);
    frame.insert(frame.end(), icmp.begin(), icmp.end());
    pair().client_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair().settle();
  }
  static Bytes advertisement(uint16_t router_s, const std::vector<Bytes>& options = {}) {
    Bytes made{
        ND_ROUTER_ADVERT, 0, 0, 0, 64, 0, static_cast<uint8_t>(router_s >> 8), static_cast<uint8_t>(router_s), 0, 0, 0, 0, 0, 0, 0, 0};
    for (const Bytes& option : options) made.insert(made.end(), option.begin(), option.end());
    return made;
  }
  static void advertise(uint16_t router_s, const std::vector<Bytes>& options = {}, const char* router = kRouter) {
    send(advertisement(router_s, options), router, "ff02::1");
  }
  // The host's address in a network.
  static std::string own(const char* network) {
    uint8_t mac[6];
    memcpy(mac, pair().client_wire().facts().mac, 6);
    char text[64];
    snprintf(text, sizeof text, "%s%x:%x:%x:%x", network, (mac[0] ^ 2) << 8 | mac[1], mac[2] << 8 | 0xff, 0xfe00 | mac[3],
             mac[4] << 8 | mac[5]);
    return text;
  }
  static bool owns(const char* network) { return host().owns(ip6(own(network).c_str())); }
  static size_t count(uint8_t type) {
    size_t found = 0;
    for (const Bytes& frame : seen)
      found += frame.size() > kIcmp && frame[12] == 0x86 && frame[kIp + 6] == IPPROTO_ICMPV6 && frame[kIcmp] == type;
    return found;
  }
};

TEST_F(Autoconfiguration, AnAddressAndARouter) {
  pair().pass(20 * kSecond, 100);
  EXPECT_EQ(3u, count(ND_ROUTER_SOLICIT));
  EXPECT_FALSE(host().routes(ip6(kSomewhere)));
  seen.clear();
  advertise(1800, {prefix("2001:db8:1::", 3600, 1800), link_mtu(1400)});
  EXPECT_EQ(1u, count(ND_NEIGHBOR_SOLICIT));
  EXPECT_FALSE(owns("2001:db8:1:0:")) << "somebody may object";
  pair().pass(kSecond);
  EXPECT_TRUE(owns("2001:db8:1:0:"));
  EXPECT_TRUE(host().routes(ip6("2001:db8:1::77")));
  EXPECT_TRUE(host().routes(ip6(kSomewhere)));
  EXPECT_FALSE(host().routes(ip6("::1")));
  EXPECT_EQ(0u, count(ND_ROUTER_SOLICIT));
  // A neighbour gets an answer, at its address and for it.
  TcpStream* stream = host().make_stream();
  seen.clear();
  EXPECT_EQ(0, stream->connect(address6(kSomewhere, 80)));
  pair().settle();
  EXPECT_EQ(1u, count(ND_NEIGHBOR_SOLICIT)) << "for the router";
  stream->release();
  advertise(0);
  EXPECT_FALSE(host().routes(ip6(kSomewhere)));
  EXPECT_TRUE(host().routes(ip6("2001:db8:1::77")));
  advertise(10);
  EXPECT_TRUE(host().routes(ip6(kSomewhere)));
  pair().pass(11 * kSecond, 500);
  EXPECT_FALSE(host().routes(ip6(kSomewhere))) << "it has not said so again";
}

TEST_F(Autoconfiguration, SomebodyObjects) {
  advertise(1800, {prefix("2001:db8:2::", 3600, 1800)});
  Bytes objection{ND_NEIGHBOR_ADVERT, 0, 0, 0, 0x20, 0, 0, 0};
  const IpAddress address = ip6(own("2001:db8:2:0:").c_str());
  objection.insert(objection.end(), reinterpret_cast<const uint8_t*>(address.words_be),
                   reinterpret_cast<const uint8_t*>(address.words_be) + 16);
  for (const uint8_t byte : {2, 1, 2, 0, 0, 0, 0, 77}) objection.push_back(byte);
  send(objection, own("2001:db8:2:0:").c_str(), "ff02::1");
  pair().pass(5 * kSecond, 100);
  EXPECT_FALSE(owns("2001:db8:2:0:"));
  advertise(1800, {prefix("2001:db8:2::", 3600, 1800)});
  pair().pass(5 * kSecond, 100);
  EXPECT_FALSE(owns("2001:db8:2:0:"));
}

TEST_F(Autoconfiguration, WhatIsNotHeeded) {
  const std::vector<Bytes> good{prefix("2001:db8:3::", 3600, 1800)};
  send(advertisement(1800, good), kRouter, "ff02::1", 64);      // forwarded
  send(advertisement(1800, good), "2001:db8::9", "ff02::1");    // of no link
  send(advertisement(1800, good), kRouter, "ff02::1", 255, 1);  // a wrong sum
  Bytes coded = advertisement(1800, good);
  coded[1] = 1;
  send(coded, kRouter, "ff02::1");
  send(advertisement(1800, {good[0], Bytes{1, 0, 0, 0, 0, 0, 0, 0}}), kRouter, "ff02::1");  // an option without a length
  send(advertisement(1800, {good[0], Bytes{1, 9, 0, 0, 0, 0, 0, 0}}), kRouter, "ff02::1");  // and one that is longer than the packet
  EXPECT_FALSE(host().routes(ip6(kSomewhere)));
  advertise(0, {prefix("2001:db8:3::", 1800, 3600), prefix("2001:db8:3::", 3600, 1800, kOnLinkOnly),
                prefix("2001:db8:3::", 3600, 1800, kBoth, 48), prefix("2001:db8:3::", 0, 0), prefix("fe80::", 3600, 1800),
                prefix("ff02::", 3600, 1800)});
  pair().pass(2 * kSecond);
  EXPECT_FALSE(owns("2001:db8:3:0:"));
  advertise(1800, {prefix("2001:db8:3::", 3600, 1800, kAddressOnly)});
  advertise(1800, {}, "fe80::8");
  advertise(0, {}, "fe80::8");
  pair().pass(2 * kSecond);
  EXPECT_TRUE(owns("2001:db8:3:0:"));
  EXPECT_TRUE(host().routes(ip6(kSomewhere))) << "the first one's";
}

TEST_F(Autoconfiguration, LifetimesEnd) {
  advertise(60'000, {prefix("2001:db8:4::", 20'000, 15'000), prefix("2001:db8:5::", 20'000, 15'000)});
  pair().pass(2 * kSecond);
  EXPECT_TRUE(owns("2001:db8:4:0:") && owns("2001:db8:5:0:"));
  advertise(60'000, {prefix("2001:db8:4::", 1, 0)});  // not at once: two hours
  pair().pass(7000 * kSecond, 10 * kSecond);
  EXPECT_TRUE(owns("2001:db8:4:0:"));
  pair().pass(300 * kSecond, 10 * kSecond);
  EXPECT_FALSE(owns("2001:db8:4:0:"));
  EXPECT_TRUE(owns("2001:db8:5:0:"));
  EXPECT_TRUE(host().routes(ip6(kSomewhere)));
  pair().pass(13'000 * kSecond, 10 * kSecond);
  EXPECT_FALSE(owns("2001:db8:5:0:"));
  EXPECT_FALSE(host().routes(ip6(kSomewhere))) << "from nowhere";
}

}  // namespace
