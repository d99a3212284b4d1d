// Datagram sockets of IPv6 that serve IPv4 as well: names are v4-mapped, both sides, and what is told.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/lib/datagrams.h"

using namespace testing_lib;

namespace {

class UdpFamilies : public DatagramTest {
 protected:
  static sockaddr_in6 mapped(const sockaddr_in& address) {
    sockaddr_in6 made{};
    made.sin6_family = AF_INET6;
    made.sin6_port = address.sin_port;
    made.sin6_addr.s6_addr[10] = made.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&made.sin6_addr.s6_addr[12], &address.sin_addr, 4);
    return made;
  }
  static bool same(const sockaddr_in6& a, const sockaddr_in6& b) {
    return a.sin6_family == AF_INET6 && a.sin6_port == b.sin6_port && memcmp(&a.sin6_addr, &b.sin6_addr, sizeof a.sin6_addr) == 0;
  }
  int open6() {
    const int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    EXPECT_GE(fd, 0) << strerror(errno);
    fds_.push_back(fd);
    return fd;
  }
  static sockaddr_in6 name6(int fd, int (*ask)(int, sockaddr*, socklen_t*) = getsockname) {
    sockaddr_in6 name{};
    socklen_t bytes = sizeof name;
    if (ask(fd, reinterpret_cast<sockaddr*>(&name), &bytes) != 0) name = {};
    return name;
  }
  static std::string take6(int fd, sockaddr_in6* from) {
    char buffer[2048];
    socklen_t bytes = sizeof *from;
    EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
    const ssize_t count = recvfrom(fd, buffer, sizeof buffer, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(from), &bytes);
    EXPECT_EQ(bytes, sizeof *from);
    return count < 0 ? strerror(errno) : std::string(buffer, static_cast<size_t>(count));
  }
  void TearDown() override {
    for (int fd : fds_) close(fd);
    DatagramTest::TearDown();
  }
  std::vector<int> fds_;
};

TEST_F(UdpFamilies, AServerOfBoth) {
  const int fd = open6();
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
  const uint16_t port_be = name6(fd).sin6_port;
  EXPECT_NE(port_be, 0);
  sockaddr_in6 from{};
  peer.send_to(theirs, self_address(port_be), "four");
  EXPECT_EQ(take6(fd, &from), "four");
  EXPECT_TRUE(same(from, mapped(there)));
  EXPECT_EQ(sendto(fd, "back", 4, 0, reinterpret_cast<sockaddr*>(&from), sizeof from), 4) << strerror(errno);
  const Reply reply = peer.recv_from(theirs);
  EXPECT_EQ(reply.payload, "back");
  EXPECT_EQ(to_text(reply.name), to_text(self_address(port_be)));
  const int near = open6();
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_port = port_be;
  loopback.sin6_addr = in6addr_loopback;
  EXPECT_EQ(sendto(near, "six", 3, 0, reinterpret_cast<sockaddr*>(&loopback), sizeof loopback), 3) << strerror(errno);
  EXPECT_EQ(take6(fd, &from), "six");
  EXPECT_EQ(memcmp(&from.sin6_addr, &in6addr_loopback, sizeof from.sin6_addr), 0);
  const int four = open();
  EXPECT_EQ(bind_to(four, ipv4("0.0.0.0", port_be)), -1);
  EXPECT_EQ(errno, EADDRINUSE);
}

TEST_F(UdpFamilies, Connected) {
  const int fd = open6();
  const sockaddr_in6 to = mapped(there);
  ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0) << strerror(errno);
  EXPECT_TRUE(same(name6(fd), mapped(self_address(name6(fd).sin6_port))));
  EXPECT_TRUE(same(name6(fd, getpeername), to));
  EXPECT_EQ(send(fd, "hello", 5, 0), 5);
  const Reply hello = peer.recv_from(theirs);
  EXPECT_EQ(hello.payload, "hello");
  peer.send_to(theirs, hello.name, "yes");
  sockaddr_in6 from{};
  EXPECT_EQ(take6(fd, &from), "yes");
  EXPECT_TRUE(same(from, to));
}

TEST_F(UdpFamilies, OnlyItsOwn) {
  const int fd = open6();
  EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  const sockaddr_in6 to = mapped(there);
  EXPECT_EQ(sendto(fd, "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), -1);
  EXPECT_EQ(errno, ENETUNREACH);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), -1);
  EXPECT_EQ(errno, ENETUNREACH);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(5358);
  const int six = open6();
  EXPECT_EQ(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  ASSERT_EQ(bind(six, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
  const int four = open();
  EXPECT_EQ(bind_to(four, ipv4("0.0.0.0", htons(5358))), 0) << strerror(errno);
  peer.send_to(theirs, self_address(htons(5358)), "four");
  EXPECT_EQ(wait_and_take(four), "four");
}

TEST_F(UdpFamilies, WhatIsTold) {
  const int fd = open6();
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1), 0);
  peer.send_to(theirs, self_address(name6(fd).sin6_port), "x");
  EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
  char buffer[16];
  alignas(cmsghdr) char control[256];
  iovec part{buffer, sizeof buffer};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  EXPECT_EQ(recvmsg(fd, &message, 0), 1);
  const cmsghdr* const head = CMSG_FIRSTHDR(&message);
  ASSERT_NE(head, nullptr);
  EXPECT_EQ(head->cmsg_level, IPPROTO_IPV6);
  EXPECT_EQ(head->cmsg_type, IPV6_PKTINFO);
  in6_pktinfo info;
  ASSERT_EQ(head->cmsg_len, CMSG_LEN(sizeof info));
  memcpy(&info, CMSG_DATA(head), sizeof info);
  const sockaddr_in6 own = mapped(self_address());
  EXPECT_EQ(memcmp(&info.ipi6_addr, &own.sin6_addr, sizeof info.ipi6_addr), 0);
  EXPECT_GT(info.ipi6_ifindex, 0u);
}

// 255.255.255.255 names no interface: the socket's own address does.
TEST_F(UdpFamilies, ToAllOfTheLink) {
  const int fd = open(), connected = open();
  const sockaddr_in all = ipv4("255.255.255.255", there.sin_port);
  for (const int each : {fd, connected}) ASSERT_EQ(bind_to(each, self_address(0)), 0) << strerror(errno);
  EXPECT_EQ(send_to(fd, all, "x"), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(connect_to(connected, all), -1);
  EXPECT_EQ(errno, EACCES);
  for (const int each : {fd, connected}) EXPECT_EQ(set(each, SOL_SOCKET, SO_BROADCAST, 1), 0);
  EXPECT_EQ(send_to(fd, all, "all"), 3) << strerror(errno);
  Reply got = peer.recv_from(theirs);
  EXPECT_EQ(got.payload, "all");
  EXPECT_EQ(to_text(got.name), to_text(name_of(fd)));
  EXPECT_EQ(connect_to(connected, all), 0) << strerror(errno);
  EXPECT_EQ(send(connected, "more", 4, 0), 4) << strerror(errno);
  got = peer.recv_from(theirs);
  EXPECT_EQ(got.payload, "more");
  EXPECT_EQ(to_text(got.name), to_text(name_of(connected)));
}

}  // namespace
