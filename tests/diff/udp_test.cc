// Datagram sockets: names, both sides, peers, and what a receive says.
// SPDX-License-Identifier: BSD-3-Clause
#include <netinet/in.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <linux/sockios.h>

#include "tests/lib/datagrams.h"

using namespace testing_lib;

namespace {

const std::string kNothing = strerror(EAGAIN);

using Udp = DatagramTest;

TEST_F(Udp, AServer) {
  sockaddr_in here{}, from{};
  const int fd = bound(&here);
  EXPECT_EQ(name_of(fd).sin_addr.s_addr, INADDR_ANY);
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
  EXPECT_EQ(peer.send_to(theirs, here, "query").result, 5);
  EXPECT_EQ(wait_and_take(fd, &from), "query");
  EXPECT_EQ(to_text(from), to_text(there));
  EXPECT_EQ(send_to(fd, from, "answer"), 6);
  const Reply answer = peer.recv_from(theirs);
  EXPECT_EQ(answer.payload, "answer");
  EXPECT_EQ(to_text(answer.name), to_text(here));
}

TEST_F(Udp, AClientWithoutAName) {
  const int fd = open();
  EXPECT_EQ(name_of(fd).sin_port, 0);
  EXPECT_EQ(send_to(fd, there, "query"), 5) << strerror(errno);
  const sockaddr_in name = name_of(fd);
  EXPECT_NE(name.sin_port, 0);
  EXPECT_EQ(name.sin_addr.s_addr, INADDR_ANY);
  const Reply query = peer.recv_from(theirs);
  EXPECT_EQ(to_text(query.name), to_text(self_address(name.sin_port)));
  EXPECT_EQ(peer.send_to(theirs, query.name, "answer").result, 6);
  sockaddr_in from{};
  EXPECT_EQ(take(fd, &from), "answer") << "a blocking receive";
  EXPECT_EQ(to_text(from), to_text(there));
}

TEST_F(Udp, BothSides) {
  sockaddr_in here{}, from{};
  const int fd = bound(&here), near = open();
  const sockaddr_in loopback = ipv4("127.0.0.1", here.sin_port);
  EXPECT_EQ(send_to(near, loopback, "near"), 4);
  EXPECT_EQ(wait_and_take(fd, &from), "near");
  EXPECT_EQ(to_text(from), to_text(ipv4("127.0.0.1", name_of(near).sin_port)));
  EXPECT_EQ(send_to(fd, from, "to you"), 6);
  EXPECT_EQ(take(near), "to you");
  for (int i = 0; i < 100; i++) {
    EXPECT_EQ(send_to(near, loopback, "n" + std::to_string(i)), i < 10 ? 2 : 3);
    peer.send_to(theirs, here, "f" + std::to_string(i));
  }
  int nears = 0, fars = 0;
  while (nears + fars < 200) {  // in order, each of them
    const std::string text = take(fd, &from);
    int& count = from.sin_addr.s_addr == there.sin_addr.s_addr ? fars : nears;
    ASSERT_EQ(text.substr(1), std::to_string(count));
    count++;
  }
  EXPECT_EQ(nears, 100);
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
}

TEST_F(Udp, OfTheSystemsOwnAddress) {
  const int fd = open();
  ASSERT_EQ(bind_to(fd, self_address(htons(5353))), 0) << strerror(errno);
  EXPECT_EQ(to_text(name_of(fd)), to_text(self_address(htons(5353))));
  EXPECT_EQ(bind_to(fd, self_address(htons(5354))), -1);
  EXPECT_EQ(errno, EINVAL);
  const int second = open();
  EXPECT_EQ(bind_to(second, self_address(htons(5353))), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  EXPECT_EQ(bind_to(second, ipv4("0.0.0.0", htons(5353))), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  EXPECT_EQ(bind_to(second, ipv4("198.19.255.254", htons(5353))), -1);
  EXPECT_EQ(errno, EADDRNOTAVAIL);
  peer.send_to(theirs, self_address(htons(5353)), "x");
  EXPECT_EQ(wait_and_take(fd), "x");
  EXPECT_EQ(send_to(fd, there, "y"), 1);
  EXPECT_EQ(to_text(peer.recv_from(theirs).name), to_text(self_address(htons(5353))));
}

TEST_F(Udp, Connected) {
  const int fd = open();
  ASSERT_EQ(connect_to(fd, there), 0) << strerror(errno);
  const sockaddr_in here = name_of(fd);
  EXPECT_EQ(here.sin_addr.s_addr, self_address().sin_addr.s_addr);
  EXPECT_NE(here.sin_port, 0);
  EXPECT_EQ(to_text(name_of(fd, getpeername)), to_text(there));
  EXPECT_EQ(send(fd, "a", 1, 0), 1);
  EXPECT_EQ(write(fd, "b", 1), 1);
  EXPECT_EQ(to_text(peer.recv_from(theirs).name), to_text(here));
  EXPECT_EQ(peer.recv_from(theirs).payload, "b");
  sockaddr_in elsewhere{};
  const int another = peer.datagram_socket(&elsewhere);
  peer.send_to(another, here, "from another");
  peer.send_to(theirs, here, "from the peer");
  EXPECT_EQ(wait_and_take(fd), "from the peer");
  EXPECT_EQ(send_to(fd, elsewhere, "c"), 1) << "to somebody else";
  EXPECT_EQ(to_text(peer.recv_from(another).name), to_text(here));
  EXPECT_EQ(connect_to(fd, elsewhere), 0) << "again";
  EXPECT_EQ(to_text(name_of(fd)), to_text(here));
  peer.send_to(another, here, "now");
  EXPECT_EQ(wait_and_take(fd), "now");
  char buffer[8];
  peer.send_to(another, here, "read");
  EXPECT_EQ(read(fd, buffer, sizeof buffer), 4);
}

TEST_F(Udp, Disconnected) {
  const int fd = open();
  ASSERT_EQ(connect_to(fd, there), 0);
  ASSERT_EQ(disconnect(fd), 0);
  EXPECT_EQ(to_text(name_of(fd)), "0.0.0.0:0");
  EXPECT_EQ(name_of(fd, getpeername).sin_port, 0);
  EXPECT_EQ(errno, ENOTCONN);
  EXPECT_EQ(send(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EDESTADDRREQ);
  EXPECT_EQ(connect_to(fd, ipv4("127.0.0.1", htons(9))), 0) << "to the kernel's side";
  EXPECT_EQ(name_of(fd).sin_addr.s_addr, htonl(INADDR_LOOPBACK));
  ASSERT_EQ(disconnect(fd), 0);
  EXPECT_EQ(connect_to(fd, there), 0) << "and back: " << strerror(errno);
  ASSERT_EQ(disconnect(fd), 0);
  ASSERT_EQ(connect_to(fd, there), 0);
  EXPECT_EQ(name_of(fd).sin_addr.s_addr, self_address().sin_addr.s_addr);
  sockaddr_in here{};
  const int server = bound(&here);
  ASSERT_EQ(disconnect(server), 0) << "of one that is not connected";
  ASSERT_EQ(bind_to(server, ipv4("0.0.0.0", htons(5355))), 0) << "its port was not asked for by name: " << strerror(errno);
  ASSERT_EQ(connect_to(server, there), 0);
  ASSERT_EQ(disconnect(server), 0);
  EXPECT_EQ(to_text(name_of(server)), "0.0.0.0:5355");
  const int near = open();
  if (family() != Family::ip6) {  // where Linux goes on comparing the address that was the peer's
    send_to(near, ipv4("127.0.0.1", htons(5355)), "near");
    EXPECT_EQ(wait_and_take(server), "near");
  }
  peer.send_to(theirs, self_address(htons(5355)), "far");
  EXPECT_EQ(wait_and_take(server), "far");
}

TEST_F(Udp, WhatCameBeforeThePeerWasNamed) {
  sockaddr_in here{};
  const int fd = bound(&here), near = open();
  send_to(near, ipv4("127.0.0.1", here.sin_port), "before");
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  ASSERT_EQ(connect_to(fd, there), 0);
  send_to(near, ipv4("127.0.0.1", here.sin_port), "after");
  EXPECT_EQ(wait_and_take(fd), "before");
  peer.send_to(theirs, here, "of the peer");
  EXPECT_EQ(wait_and_take(fd), "of the peer");
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
}

TEST_F(Udp, NobodyThere) {
  sockaddr_in nowhere = there;
  nowhere.sin_port = htons(9);
  const int fd = open();
  EXPECT_EQ(send_to(fd, nowhere, "x"), 1);
  EXPECT_EQ(connect_to(fd, nowhere), 0);
  EXPECT_EQ(send(fd, "x", 1, 0), 1);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR);
  EXPECT_EQ(take(fd), strerror(ECONNREFUSED));
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
  EXPECT_EQ(send(fd, "x", 1, 0), 1);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), 0);
  EXPECT_EQ(send(fd, "x", 1, 0), 1);
  EXPECT_EQ(wait_for(fd, POLLIN), POLLERR);
  EXPECT_EQ(send(fd, "y", 1, 0), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  EXPECT_EQ(send(fd, "x", 1, 0), 1);
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), -1) << "a blocking one";
  EXPECT_EQ(errno, ECONNREFUSED);
}

// What goes to one's own address has come, and what nobody is there for is refused, when the call returns.
TEST_F(Udp, ToItselfAtOnce) {
  sockaddr_in here{};
  const int fd = bound(&here), from = open(SOCK_NONBLOCK);
  EXPECT_EQ(send_to(from, here, "abcdef"), 6);
  int bytes = -1;
  EXPECT_EQ(ioctl(fd, FIONREAD, &bytes), 0);
  EXPECT_EQ(bytes, 6);
  EXPECT_EQ(take(fd), "abcdef");
  here.sin_port = htons(9);
  EXPECT_EQ(connect_to(from, here), 0);
  EXPECT_EQ(send(from, "x", 1, 0), 1);
  EXPECT_EQ(send(from, "y", 1, 0), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  EXPECT_EQ(take(from), kNothing);
}

TEST_F(Udp, EmptyTruncatedAndPeeked) {
  sockaddr_in here{};
  const int fd = bound(&here);
  for (const char* text : {"", "abcdef", "123456", "rest", ""}) peer.send_to(theirs, here, text);
  char few[4] = {};
  EXPECT_EQ(wait_and_take(fd), "");
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  int bytes = -1;
  EXPECT_EQ(ioctl(fd, FIONREAD, &bytes), 0);
  EXPECT_EQ(bytes, 6);
  EXPECT_EQ(recv(fd, few, sizeof few, MSG_PEEK), 4);
  EXPECT_EQ(recv(fd, few, sizeof few, MSG_PEEK | MSG_TRUNC), 6);
  EXPECT_EQ(recv(fd, few, sizeof few, 0), 4);
  EXPECT_EQ(std::string(few, 4), "abcd");
  iovec part{few, sizeof few};
  sockaddr_in6 from{};
  const socklen_t name_bytes = in_family(there).bytes;
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  EXPECT_EQ(recvmsg(fd, &message, 0), 4);
  EXPECT_EQ(message.msg_flags, MSG_TRUNC);
  EXPECT_EQ(message.msg_namelen, name_bytes);
  EXPECT_EQ(to_text(from_family(from)), to_text(there));
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  message.msg_namelen = 4;
  EXPECT_EQ(recvmsg(fd, &message, MSG_WAITALL), 4) << "there is nothing to wait for";
  EXPECT_EQ(message.msg_flags, 0);
  EXPECT_EQ(message.msg_namelen, name_bytes);
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  EXPECT_EQ(read(fd, few, 0), 0) << "does not reach the socket";
  EXPECT_EQ(recv(fd, few, 0, 0), 0) << "but this takes it";
  EXPECT_EQ(take(fd, nullptr, MSG_DONTWAIT), kNothing);
}

TEST_F(Udp, LookedAtOnwards) {
  sockaddr_in here{};
  const int fd = bound(&here);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_PEEK_OFF), -1);
  for (const char* text : {"abcdef", "1234", "xyz"}) peer.send_to(theirs, here, text);
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  EXPECT_EQ(set(fd, SOL_SOCKET, SO_PEEK_OFF, 0), 0);
  char few[4];
  const auto look = [&](int flags = 0) {
    const ssize_t count = recv(fd, few, sizeof few, MSG_PEEK | flags);
    return count < 0 ? std::string(strerror(errno)) : std::string(few, static_cast<size_t>(count < 4 ? count : 4));
  };
  EXPECT_EQ(look(), "abcd");
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_PEEK_OFF), 4);
  EXPECT_EQ(look(), "ef");
  EXPECT_EQ(wait_and_take(fd), "abcdef");
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_PEEK_OFF), 0);
  EXPECT_EQ(look(), "1234");
  EXPECT_EQ(look(), "xyz");
  EXPECT_EQ(look(MSG_DONTWAIT), kNothing);
  EXPECT_EQ(set(fd, SOL_SOCKET, SO_PEEK_OFF, 2), 0);
  EXPECT_EQ(look(), "34");
  EXPECT_EQ(set(fd, SOL_SOCKET, SO_PEEK_OFF, -1), 0);
  EXPECT_EQ(look(), "1234");
  EXPECT_EQ(look(), "1234");
}

// Signals that are blocked and waited for.
TEST_F(Udp, SignalsOfWhatComes) {
  const int signal = SIGRTMIN + 3;
  sigset_t both;
  sigemptyset(&both);
  sigaddset(&both, signal);
  sigaddset(&both, SIGIO);
  pthread_sigmask(SIG_BLOCK, &both, nullptr);
  const auto next = [&](int seconds) {
    siginfo_t info{};
    const timespec most{seconds, 0};
    return sigtimedwait(&both, &info, &most) > 0 ? info : siginfo_t{};
  };
  sockaddr_in here{};
  const int fd = bound(&here), near = open();
  EXPECT_EQ(fcntl(fd, F_SETOWN, getpid()), 0);
  EXPECT_EQ(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC), 0);
  for (int i = 0; i < 10; i++) {
    if (i % 2 == 0) {
      peer.send_to(theirs, here, "x");
    } else {
      send_to(near, ipv4("127.0.0.1", here.sin_port), "x");
    }
    EXPECT_EQ(next(10).si_signo, SIGIO) << i;
    EXPECT_EQ(wait_and_take(fd), "x");
  }
  EXPECT_EQ(fcntl(fd, F_SETSIG, signal), 0);
  peer.send_to(theirs, here, "y");
  siginfo_t info = next(10);
  EXPECT_EQ(info.si_signo, signal);
  EXPECT_EQ(info.si_fd, fd);
  EXPECT_EQ(info.si_band, POLLIN | POLLRDNORM);
  EXPECT_EQ(wait_and_take(fd), "y");
  sockaddr_in nowhere = there;
  nowhere.sin_port = htons(9);
  ASSERT_EQ(connect_to(fd, nowhere), 0);
  EXPECT_EQ(next(0).si_signo, 0) << "its own call is no news";
  EXPECT_EQ(send(fd, "x", 1, 0), 1);
  info = next(10);
  EXPECT_EQ(info.si_signo, signal);
  EXPECT_EQ(info.si_band, POLLERR);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
  EXPECT_EQ(shutdown(fd, SHUT_RDWR), 0);
  EXPECT_EQ(next(0).si_signo, 0);
  EXPECT_EQ(fcntl(near, F_SETOWN, getpid()), 0) << "and one that is not on the stack yet";
  EXPECT_EQ(fcntl(near, F_SETFL, fcntl(near, F_GETFL) | O_ASYNC), 0);
  ASSERT_EQ(connect_to(near, there), 0);
  EXPECT_EQ(send(near, "q", 1, 0), 1);
  peer.send_to(theirs, peer.recv_from(theirs).name, "a");
  EXPECT_EQ(next(10).si_signo, SIGIO);
  EXPECT_EQ(wait_and_take(near), "a");
}

TEST_F(Udp, AnyLength) {
  sockaddr_in here{};
  const int fd = bound(&here);
  const bool ip6 = family() == Family::ip6;
  const size_t longest = ip6 ? 65487 : 65507, too_long = ip6 ? 65528 : 65508;
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{1452}, size_t{1453}, size_t{1472}, size_t{1473}, size_t{9000}, longest}) {
    std::string text(bytes, '\0');
    for (size_t i = 0; i < bytes; i++) text[i] = static_cast<char>(i * 7 + bytes);
    EXPECT_EQ(send_to(fd, there, text), static_cast<ssize_t>(bytes)) << strerror(errno);
    const Reply reply = peer.recv_from(theirs);
    EXPECT_EQ(reply.result, static_cast<int64_t>(bytes));
    EXPECT_TRUE(reply.payload == text) << bytes;
    if (bytes > 60'000) continue;  // more than the control connection takes with its header
    EXPECT_EQ(peer.send_to(theirs, here, text).result, static_cast<int64_t>(bytes));
    EXPECT_TRUE(wait_and_take(fd) == text) << bytes;
  }
  EXPECT_EQ(send_to(fd, there, std::string(too_long, 'x')), -1);
  EXPECT_EQ(errno, EMSGSIZE);
  const int level = ip6 ? IPPROTO_IPV6 : IPPROTO_IP;
  EXPECT_EQ(set(fd, level, ip6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, IP_PMTUDISC_DO), 0);
  ASSERT_EQ(connect_to(fd, there), 0);
  const auto most = static_cast<size_t>(get(fd, level, ip6 ? IPV6_MTU : IP_MTU) - (ip6 ? 48 : 28));
  EXPECT_EQ(send_to(fd, there, std::string(most + 1, 'x')), -1);
  EXPECT_EQ(errno, EMSGSIZE);
  EXPECT_EQ(send_to(fd, there, std::string(most, 'x')), static_cast<ssize_t>(most));
}

TEST_F(Udp, WhatCannotBeSent) {
  const int fd = open();
  EXPECT_EQ(send(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EDESTADDRREQ);
  sockaddr_in to = there;
  to.sin_port = 0;
  EXPECT_EQ(send_to(fd, to, "x"), -1);
  EXPECT_EQ(errno, EINVAL);
  Name name = in_family(there);
  EXPECT_EQ(sendto(fd, "x", 1, 0, name.get(), 8), -1);
  EXPECT_EQ(errno, EINVAL);
  if (family() == Family::ip4) {
    name.address.sin6_family = AF_INET6;
    EXPECT_EQ(sendto(fd, "x", 1, 0, name.get(), name.bytes), -1);
    EXPECT_EQ(errno, EAFNOSUPPORT);
    name.address.sin6_family = AF_UNSPEC;
    EXPECT_EQ(sendto(fd, "u", 1, 0, name.get(), name.bytes), 1) << "of no family: taken for IPv4";
    EXPECT_EQ(peer.recv_from(theirs).payload, "u");
  } else {
    name.address.sin6_family = AF_UNIX;
    EXPECT_EQ(sendto(fd, "x", 1, 0, name.get(), name.bytes), -1);
    EXPECT_EQ(errno, EINVAL);
    name.address.sin6_family = AF_UNSPEC;
    EXPECT_EQ(sendto(fd, "u", 1, 0, name.get(), name.bytes), -1) << "of no family: to nobody";
    EXPECT_EQ(errno, EDESTADDRREQ);
    EXPECT_EQ(sendto(fd, "4", 1, 0, reinterpret_cast<const sockaddr*>(&there), sizeof there), 1) << "IPv4's are known as well";
    EXPECT_EQ(peer.recv_from(theirs).payload, "4");
    name = in_family(there);
    EXPECT_EQ(sendto(fd, "2", 1, 0, name.get(), 24), 1) << "without a scope (RFC 2133)";
    EXPECT_EQ(peer.recv_from(theirs).payload, "2");
  }
  name = in_family(there);
  EXPECT_EQ(send_to(fd, there, "x", MSG_OOB), family() == Family::ip6 ? 1 : -1) << "IPv6 does not look";
  EXPECT_EQ(family() == Family::ip6 ? peer.recv_from(theirs).payload == "x" : errno == EOPNOTSUPP, true);
  EXPECT_EQ(sendto(fd, reinterpret_cast<char*>(64), 100, 0, name.get(), name.bytes), -1);
  EXPECT_EQ(errno, EFAULT);
  to = self_address(htons(7));
  to.sin_addr.s_addr |= htonl(255);
  EXPECT_EQ(send_to(fd, to, "x"), -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(connect_to(fd, to), -1);
  EXPECT_EQ(errno, EACCES);
}

TEST_F(Udp, TimeAndInterest) {
  sockaddr_in here{};
  const int fd = bound(&here);
  const timeval soon{0, 60'000};
  EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon), 0);
  const uint64_t before = now_ms();
  EXPECT_EQ(take(fd), kNothing);
  EXPECT_GE(now_ms() - before, 59u);
  EXPECT_EQ(wait_for(fd, POLLIN | POLLOUT), POLLOUT);
  const int set_fd = epoll_create1(0);
  epoll_event event{EPOLLIN | EPOLLET, {.u64 = 77}}, got{};
  ASSERT_EQ(epoll_ctl(set_fd, EPOLL_CTL_ADD, fd, &event), 0);
  EXPECT_EQ(epoll_wait(set_fd, &got, 1, 0), 0);
  for (int i = 0; i < 2; i++) {
    peer.send_to(theirs, here, "edge");
    EXPECT_EQ(epoll_wait(set_fd, &got, 1, 30'000), 1) << "each datagram is an edge";
    EXPECT_EQ(got.data.u64, 77u);
    EXPECT_EQ(epoll_wait(set_fd, &got, 1, 0), 0);
  }
  EXPECT_EQ(take(fd), "edge");
  EXPECT_EQ(take(fd), "edge");
  event.events = EPOLLIN | EPOLLOUT;
  ASSERT_EQ(epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &event), 0);
  epoll_event all[4] = {};
  EXPECT_EQ(epoll_wait(set_fd, all, 4, 30'000), 1) << "one event, though both sides can be written to";
  EXPECT_EQ(all[0].events, EPOLLOUT);
  const int near = open();
  send_to(near, ipv4("127.0.0.1", here.sin_port), "near");
  event.events = EPOLLIN | EPOLLONESHOT;
  ASSERT_EQ(epoll_ctl(set_fd, EPOLL_CTL_MOD, fd, &event), 0);
  EXPECT_EQ(epoll_wait(set_fd, all, 4, 30'000), 1);
  EXPECT_EQ(all[0].events, EPOLLIN);
  peer.send_to(theirs, here, "far");
  EXPECT_EQ(epoll_wait(set_fd, all, 4, 50), 0);
  close(set_fd);
}

TEST_F(Udp, ShutDown) {
  const int fd = open();
  EXPECT_EQ(shutdown(fd, SHUT_RD), -1);
  EXPECT_EQ(errno, ENOTCONN);
  ASSERT_EQ(connect_to(fd, there), 0);
  EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
  EXPECT_EQ(send(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(shutdown(fd, SHUT_RD), 0);
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
  EXPECT_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(wait_for(fd, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP);
  EXPECT_EQ(shutdown(fd, 7), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_F(Udp, ShutBeforeThereIsAPeer) {
  const int fd = open();
  EXPECT_EQ(shutdown(fd, SHUT_RDWR), -1);
  EXPECT_EQ(errno, ENOTCONN);
  ASSERT_EQ(connect_to(fd, there), 0);
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
  EXPECT_EQ(send(fd, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_F(Udp, AConnectionThatFailsChangesNothing) {
  sockaddr_in here{};
  const int fd = bound(&here), set_fd = epoll_create1(0);
  epoll_event event{EPOLLIN | EPOLLOUT, {.u64 = 1}};
  ASSERT_EQ(epoll_ctl(set_fd, EPOLL_CTL_ADD, fd, &event), 0);
  peer.send_to(theirs, here, "before");
  ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
  EXPECT_EQ(connect_to(fd, ipv4("203.0.113.1", htons(9))), -1);
  EXPECT_EQ(errno, ENETUNREACH);
  EXPECT_EQ(bind_to(fd, ipv4("203.0.113.1", 0)), -1);
  EXPECT_EQ(epoll_wait(set_fd, &event, 1, 30'000), 1);
  EXPECT_EQ(event.events, EPOLLIN | EPOLLOUT);
  EXPECT_EQ(take(fd), "before");
  EXPECT_EQ(send_to(fd, there, "behind"), 6);
  EXPECT_EQ(peer.recv_from(theirs).payload, "behind");
  const int fresh = open();
  EXPECT_EQ(bind_to(fresh, ipv4("203.0.113.1", 0)), -1);
  EXPECT_EQ(connect_to(fresh, there), 0) << "and it is not the kernel's for that: " << strerror(errno);
  close(set_fd);
}

// Whatever becomes of it, the first thing that is sent gives a socket a port at all addresses, and so does a connection that fails.
TEST_F(Udp, NamesThatNobodyAskedFor) {
  sockaddr_in here{};
  (void)bound(&here);
  const sockaddr_in near = ipv4("127.0.0.1", here.sin_port), nowhere = ipv4("203.0.113.1", htons(9));
  const auto is_reached = [&](int fd, int result, const char* what) {
    const sockaddr_in name = self_address(name_of(fd).sin_port);
    ASSERT_NE(name.sin_port, 0) << what << " " << result;
    EXPECT_EQ(peer.send_to(theirs, name, what).result, static_cast<int>(strlen(what)));
    EXPECT_EQ(wait_and_take(fd), what);
    EXPECT_EQ(send_to(fd, there, "back"), 4) << strerror(errno);
    EXPECT_EQ(peer.recv_from(theirs).payload, "back");
  };
  int fd = open();
  is_reached(fd, static_cast<int>(send_to(fd, near, "x")), "by the loopback");
  fd = open();
  is_reached(fd, static_cast<int>(send(fd, "x", 1, 0)), "to nobody");
  fd = open();
  is_reached(fd, static_cast<int>(send_to(fd, nowhere, "x")), "where no way leads");
  fd = open();
  is_reached(fd, connect_to(fd, nowhere), "a connection that fails");
}

// An empty one is no reason to wait for the next.
TEST_F(Udp, AnEmptyOneAfterManyTurns) {
  sockaddr_in here{};
  const int fd = bound(&here);
  for (int i = 0; i < 100; i++) {
    peer.send_to(theirs, here, "");
    ASSERT_EQ(wait_for(fd, POLLIN), POLLIN);
    char byte;
    ASSERT_EQ(recv(fd, &byte, 1, 0), 0) << i;
  }
}

TEST_F(Udp, CopiesAndChildren) {
  sockaddr_in here{};
  const int fd = bound(&here), copy = dup(fd);
  close(fd);
  peer.send_to(theirs, here, "to the copy");
  EXPECT_EQ(wait_and_take(copy), "to the copy");
  const pid_t child = fork();
  if (child == 0) {
    sockaddr_in from{};
    const std::string got = wait_and_take(copy, &from);
    _exit(got == "to the child" && send_to(copy, from, "of the child") == 12 ? 0 : 1);
  }
  peer.send_to(theirs, here, "to the child");
  EXPECT_EQ(peer.recv_from(theirs).payload, "of the child");
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  peer.send_to(theirs, here, "to the parent");
  EXPECT_EQ(wait_and_take(copy), "to the parent");
  close(copy);
  const int next = open();
  EXPECT_EQ(bind_to(next, ipv4("0.0.0.0", here.sin_port)), 0) << "the port is free again: " << strerror(errno);
}

pid_t start_worker(int fd) {
  const pid_t child = fork();
  if (child != 0) return child;
  while (true) {
    char buffer[64];
    sockaddr_in6 from{};
    socklen_t bytes = sizeof from;
    const ssize_t count = recvfrom(fd, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &bytes);
    if (count >= 0) (void)sendto(fd, buffer, static_cast<size_t>(count), 0, reinterpret_cast<sockaddr*>(&from), bytes);
  }
}

TEST_F(Udp, WorkersThatAreKilled) {
  sockaddr_in here{};
  const int fd = bound(&here);
  std::vector<pid_t> workers(3);
  for (pid_t& worker : workers) worker = start_worker(fd);
  int answered = 0, tries = 0;
  for (size_t round = 0; round < 30; round++) {
    pid_t& victim = workers[round % workers.size()];
    peer.send_to(theirs, here, "x");
    EXPECT_EQ(kill(victim, SIGKILL), 0);
    EXPECT_EQ(waitpid(victim, nullptr, 0), victim);
    victim = start_worker(fd);
    // One that was in the hands of the dead is lost.
    for (tries++; peer.call(PeerOp::poll, theirs, POLLIN, 100).result != POLLIN && tries < 400; tries++) peer.send_to(theirs, here, "x");
    answered += peer.recv(theirs, 64, MSG_DONTWAIT).payload == "x" ? 1 : 0;
    while (peer.recv(theirs, 64, MSG_DONTWAIT).result >= 0) continue;
  }
  EXPECT_EQ(answered, 30);
  EXPECT_LT(tries, 400);
  for (const pid_t worker : workers) {
    EXPECT_EQ(kill(worker, SIGKILL), 0);
    EXPECT_EQ(waitpid(worker, nullptr, 0), worker);
  }
}

TEST_F(Udp, SharedPorts) {
  sockaddr_in at = ipv4("0.0.0.0", htons(5356));
  const int first = open(), second = open(), third = open();
  ASSERT_EQ(bind_to(first, at), 0);
  EXPECT_EQ(bind_to(second, at), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  EXPECT_EQ(set(second, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  EXPECT_EQ(bind_to(second, at), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  EXPECT_EQ(set(first, SOL_SOCKET, SO_REUSEADDR, 1), 0);
  EXPECT_EQ(bind_to(second, at), 0) << strerror(errno);
  EXPECT_EQ(set(third, SOL_SOCKET, SO_REUSEPORT, 1), 0);
  EXPECT_EQ(bind_to(third, at), -1);
  EXPECT_EQ(errno, EADDRINUSE);
  peer.send_to(theirs, self_address(at.sin_port), "x");
  EXPECT_EQ(wait_and_take(second), "x") << "the last one gets it";
  EXPECT_EQ(take(first, nullptr, MSG_DONTWAIT), kNothing);
  at.sin_port = htons(5357);
  const int workers[2] = {open(), open()};
  for (int fd : workers) {
    EXPECT_EQ(set(fd, SOL_SOCKET, SO_REUSEPORT, 1), 0);
    EXPECT_EQ(bind_to(fd, at), 0) << strerror(errno);
  }
  int seen[2] = {};
  for (int i = 0; i < 64; i++) {
    sockaddr_in unused{};
    const int source = peer.datagram_socket(&unused);
    peer.send_to(source, self_address(at.sin_port), "x");
    pollfd both[2] = {{workers[0], POLLIN, 0}, {workers[1], POLLIN, 0}};
    ASSERT_EQ(poll(both, 2, 30'000), 1);
    const int which = both[0].revents != 0 ? 0 : 1;
    EXPECT_EQ(take(workers[which]), "x");
    seen[which]++;
    peer.close(source);
  }
  EXPECT_GT(seen[0], 8);
  EXPECT_GT(seen[1], 8);
}

// A socket that is connected to a host, whatever the port there, scores higher for what comes from there than one that is not
// (compute_score()).
TEST_F(Udp, OneWithAHostGoesFirst) {
  const sockaddr_in at = self_address(htons(5359));
  for (const int with_host : {0, 1}) {
    int both[2];
    for (int i = 0; i < 2; i++) {
      both[i] = open();
      EXPECT_EQ(set(both[i], SOL_SOCKET, SO_REUSEADDR, 1), 0);
      ASSERT_EQ(bind_to(both[i], at), 0) << strerror(errno);
      const int result = i == with_host ? connect_to(both[i], ipv4(inet_ntoa(there.sin_addr), 0)) : 0;
      ASSERT_EQ(result, 0) << strerror(errno);
    }
    peer.send_to(theirs, at, "from the host");
    EXPECT_EQ(wait_and_take(both[with_host]), "from the host");
    EXPECT_EQ(take(both[1 - with_host], nullptr, MSG_DONTWAIT), strerror(EAGAIN));
    close_opened();
  }
}

// Those who share a port by SO_REUSEPORT, one of them with a host: it alone gets what comes from there.
TEST_F(Udp, OneWithAHostSharesNothing) {
  const sockaddr_in at = self_address(htons(5360));
  for (const int with_host : {0, 1, 2}) {
    int sharing[3];
    for (int& fd : sharing) {
      fd = open();
      EXPECT_EQ(set(fd, SOL_SOCKET, SO_REUSEPORT, 1), 0);
      ASSERT_EQ(bind_to(fd, at), 0) << strerror(errno);
    }
    ASSERT_EQ(connect_to(sharing[with_host], ipv4(inet_ntoa(there.sin_addr), 0)), 0) << strerror(errno);
    for (int i = 0; i < 8; i++) {
      sockaddr_in unused{};
      const int source = peer.datagram_socket(&unused);
      peer.send_to(source, at, "x");
      EXPECT_EQ(wait_and_take(sharing[with_host]), "x");
      peer.close(source);
    }
    close_opened();
  }
}

// Connected to a host, whatever the port there (compute_score()): nothing of anybody else's, though its port is shared.
TEST_F(Udp, SharedPortOfOneWithAHost) {
  const sockaddr_in at = self_address(htons(5358));
  int sharing[3];
  for (int& fd : sharing) {
    fd = open();
    EXPECT_EQ(set(fd, SOL_SOCKET, SO_REUSEPORT, 1), 0);
    ASSERT_EQ(bind_to(fd, at), 0) << strerror(errno);
    if (&fd == &sharing[1]) {
      ASSERT_EQ(connect_to(fd, self_address()), 0) << strerror(errno);
    }
  }
  for (int i = 0; i < 32; i++) {
    sockaddr_in unused{};
    const int source = peer.datagram_socket(&unused);
    peer.send_to(source, at, "x");
    pollfd all[3] = {{sharing[0], POLLIN, 0}, {sharing[1], POLLIN, 0}, {sharing[2], POLLIN, 0}};
    ASSERT_EQ(poll(all, 3, 30'000), 1);
    EXPECT_EQ(all[1].revents, 0);
    for (const pollfd& each : all) {
      if (each.revents == 0) continue;
      EXPECT_EQ(take(each.fd), "x");
    }
    peer.close(source);
  }
}

}  // namespace
