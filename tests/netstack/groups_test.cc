// Groups between two stacks: who gets what, from whom, and what routers hear of it.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

using namespace netstack_test;
using netstack::GroupChange;

namespace {

constexpr const char* kNothing = "Resource temporarily unavailable";
using Kind = GroupChange::Kind;

class Groups : public UdpTest {
 protected:
  static long change(UdpEndpoint* at, Kind kind, const IpAddress& group, std::vector<IpAddress> sources = {}, bool exclude = false) {
    return at->change_group({kind, group, sources.data(), static_cast<int>(sources.size()), exclude});
  }
  UdpEndpoint* bound_to(Stack* on, const SocketAddress& at, netstack::PortSharing sharing = {true, false, 0}) {
    UdpEndpoint* made = open(on);
    EXPECT_EQ(0, made->bind({at, sharing}));
    return made;
  }
  // Frames of the server's that routers would hear, since the last look: from the message's first byte on.
  static std::vector<std::vector<uint8_t>> reports() {
    std::vector<std::vector<uint8_t>> found;
    for (const auto& frame : sent_) {
      const bool v4 = frame[12] == 8 && frame[23] == 2, v6 = frame[12] == 0x86 && frame[20] == 0;
      if (v4) found.emplace_back(frame.begin() + 14 + (frame[14] & 15) * 4, frame.end());
      if (v6) found.emplace_back(frame.begin() + 14 + 40 + 8, frame.end());
    }
    sent_.clear();
    return found;
  }
  void SetUp() override {
    UdpTest::SetUp();
    sent_.clear();
    pair_.server_wire().tap = [](const uint8_t* data, uint32_t length) { sent_.emplace_back(data, data + length); };
  }
  void TearDown() override {
    UdpTest::TearDown();
    pair_.server_wire().tap = nullptr;
  }
  static inline std::vector<std::vector<uint8_t>> sent_;
};

const IpAddress kGroup = IpAddress::v4(inet_addr("239.1.2.3"));

TEST_F(Groups, MembersGetWhatIsSentToThem) {
  for (const bool v4 : {true, false}) {
    const IpAddress group = v4 ? kGroup : ip6("ff15::1:2");
    const SocketAddress all = v4 ? address("0.0.0.0", 5000) : SocketAddress{IpAddress{}, htons(5000)};
    UdpEndpoint* member = bound_to(pair_.server, all);
    UdpEndpoint* another = bound_to(pair_.server, all);
    UdpEndpoint* of_the_group = bound_to(pair_.server, {group, htons(5000)});
    UdpEndpoint* sender = open(pair_.client);
    EXPECT_EQ(1, send_to(sender, {group, htons(5000)}, "0"));
    pair_.settle();
    EXPECT_EQ(kNothing, take(member)) << "nobody has joined";
    EXPECT_EQ(0, change(member, Kind::join, group));
    EXPECT_EQ(-EADDRINUSE, change(member, Kind::join, group));
    EXPECT_EQ(0, another->set_option(v4 ? UdpOption::multicast_all : UdpOption::multicast_all6, 0));
    EXPECT_EQ(1, send_to(sender, {group, htons(5000)}, "1"));
    pair_.settle();
    Datagram about;
    EXPECT_EQ("1", take(member, &about));
    EXPECT_EQ(group, about.to.address);
    EXPECT_EQ(1, about.ttl);
    EXPECT_EQ("1", take(of_the_group));
    EXPECT_EQ(kNothing, take(another)) << "of another's groups it wants nothing";
    EXPECT_EQ(0, change(member, Kind::leave, group));
    EXPECT_EQ(-EADDRNOTAVAIL, change(member, Kind::leave, group));
    EXPECT_EQ(1, send_to(sender, {group, htons(5000)}, "2"));
    pair_.settle();
    EXPECT_EQ(kNothing, take(member));
    for (UdpEndpoint* endpoint : {member, another, of_the_group, sender}) close(endpoint);
  }
}

TEST_F(Groups, Sources) {
  UdpEndpoint* member = bound_to(pair_.server, address("0.0.0.0", 5000));
  UdpEndpoint* sender = open(pair_.client);
  const IpAddress source = IpAddress::v4(inet_addr(kClientIp)), other = IpAddress::v4(inet_addr("198.18.0.9"));
  const auto comes = [&](bool expected) {
    EXPECT_EQ(1, send_to(sender, {kGroup, htons(5000)}, "x"));
    pair_.settle();
    EXPECT_EQ(expected ? "x" : kNothing, take(member));
  };
  EXPECT_EQ(-EINVAL, change(member, Kind::block, kGroup, {source}));
  EXPECT_EQ(0, change(member, Kind::join, kGroup));
  EXPECT_EQ(0, change(member, Kind::block, kGroup, {source}));
  EXPECT_EQ(-EADDRNOTAVAIL, change(member, Kind::block, kGroup, {source}));
  comes(false);
  EXPECT_EQ(-EINVAL, change(member, Kind::join_source, kGroup, {other})) << "it is of the other kind";
  EXPECT_EQ(0, change(member, Kind::unblock, kGroup, {source}));
  EXPECT_EQ(-EADDRNOTAVAIL, change(member, Kind::unblock, kGroup, {source}));
  comes(true);
  EXPECT_EQ(0, change(member, Kind::join_source, kGroup, {other})) << "which it may become while it names nobody";
  comes(false);
  EXPECT_EQ(0, change(member, Kind::join_source, kGroup, {source}));
  comes(true);
  EXPECT_EQ(0, change(member, Kind::leave_source, kGroup, {source}));
  comes(false);
  EXPECT_EQ(0, change(member, Kind::leave_source, kGroup, {other}));
  EXPECT_EQ(-EADDRNOTAVAIL, change(member, Kind::leave, kGroup)) << "the last one was the membership";
  EXPECT_EQ(0, change(member, Kind::join_source, kGroup, {source}));
  comes(true);
  EXPECT_EQ(0, change(member, Kind::set, kGroup, {source}, true));
  comes(false);
  EXPECT_EQ(0, change(member, Kind::set, kGroup, {}, false));
  EXPECT_EQ(-EINVAL, change(member, Kind::set, kGroup, {source}, true));
}

TEST_F(Groups, WhatComesBack) {
  UdpEndpoint* member = bound_to(pair_.server, address("0.0.0.0", 5000));
  EXPECT_EQ(0, change(member, Kind::join, kGroup));
  UdpEndpoint* there = bound_to(pair_.client, address("0.0.0.0", 5000));
  EXPECT_EQ(0, change(there, Kind::join, kGroup));
  EXPECT_EQ(1, send_to(member, {kGroup, htons(5000)}, "a"));
  pair_.settle();
  EXPECT_EQ("a", take(member));
  EXPECT_EQ("a", take(there));
  EXPECT_EQ(0, member->set_option(UdpOption::multicast_loop, 0));
  EXPECT_EQ(1, send_to(member, {kGroup, htons(5000)}, "b"));
  pair_.settle();
  EXPECT_EQ(kNothing, take(member));
  EXPECT_EQ("b", take(there));
  EXPECT_EQ(0, member->set_option(UdpOption::multicast_loop, 1));
  EXPECT_EQ(0, member->set_option(UdpOption::multicast_ttl, 0));
  EXPECT_EQ(1, send_to(member, {kGroup, htons(5000)}, "c"));
  pair_.settle();
  EXPECT_EQ("c", take(member));
  EXPECT_EQ(kNothing, take(there)) << "it does not leave the host";
}

TEST_F(Groups, WhatRoutersHear) {
  UdpEndpoint* member = bound_to(pair_.server, address("0.0.0.0", 5000));
  (void)reports();
  EXPECT_EQ(0, change(member, Kind::join, kGroup));
  auto heard = reports();
  ASSERT_EQ(1u, heard.size());
  EXPECT_EQ((std::vector<uint8_t>{0x22, 0}), std::vector<uint8_t>(heard[0].begin(), heard[0].begin() + 2));
  EXPECT_EQ((std::vector<uint8_t>{4, 0, 0, 0, 239, 1, 2, 3}), std::vector<uint8_t>(heard[0].begin() + 8, heard[0].begin() + 16));
  pair_.pass(1100, 50);
  EXPECT_EQ(1u, reports().size()) << "once more";
  pair_.pass(3000, 100);
  EXPECT_EQ(0u, reports().size());
  EXPECT_EQ(0, change(member, Kind::leave, kGroup));
  heard = reports();
  ASSERT_EQ(1u, heard.size());
  EXPECT_EQ(3, heard[0][8]);
  pair_.pass(1100, 50);
  EXPECT_EQ(1u, reports().size());
  EXPECT_EQ(0, change(member, Kind::join, ip6("ff15::9")));
  heard = reports();
  ASSERT_EQ(1u, heard.size());
  EXPECT_EQ(143, heard[0][0]);
  EXPECT_EQ(4, heard[0][8]);
  EXPECT_EQ(9, heard[0][8 + 4 + 15]);
}

// A query as a router sends it.
TEST_F(Groups, QueriesAreAnswered) {
  UdpEndpoint* member = bound_to(pair_.server, address("0.0.0.0", 5000));
  EXPECT_EQ(0, change(member, Kind::join_source, kGroup, {IpAddress::v4(inet_addr("198.18.0.7"))}));
  pair_.pass(1100, 50);
  (void)reports();
  const auto query = [&](std::vector<uint8_t> message) {
    const uint16_t sum = sum_of(message.data(), message.size(), 0);
    message[2] = static_cast<uint8_t>(sum >> 8), message[3] = static_cast<uint8_t>(sum);
    std::vector<uint8_t> frame{1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0};
    const std::vector<uint8_t> ends{198, 18, 0, 1, 224, 0, 0, 1};
    frame.insert(frame.end(), ends.begin(), ends.end());
    frame.insert(frame.end(), message.begin(), message.end());
    frame[17] = static_cast<uint8_t>(20 + message.size());
    const uint16_t ip_sum = sum_of(frame.data() + 14, 20, 0);
    frame[24] = static_cast<uint8_t>(ip_sum >> 8), frame[25] = static_cast<uint8_t>(ip_sum);
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair_.settle();
  };
  query({0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0});
  EXPECT_EQ(0u, reports().size()) << "not at once";
  pair_.pass(1000, 20);
  auto heard = reports();
  ASSERT_EQ(1u, heard.size());
  const std::vector<uint8_t> record{1, 0, 0, 1, 239, 1, 2, 3, 198, 18, 0, 7};
  EXPECT_EQ(record, std::vector<uint8_t>(heard[0].begin() + 8, heard[0].begin() + 20));
  query({0x11, 10, 0, 0, 239, 9, 9, 9, 2, 125, 0, 0});
  pair_.pass(1000, 20);
  EXPECT_EQ(0u, reports().size()) << "about another group";
  query({0x11, 10, 0, 0, 239, 1, 2, 3});
  pair_.pass(1000, 20);
  heard = reports();
  ASSERT_EQ(1u, heard.size());
  EXPECT_EQ(0x16, heard[0][0]) << "a router of IGMPv2 gets what it understands";
  EXPECT_EQ(0, change(member, Kind::leave, kGroup));
  heard = reports();
  ASSERT_EQ(1u, heard.size());
  EXPECT_EQ(0x17, heard[0][0]);
  pair_.pass(410'000, 1000);
  (void)reports();
  EXPECT_EQ(0, change(member, Kind::join, kGroup));
  EXPECT_EQ(0x22, reports().at(0)[0]) << "which has not been heard of for long";
}

TEST_F(Groups, OutliveADeadMember) {
  UdpEndpoint* member = bound_to(pair_.server, address("0.0.0.0", 5000));
  UdpEndpoint* gone = bound_to(pair_.server, address("0.0.0.0", 5000));
  UdpEndpoint* sender = open(pair_.client);
  const IpAddress other = IpAddress::v4(inet_addr("239.7.7.7"));
  EXPECT_EQ(0, change(member, Kind::join, kGroup));
  EXPECT_EQ(0, change(gone, Kind::join, other));
  pair_.server->forget_holders();
  EXPECT_TRUE(pair_.server->hold(member));
  pair_.server->recover();
  std::erase(opened_, gone);
  pair_.settle();
  (void)reports();
  EXPECT_EQ(1, send_to(sender, {kGroup, htons(5000)}, "x"));
  EXPECT_EQ(1, send_to(sender, {other, htons(5000)}, "y"));
  pair_.settle();
  EXPECT_EQ("x", take(member));
  EXPECT_EQ(kNothing, take(member)) << "what only the dead had joined";
  EXPECT_EQ(0, change(member, Kind::leave, kGroup));
  EXPECT_EQ(0, change(member, Kind::join, other));
}

}  // namespace
