// Datagrams to groups: who has joined gets them, from whom he wants them, and what is sent goes where it is to go.
// SPDX-License-Identifier: BSD-3-Clause
#include <poll.h>

#include "tests/lib/datagram_messages.h"
#include "tests/lib/groups.h"

using namespace testing_lib;

namespace {

const std::string kNothing = strerror(EAGAIN);
constexpr uint16_t kPort = 5420;

class UdpGroups : public DatagramTest {
 protected:
  void SetUp() override {
    DatagramTest::SetUp();
    group = ipv4("239.1.2.3", htons(kPort));
    (void)sending();  // there is no link before there is a stack
    sender = peer.socket_of(SOCK_DGRAM);  // IPv6 goes by the address that it has
    EXPECT_EQ(peer.call(PeerOp::bind, sender, peer_address().sin_addr.s_addr, 0).result, 0);
    EXPECT_EQ(peer.call(PeerOp::group_interface, sender).result, 0);
    wait_for_the_link();
  }
  // An interface of the kernel's that is new has no route for groups of IPv6 yet.
  void wait_for_the_link() {
    const int probe = joined(), out = sending();
    const uint64_t begin = now_ms();
    for (int i = 0; now_ms() - begin < 10'000; i++) {
      const std::string text = "probe " + std::to_string(i);
      peer.send_to(sender, group, text);
      bool came = false;
      while (!came && wait_for(probe, POLLIN, 50) == POLLIN) came = take(probe, nullptr, MSG_DONTWAIT) == text;
      if (came && send_to(out, ipv4("239.1.2.3", htons(9)), "x") == 1) break;
    }
    close_opened();
  }
  int at_port(const sockaddr_in& at) {
    const int fd = open();
    EXPECT_EQ(set(fd, SOL_SOCKET, SO_REUSEADDR, 1), 0);
    EXPECT_EQ(bind_to(fd, at), 0) << strerror(errno);
    return fd;
  }
  int joined() {
    const int fd = at_port(ipv4("0.0.0.0", htons(kPort)));
    EXPECT_EQ(change_membership(fd, group, true), 0) << strerror(errno);
    return fd;
  }
  int sending() {
    const int fd = open();
    EXPECT_EQ(bind_to(fd, self_address(0)), 0) << strerror(errno);
    EXPECT_EQ(send_by_interface(fd), 0) << strerror(errno);
    return fd;
  }
  // What has come before this was sent to the port alone.
  std::string before_the_end(int fd) {
    peer.send_to(theirs, self_address(htons(kPort)), "end");
    const std::string first = wait_and_take(fd);
    return first == "end" ? kNothing : first;
  }
  int source_option(int fd, int name, const sockaddr_in& source) {
    group_source_req request{};
    request.gsr_interface = interface_to_the_other();
    const Name g = in_family(group), s = in_family(source);
    memcpy(&request.gsr_group, &g.address, g.bytes);
    memcpy(&request.gsr_source, &s.address, s.bytes);
    return setsockopt(fd, family() == Family::ip6 ? IPPROTO_IPV6 : IPPROTO_IP, name, &request, sizeof request);
  }
  sockaddr_in group{};
  int sender = -1;
};

TEST_F(UdpGroups, WhoHasJoinedGetsThem) {
  const int fd = joined();
  EXPECT_EQ(peer.send_to(sender, group, "to all").result, 6);
  sockaddr_in from{};
  EXPECT_EQ(wait_and_take(fd, &from), "to all");
  EXPECT_EQ(from.sin_addr.s_addr, peer_address().sin_addr.s_addr);
  EXPECT_EQ(change_membership(fd, group, false), 0);
  EXPECT_EQ(peer.send_to(sender, group, "late").result, 4);
  EXPECT_EQ(before_the_end(fd), kNothing);
}

TEST_F(UdpGroups, JoinedBeforeThereIsAPort) {
  const int fd = open();
  EXPECT_EQ(change_membership(fd, group, true), 0) << strerror(errno);
  ASSERT_EQ(bind_to(fd, ipv4("0.0.0.0", htons(kPort))), 0) << strerror(errno);
  EXPECT_EQ(peer.send_to(sender, group, "x").result, 1);
  EXPECT_EQ(wait_and_take(fd), "x");
}

TEST_F(UdpGroups, BoundToTheGroup) {
  const int fd = at_port(group), other = at_port(ipv4("0.0.0.0", htons(kPort)));
  EXPECT_EQ(to_text(name_of(fd)), to_text(group));
  EXPECT_EQ(change_membership(fd, group, true), 0) << strerror(errno);
  peer.send_to(theirs, self_address(htons(kPort)), "to one");
  EXPECT_EQ(wait_and_take(other), "to one");
  EXPECT_EQ(peer.send_to(sender, group, "to all").result, 6);
  EXPECT_EQ(wait_and_take(fd), "to all");
  EXPECT_EQ(wait_and_take(other), "to all") << "of a group that somebody here has joined";
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
}

TEST_F(UdpGroups, WhatIsSent) {
  const int theirs_too = peer.socket_of(SOCK_DGRAM);
  EXPECT_EQ(peer.call(PeerOp::set_option, theirs_too, SOL_SOCKET, SO_REUSEADDR, 1).result, 0) << "where both are on one host";
  EXPECT_EQ(peer.call(PeerOp::bind, theirs_too, INADDR_ANY, htons(kPort)).result, 0);
  EXPECT_EQ(peer.call(PeerOp::join_group, theirs_too, group.sin_addr.s_addr).result, 0);
  const int fd = sending(), member = joined();
  EXPECT_EQ(send_to(fd, group, "a"), 1) << strerror(errno);
  const Reply got = peer.recv_from(theirs_too);
  EXPECT_EQ(got.payload, "a");
  EXPECT_EQ(got.name.sin_addr.s_addr, self_address().sin_addr.s_addr);
  EXPECT_EQ(wait_and_take(member), "a") << "and back";
  const bool ip6 = family() == Family::ip6;
  EXPECT_EQ(set(fd, ip6 ? IPPROTO_IPV6 : IPPROTO_IP, ip6 ? IPV6_MULTICAST_LOOP : IP_MULTICAST_LOOP, 0), 0);
  EXPECT_EQ(send_to(fd, group, "b"), 1);
  EXPECT_EQ(peer.recv_from(theirs_too).payload, "b");
  EXPECT_EQ(before_the_end(member), kNothing);
  EXPECT_EQ(connect_to(fd, group), 0) << strerror(errno);
  EXPECT_EQ(send(fd, "c", 1, 0), 1);
  EXPECT_EQ(peer.recv_from(theirs_too).payload, "c");
}

TEST_F(UdpGroups, HowFar) {
  const int fd = sending(), member = joined();
  const bool ip6 = family() == Family::ip6;
  const int level = ip6 ? IPPROTO_IPV6 : IPPROTO_IP, ttl = ip6 ? IPV6_MULTICAST_HOPS : IP_MULTICAST_TTL;
  EXPECT_EQ(set(member, level, ip6 ? IPV6_RECVHOPLIMIT : IP_RECVTTL, 1), 0);
  const auto arrives_with = [&] {
    EXPECT_EQ(send_to(fd, group, "x"), 1);
    EXPECT_EQ(wait_for(member, POLLIN), POLLIN);
    return receive(member, MSG_DONTWAIT).number(level, ip6 ? IPV6_HOPLIMIT : IP_TTL);
  };
  EXPECT_EQ(arrives_with(), 1);
  EXPECT_EQ(set(fd, level, ttl, 7), 0);
  EXPECT_EQ(arrives_with(), 7);
}

TEST_F(UdpGroups, Sources) {
  const int fd = joined();
  const sockaddr_in other = ipv4("198.18.0.99", 0);
  const auto comes = [&] {
    EXPECT_EQ(peer.send_to(sender, group, "x").result, 1);
    const std::string first = before_the_end(fd);
    if (first == "x") {
      EXPECT_EQ(wait_and_take(fd), "end");
    }
    return first == "x";
  };
  EXPECT_TRUE(comes());
  EXPECT_EQ(source_option(fd, MCAST_BLOCK_SOURCE, peer_address()), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  EXPECT_EQ(source_option(fd, MCAST_BLOCK_SOURCE, peer_address()), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
  EXPECT_EQ(source_option(fd, MCAST_UNBLOCK_SOURCE, peer_address()), 0);
  EXPECT_TRUE(comes());
  EXPECT_EQ(source_option(fd, MCAST_UNBLOCK_SOURCE, other), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
  EXPECT_EQ(change_membership(fd, group, false), 0);
  EXPECT_EQ(source_option(fd, MCAST_BLOCK_SOURCE, other), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(source_option(fd, MCAST_JOIN_SOURCE_GROUP, other), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  EXPECT_EQ(source_option(fd, MCAST_JOIN_SOURCE_GROUP, peer_address()), 0) << strerror(errno);
  EXPECT_TRUE(comes());
  EXPECT_EQ(source_option(fd, MCAST_LEAVE_SOURCE_GROUP, other), 0);
  EXPECT_EQ(source_option(fd, MCAST_LEAVE_SOURCE_GROUP, peer_address()), 0);
  EXPECT_EQ(change_membership(fd, group, false), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
}

// The same said in the other forms that there are.
TEST_F(UdpGroups, OtherForms) {
  const int fd = at_port(ipv4("0.0.0.0", htons(kPort)));
  const auto comes = [&] {
    EXPECT_EQ(peer.send_to(sender, group, "x").result, 1);
    const std::string first = before_the_end(fd);
    if (first == "x") {
      EXPECT_EQ(wait_and_take(fd), "end");
    }
    return first == "x";
  };
  const int level = family() == Family::ip6 ? IPPROTO_IPV6 : IPPROTO_IP;
  group_req request{};
  const Name g = in_family(group), s = in_family(peer_address());
  request.gr_interface = interface_to_the_other();
  memcpy(&request.gr_group, &g.address, g.bytes);
  EXPECT_EQ(setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof request), 0) << strerror(errno);
  EXPECT_TRUE(comes());
  group_filter filter{};
  filter.gf_interface = request.gr_interface;
  filter.gf_group = request.gr_group;
  filter.gf_fmode = MCAST_EXCLUDE;
  filter.gf_numsrc = 1;
  memcpy(&filter.gf_slist[0], &s.address, s.bytes);
  EXPECT_EQ(setsockopt(fd, level, MCAST_MSFILTER, &filter, GROUP_FILTER_SIZE(1)), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  filter.gf_fmode = MCAST_INCLUDE;
  EXPECT_EQ(setsockopt(fd, level, MCAST_MSFILTER, &filter, GROUP_FILTER_SIZE(1)), 0) << strerror(errno);
  EXPECT_TRUE(comes());
  EXPECT_EQ(setsockopt(fd, level, MCAST_LEAVE_GROUP, &request, sizeof request), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  if (family() == Family::ip6) return;
  ip_mreq_source one{group.sin_addr, own_address(), peer_address().sin_addr};
  EXPECT_EQ(setsockopt(fd, IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, &one, sizeof one), 0) << strerror(errno);
  EXPECT_TRUE(comes());
  EXPECT_EQ(setsockopt(fd, IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, &one, sizeof one), 0) << strerror(errno);
  const ip_mreqn longer{group.sin_addr, own_address(), 0};
  EXPECT_EQ(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &longer, sizeof longer), 0) << strerror(errno);
  EXPECT_EQ(setsockopt(fd, IPPROTO_IP, IP_BLOCK_SOURCE, &one, sizeof one), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  EXPECT_EQ(setsockopt(fd, IPPROTO_IP, IP_UNBLOCK_SOURCE, &one, sizeof one), 0) << strerror(errno);
  EXPECT_EQ(setipv4sourcefilter(fd, own_address(), group.sin_addr, MCAST_EXCLUDE, 1, &one.imr_sourceaddr), 0) << strerror(errno);
  EXPECT_FALSE(comes());
  EXPECT_EQ(setipv4sourcefilter(fd, own_address(), group.sin_addr, MCAST_INCLUDE, 0, nullptr), 0) << strerror(errno);
  EXPECT_EQ(change_membership(fd, group, false), -1) << "nobody's is no membership";
  EXPECT_EQ(errno, EADDRNOTAVAIL);
}

// The filter that MCAST_MSFILTER tells: mode, how many sources, and how many of them fitted. Or an error.
TEST_F(UdpGroups, WhatAMembershipTells) {
  const int fd = joined(), level = family() == Family::ip6 ? IPPROTO_IPV6 : IPPROTO_IP;
  const sockaddr_in other = ipv4("198.18.0.99", 0);
  group_filter filter{};
  filter.gf_interface = interface_to_the_other();
  const auto told = [&](const sockaddr_in& of, socklen_t room, uint32_t sources) {
    const Name name = in_family(of);
    memset(&filter.gf_slist, 0, sizeof filter.gf_slist);
    memcpy(&filter.gf_group, &name.address, name.bytes);
    filter.gf_numsrc = sources;
    const int error = getsockopt(fd, level, MCAST_MSFILTER, &filter, &room) == 0 ? 0 : errno;
    const Name source = in_family(other);
    const bool is_other = memcmp(&filter.gf_slist[0], &source.address, source.bytes) == 0;
    return std::to_string(error) + " " + std::to_string(filter.gf_fmode) + " " + std::to_string(filter.gf_numsrc) + " " +
           std::to_string(room) + (is_other ? " other" : "");
  };
  const std::string bytes0 = " " + std::to_string(GROUP_FILTER_SIZE(0)), bytes1 = " " + std::to_string(GROUP_FILTER_SIZE(1));
  EXPECT_EQ(told(group, sizeof filter, 1), "0 0 0" + bytes0);
  EXPECT_EQ(source_option(fd, MCAST_BLOCK_SOURCE, other), 0);
  EXPECT_EQ(told(group, sizeof filter, 1), "0 0 1" + bytes1 + " other");
  EXPECT_EQ(source_option(fd, MCAST_BLOCK_SOURCE, peer_address()), 0);
  EXPECT_EQ(told(group, sizeof filter, 1), "0 0 2" + bytes1 + " other") << "more than there is room for";
  EXPECT_EQ(told(group, sizeof filter, 0), "0 0 2" + bytes0);
  EXPECT_EQ(told(group, GROUP_FILTER_SIZE(0) - 1, 1).substr(0, 2), std::to_string(EINVAL)) << "too short";
  EXPECT_EQ(told(peer_address(), sizeof filter, 1).substr(0, 2), std::to_string(EINVAL)) << "no group";
  EXPECT_EQ(change_membership(fd, group, false), 0);
  EXPECT_EQ(told(group, sizeof filter, 1).substr(0, 2), std::to_string(EADDRNOTAVAIL)) << "not joined";
  EXPECT_EQ(source_option(fd, MCAST_JOIN_SOURCE_GROUP, other), 0);
  EXPECT_EQ(told(group, sizeof filter, 1), "0 1 1" + bytes1 + " other");
  if (family() == Family::ip6) return;
  in_addr sources[4];
  uint32_t mode = 9, count = 4;
  EXPECT_EQ(getipv4sourcefilter(fd, own_address(), group.sin_addr, &mode, &count, sources), 0) << strerror(errno);
  EXPECT_EQ(mode, uint32_t{MCAST_INCLUDE});
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(sources[0].s_addr, other.sin_addr.s_addr);
  EXPECT_EQ(getipv4sourcefilter(fd, own_address(), ipv4("239.1.2.99", 0).sin_addr, &mode, &count, sources), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
}

TEST_F(UdpGroups, WhatCannotBeJoined) {
  const int fd = joined();
  EXPECT_EQ(change_membership(fd, group, true), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  EXPECT_EQ(change_membership(fd, peer_address(), true), -1);
  EXPECT_EQ(errno, EINVAL);
  const int another = open();
  EXPECT_EQ(change_membership(another, group, false), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
}

}  // namespace
