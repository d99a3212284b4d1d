// Datagram sockets of IPv6: what control messages and options say, over IPv6 and over IPv4 in the same socket.
// SPDX-License-Identifier: BSD-3-Clause
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <set>

#include "tests/lib/datagram_messages.h"

using namespace testing_lib;

namespace {

// The tests name IPv4 addresses, and the run's family makes IPv6's of them; what is said "as IPv4" goes by that in sockets of IPv6.
class Udp6 : public DatagramTest {
 protected:
  static sockaddr_in6 v6(const sockaddr_in& name) { return in_family(name).address; }
  static sockaddr_in6 as_v4(const sockaddr_in& name) { return mapped(name).address; }
  static bool same(const in6_addr& a, const in6_addr& b) { return memcmp(&a, &b, sizeof a) == 0; }
  static ssize_t send6(int fd, const sockaddr_in6& to, const char* text) {
    return sendto(fd, text, strlen(text), 0, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  static int connect6(int fd, const sockaddr_in6& to) { return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to); }
  static int bind6(int fd, const sockaddr_in6& to) { return bind(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to); }
  static Received wait_and_receive(int fd) {
    EXPECT_EQ(wait_for(fd, POLLIN), POLLIN);
    return receive(fd, MSG_DONTWAIT);
  }
};

TEST_F(Udp6, WhatIsToldOfADatagram) {
  sockaddr_in here{};
  const int fd = bound(&here);
  for (const int name : {IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVORIGDSTADDR})
    EXPECT_EQ(set(fd, IPPROTO_IPV6, name, 1), 0);
  EXPECT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 77).result, 0);
  EXPECT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IPV6, IPV6_TCLASS, 0x48).result, 0);
  peer.send_to(theirs, here, "much");
  const Received got = wait_and_receive(fd);
  EXPECT_EQ(got.text, "much");
  EXPECT_EQ(got.flags, 0);
  EXPECT_EQ(got.from.sin6_family, AF_INET6);
  EXPECT_TRUE(same(got.from.sin6_addr, v6(there).sin6_addr));
  EXPECT_EQ(got.from.sin6_scope_id, 0u);
  EXPECT_EQ(got.number(IPPROTO_IPV6, IPV6_HOPLIMIT), 77);
  EXPECT_EQ(got.number(IPPROTO_IPV6, IPV6_TCLASS), 0x48);
  EXPECT_EQ(got.control.at({IPPROTO_IPV6, IPV6_TCLASS}).size(), sizeof(int));
  const auto info = got.as<in6_pktinfo>(IPPROTO_IPV6, IPV6_PKTINFO);
  EXPECT_TRUE(same(info.ipi6_addr, v6(here).sin6_addr));
  EXPECT_GT(info.ipi6_ifindex, 0u);
  const auto original = got.as<sockaddr_in6>(IPPROTO_IPV6, IPV6_ORIGDSTADDR);
  EXPECT_TRUE(same(original.sin6_addr, v6(here).sin6_addr));
  EXPECT_EQ(original.sin6_port, here.sin_port);
  EXPECT_EQ(got.control.size(), 4u);
}

TEST_F(Udp6, WhatIsToldOfOneOfIp4) {
  sockaddr_in here{};
  const int fd = bound(&here), near = socket(AF_INET, SOCK_DGRAM, 0);
  for (const int name : {IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS}) EXPECT_EQ(set(fd, IPPROTO_IPV6, name, 1), 0);
  for (const int name : {IP_RECVTTL, IP_RECVTOS}) EXPECT_EQ(set(fd, IPPROTO_IP, name, 1), 0);
  EXPECT_EQ(set(near, IPPROTO_IP, IP_TTL, 33), 0);
  EXPECT_EQ(set(near, IPPROTO_IP, IP_TOS, 0x10), 0);
  EXPECT_EQ(sendto(near, "four", 4, 0, reinterpret_cast<const sockaddr*>(&here), sizeof here), 4) << strerror(errno);
  const Received got = wait_and_receive(fd);
  EXPECT_EQ(got.text, "four");
  EXPECT_TRUE(same(got.from.sin6_addr, as_v4(here).sin6_addr));
  EXPECT_TRUE(same(got.as<in6_pktinfo>(IPPROTO_IPV6, IPV6_PKTINFO).ipi6_addr, as_v4(here).sin6_addr));
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TTL), 33);
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TOS), 0x10);
  EXPECT_FALSE(got.has(IPPROTO_IPV6, IPV6_HOPLIMIT));
  EXPECT_FALSE(got.has(IPPROTO_IPV6, IPV6_TCLASS));
  close(near);
}

TEST_F(Udp6, OptionsOfBothFamilies) {
  sockaddr_in here{};
  const int fd = bound(&here), from = open();
  for (const int name : {IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS}) EXPECT_EQ(set(fd, IPPROTO_IPV6, name, 1), 0);
  for (const int name : {IP_RECVTTL, IP_RECVTOS}) EXPECT_EQ(set(fd, IPPROTO_IP, name, 1), 0);
  EXPECT_EQ(send6(from, v6(here), "first"), 5);
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IPV6, IPV6_HOPLIMIT), 64);
  EXPECT_EQ(set(from, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9), 0);
  EXPECT_EQ(set(from, IPPROTO_IPV6, IPV6_TCLASS, 0x28), 0);
  EXPECT_EQ(set(from, IPPROTO_IP, IP_TTL, 11), 0);
  EXPECT_EQ(set(from, IPPROTO_IP, IP_TOS, 0x44), 0);
  EXPECT_EQ(send6(from, v6(here), "six"), 3);
  Received got = wait_and_receive(fd);
  EXPECT_EQ(got.number(IPPROTO_IPV6, IPV6_HOPLIMIT), 9);
  EXPECT_EQ(got.number(IPPROTO_IPV6, IPV6_TCLASS), 0x28);
  EXPECT_EQ(send6(from, as_v4(here), "four"), 4) << strerror(errno);
  got = wait_and_receive(fd);
  EXPECT_EQ(got.text, "four");
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TTL), 11);
  EXPECT_EQ(got.number(IPPROTO_IP, IP_TOS), 0x44);
  EXPECT_EQ(set(from, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1), 0) << "the default again";
  EXPECT_EQ(send6(from, v6(here), "six"), 3);
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IPV6, IPV6_HOPLIMIT), 64);
}

TEST_F(Udp6, ControlOfADatagramSent) {
  sockaddr_in here{};
  const int fd = bound(&here), from = open();
  for (const int name : {IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVPKTINFO}) EXPECT_EQ(set(fd, IPPROTO_IPV6, name, 1), 0);
  EXPECT_EQ(send_with(from, here, IPPROTO_IPV6, IPV6_HOPLIMIT, bytes_of(5)), 1) << strerror(errno);
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IPV6, IPV6_HOPLIMIT), 5);
  EXPECT_EQ(send_with(from, here, IPPROTO_IPV6, IPV6_HOPLIMIT, bytes_of(-1)), 1) << "the default";
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IPV6, IPV6_HOPLIMIT), 64);
  EXPECT_EQ(send_with(from, here, IPPROTO_IPV6, IPV6_TCLASS, bytes_of(0x90)), 1);
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IPV6, IPV6_TCLASS), 0x90);
  in6_pktinfo own{};
  EXPECT_EQ(send_with(from, here, IPPROTO_IPV6, IPV6_PKTINFO, bytes_of(own)), 1);
  EXPECT_EQ(wait_and_receive(fd).text, "x");
  own.ipi6_addr = v6(here).sin6_addr;
  EXPECT_EQ(send_with(from, here, IPPROTO_IPV6, IPV6_PKTINFO, bytes_of(own)), 1);
  const Received got = wait_and_receive(fd);
  EXPECT_TRUE(same(got.from.sin6_addr, own.ipi6_addr));
  own = got.as<in6_pktinfo>(IPPROTO_IPV6, IPV6_PKTINFO);
  EXPECT_EQ(send_with(from, there, IPPROTO_IPV6, IPV6_DONTFRAG, bytes_of(1)), 1);
  EXPECT_EQ(send_with(from, there, IPPROTO_IP, IP_TTL, bytes_of(1)), 1) << "of another level: ignored";
  for (int i = 0; i < 2; i++) EXPECT_EQ(peer.recv_from(theirs).payload, "x");
  own.ipi6_addr = v6(there).sin6_addr;
  const struct {
    int type;
    std::string data;
  } wrong[] = {{IPV6_HOPLIMIT, bytes_of(256)}, {IPV6_HOPLIMIT, bytes_of(-2)},  {IPV6_HOPLIMIT, "ab"}, {IPV6_TCLASS, bytes_of(256)},
               {IPV6_TCLASS, "a"},             {IPV6_PKTINFO, bytes_of(own)},  {IPV6_PKTINFO, "abc"}, {99, bytes_of(1)},
               {IPV6_DONTFRAG, bytes_of(2)}};
  for (const auto& [type, data] : wrong) {
    EXPECT_EQ(send_with(from, there, IPPROTO_IPV6, type, data), -1) << type << " " << data.size();
    EXPECT_EQ(errno, EINVAL) << type << " " << data.size();
  }
  EXPECT_EQ(peer.recv(theirs, 1, MSG_DONTWAIT).error, EAGAIN) << "nothing was sent";
}

TEST_F(Udp6, ControlOfOneOfIp4) {
  sockaddr_in here{};
  const int fd = bound(&here), from = open();
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_RECVTTL, 1), 0);
  const sockaddr_in6 to = as_v4(here);
  EXPECT_EQ(send_message(from, to, IPPROTO_IP, IP_TTL, bytes_of(5), "x"), 1) << strerror(errno);
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IP, IP_TTL), 5);
  EXPECT_EQ(send_message(from, to, IPPROTO_IPV6, IPV6_HOPLIMIT, bytes_of(5), "x"), 1) << "of another family: ignored";
  EXPECT_EQ(wait_and_receive(fd).number(IPPROTO_IP, IP_TTL), 64);
  in6_pktinfo own{};
  own.ipi6_addr = to.sin6_addr;
  EXPECT_EQ(send_message(from, to, IPPROTO_IPV6, IPV6_PKTINFO, bytes_of(own), "x"), 1);
  EXPECT_TRUE(same(wait_and_receive(fd).from.sin6_addr, to.sin6_addr));
  own.ipi6_addr = v6(here).sin6_addr;
  EXPECT_EQ(send_message(from, to, IPPROTO_IPV6, IPV6_PKTINFO, bytes_of(own), "x"), -1);
  EXPECT_EQ(errno, EINVAL);
}

struct Told {
  sock_extended_err error;
  sockaddr_in6 offender;
};

TEST_F(Udp6, ReportsOfFailure) {
  sockaddr_in nowhere = there;
  nowhere.sin_port = htons(9);
  const int fd = open();
  EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1), 0);
  EXPECT_EQ(send_to(fd, nowhere, "lost"), 4);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR) << "though it is not connected";
  const Received got = receive(fd, MSG_ERRQUEUE);
  EXPECT_EQ(got.flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
  EXPECT_TRUE(same(got.from.sin6_addr, v6(nowhere).sin6_addr));
  EXPECT_EQ(got.from.sin6_port, nowhere.sin_port);
  EXPECT_EQ(got.text, "lost");
  const Told told = got.as<Told>(IPPROTO_IPV6, IPV6_RECVERR);
  EXPECT_EQ(told.error.ee_errno, static_cast<uint32_t>(ECONNREFUSED));
  EXPECT_EQ(told.error.ee_origin, SO_EE_ORIGIN_ICMP6);
  EXPECT_EQ(told.error.ee_type, 1);
  EXPECT_EQ(told.error.ee_code, 4);
  EXPECT_TRUE(same(told.offender.sin6_addr, v6(there).sin6_addr));
  EXPECT_EQ(receive(fd, MSG_ERRQUEUE).error, EAGAIN);
  EXPECT_EQ(receive(fd, MSG_DONTWAIT).error, EAGAIN);
}

TEST_F(Udp6, ReportsOfIp4) {
  sockaddr_in nowhere = there;
  nowhere.sin_port = htons(9);
  const int fd = open();
  EXPECT_EQ(set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1), 0);
  EXPECT_EQ(connect6(fd, as_v4(nowhere)), 0);
  EXPECT_EQ(send(fd, "lost", 4, 0), 4);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR) << "because it is connected";
  EXPECT_EQ(receive(fd, MSG_ERRQUEUE).error, EAGAIN) << "IPv6's option is none of IPv4's";
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
  EXPECT_EQ(set(fd, IPPROTO_IP, IP_RECVERR, 1), 0);
  EXPECT_EQ(send(fd, "lost", 4, 0), 4);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR);
  const Received got = receive(fd, MSG_ERRQUEUE);
  EXPECT_TRUE(same(got.from.sin6_addr, as_v4(nowhere).sin6_addr));
  const Told told = got.as<Told>(IPPROTO_IPV6, IPV6_RECVERR);
  EXPECT_EQ(told.error.ee_errno, static_cast<uint32_t>(ECONNREFUSED));
  EXPECT_EQ(told.error.ee_origin, SO_EE_ORIGIN_ICMP);
  EXPECT_TRUE(same(told.offender.sin6_addr, as_v4(there).sin6_addr));
}

TEST_F(Udp6, NamesOfTheOtherFamily) {
  sockaddr_in here{};
  const int six = open(), four = open(), only = open();
  ASSERT_EQ(bind6(six, v6(self_address(htons(5401)))), 0) << strerror(errno);
  ASSERT_EQ(bind6(four, as_v4(self_address(htons(5402)))), 0) << strerror(errno);
  EXPECT_EQ(send6(four, as_v4(there), "x"), 1) << strerror(errno);
  Reply got = peer.recv_from(theirs);
  EXPECT_EQ(got.payload, "x");
  EXPECT_EQ(got.name.sin_port, htons(5402));
  EXPECT_EQ(send6(four, v6(there), "x"), -1);
  EXPECT_EQ(errno, EAFNOSUPPORT);
  EXPECT_EQ(send6(six, v6(there), "x"), 1) << strerror(errno);
  got = peer.recv_from(theirs);
  EXPECT_EQ(got.name.sin_port, htons(5401));
  EXPECT_EQ(send6(six, as_v4(there), "x"), -1);
  EXPECT_EQ(errno, ENETUNREACH);
  peer.send_to(theirs, self_address(htons(5401)), "to six");
  EXPECT_EQ(wait_and_take(six), "to six");
  EXPECT_EQ(set(only, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  EXPECT_EQ(connect(only, reinterpret_cast<const sockaddr*>(&there), sizeof there), -1) << "a name of IPv4";
  EXPECT_EQ(errno, EAFNOSUPPORT);
  EXPECT_EQ(sendto(only, "x", 1, 0, reinterpret_cast<const sockaddr*>(&there), sizeof there), -1);
  EXPECT_EQ(errno, ENETUNREACH);
  const int fd = bound(&here);
  EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&there), sizeof there), 0) << strerror(errno);
  sockaddr_in6 name{};
  socklen_t bytes = sizeof name;
  EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0);
  EXPECT_TRUE(same(name.sin6_addr, as_v4(there).sin6_addr));
  EXPECT_EQ(send(fd, "of IPv4", 7, 0), 7);
  EXPECT_EQ(peer.recv_from(theirs).payload, "of IPv4");
}

TEST_F(Udp6, ScopesAreForLinks) {
  const int fd = open();
  sockaddr_in6 to = v6(there);
  to.sin6_scope_id = 77;
  EXPECT_EQ(send6(fd, to, "x"), 1) << "which this address does not need: " << strerror(errno);
  EXPECT_EQ(peer.recv_from(theirs).payload, "x");
  EXPECT_EQ(connect6(fd, to), 0) << strerror(errno);
  sockaddr_in6 name{};
  socklen_t bytes = sizeof name;
  EXPECT_EQ(getpeername(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0);
  EXPECT_EQ(name.sin6_scope_id, 0u);
  const int another = open();
  ASSERT_EQ(inet_pton(AF_INET6, "fe80::1", &to.sin6_addr), 1);
  to.sin6_scope_id = 0;
  EXPECT_EQ(connect6(another, to), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(bind6(another, to), -1);
  EXPECT_EQ(errno, EINVAL);
  to.sin6_scope_id = 77;  // which there is not
  sockaddr_in here{};
  for (const int each : {another, fd, bound(&here)}) {
    EXPECT_EQ(connect6(each, to), -1);
    EXPECT_EQ(errno, ENETUNREACH);
  }
}

// What comes over IPv6 to one that was connected is from its former peer alone, what comes over IPv4 is from everybody.
TEST_F(Udp6, AFormerPeer) {
  sockaddr_in here{}, elsewhere{};
  const int fd = bound(&here);
  const int near = open(), another = peer.datagram_socket(&elsewhere), of_ip4 = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in6 loopback{};
  loopback.sin6_family = AF_INET6;
  loopback.sin6_port = here.sin_port;
  loopback.sin6_addr = in6addr_loopback;
  const auto hears = [&](bool peers, bool anothers, bool nears) {
    EXPECT_EQ(peer.send_to(another, here, "another's").result, 9);
    EXPECT_EQ(send6(near, loopback, "near"), 4);
    EXPECT_EQ(peer.send_to(theirs, here, "theirs").result, 6);
    std::multiset<std::string> got, expected;
    if (peers) expected.insert("theirs");
    if (anothers) expected.insert("another's");
    if (nears) expected.insert("near");
    // What comes over IPv4 is always heard, and is behind the rest of its side.
    const sockaddr_in near4 = ipv4("127.0.0.1", here.sin_port);
    EXPECT_EQ(sendto(of_ip4, "end", 3, 0, reinterpret_cast<const sockaddr*>(&near4), sizeof near4), 3);
    for (size_t i = 0; i < expected.size() + 1; i++) got.insert(wait_and_take(fd));
    expected.insert("end");
    EXPECT_EQ(got, expected);
    EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), strerror(EAGAIN));
  };
  hears(true, true, true);
  ASSERT_EQ(connect6(fd, v6(there)), 0);
  EXPECT_EQ(disconnect(fd), 0);
  here.sin_port = name_of(fd).sin_port;
  ASSERT_EQ(here.sin_port, 0) << "a port that nobody asked for";
  EXPECT_EQ(send6(fd, v6(there), "x"), 1);
  EXPECT_EQ(peer.recv_from(theirs).payload, "x");
  here = self_address(name_of(fd).sin_port);
  loopback.sin6_port = here.sin_port;
  hears(true, true, false);
  ASSERT_EQ(connect6(fd, loopback), 0);
  EXPECT_EQ(disconnect(fd), 0);
  EXPECT_EQ(send6(fd, v6(there), "x"), 1);
  EXPECT_EQ(peer.recv_from(theirs).payload, "x");
  here = self_address(name_of(fd).sin_port);
  loopback.sin6_port = here.sin_port;
  hears(false, false, true);
  close(of_ip4);
}

TEST_F(Udp6, ManyToBothFamiliesAndSides) {
  sockaddr_in near_here{};
  const int fd = open(), near = bound(&near_here);
  sockaddr_in6 loopback = v6(ipv4("127.0.0.1", near_here.sin_port));
  sockaddr_in6 to[4] = {v6(there), as_v4(there), loopback, v6(there)};
  mmsghdr messages[4] = {};
  iovec part{const_cast<char*>("all"), 3};
  for (int i = 0; i < 4; i++) {
    messages[i].msg_hdr.msg_name = &to[i];
    messages[i].msg_hdr.msg_namelen = sizeof to[i];
    messages[i].msg_hdr.msg_iov = &part;
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(sendmmsg(fd, messages, 4, 0), 4) << strerror(errno);
  for (int i = 0; i < 3; i++) EXPECT_EQ(peer.recv_from(theirs).payload, "all");
  EXPECT_EQ(wait_and_take(near), "all");
}

}  // namespace
