// Sockets of AF_INET6: what they are called, listeners of one family and of both, ports that families share or do not, options.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/family.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr int kByIp4 = 1;

sockaddr_in6 ip6(const char* text, uint16_t port = 0) {
  sockaddr_in6 made{};
  made.sin6_family = AF_INET6;
  made.sin6_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET6, text, &made.sin6_addr), 1) << text;
  return made;
}
std::string mapped_self() { return std::string("::ffff:") + getenv("ZPS_TEST_SELF"); }
std::string mapped_peer() { return std::string("::ffff:") + getenv("ZPS_TEST_PEER"); }
const char* self6() { return getenv("ZPS_TEST_SELF6"); }
const char* peer6() { return getenv("ZPS_TEST_PEER6"); }

template <class Ask>
sockaddr_in6 name_by(int fd, Ask ask) {
  sockaddr_in6 name{};
  memset(&name, 0x55, sizeof name);
  socklen_t bytes = sizeof name;
  EXPECT_EQ(ask(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0) << strerror(errno);
  EXPECT_EQ(bytes, sizeof name);
  return name;
}
sockaddr_in6 name_of(int fd) { return name_by(fd, getsockname); }

void expect_name(const sockaddr_in6& name, const std::string& address) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(AF_INET6, &name.sin6_addr, text, sizeof text);
  const sockaddr_in6 wanted = ip6(address.c_str());
  EXPECT_EQ(memcmp(&name.sin6_addr, &wanted.sin6_addr, sizeof wanted.sin6_addr), 0) << text << " for " << address;
  EXPECT_EQ(name.sin6_family, AF_INET6);
  EXPECT_EQ(name.sin6_scope_id, 0u);
  EXPECT_EQ(name.sin6_flowinfo, 0u);
}

int bind6(int fd, const sockaddr_in6& name) { return bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno; }
int connect6(int fd, const sockaddr_in6& name) {
  return connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno;
}

void set(int fd, int level, int option, int value) { EXPECT_EQ(setsockopt(fd, level, option, &value, sizeof value), 0) << strerror(errno); }
int get(int fd, int level, int option) {
  int value = -1;
  socklen_t bytes = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, option, &value, &bytes), 0) << strerror(errno);
  return value;
}

class Ip6 : public DiffTest {
 protected:
  static int socket6(bool v6_only = false) {
    const int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (v6_only) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    return fd;
  }
  static int listener6(const char* at, bool v6_only, uint16_t* port) {
    const int fd = socket6(v6_only);
    EXPECT_EQ(bind6(fd, ip6(at, *port)), 0);
    EXPECT_EQ(listen(fd, 8), 0) << strerror(errno);
    *port = ntohs(name_of(fd).sin6_port);
    return fd;
  }
  // What the peer's connect() says, to the address of one family or the other.
  int peer_reaches(uint16_t port, bool by_ip4, int listener, sockaddr_in6* who = nullptr, int* accepted = nullptr) {
    const sockaddr_in to = self_address(htons(port));
    const int theirs = peer.socket();
    const Reply reply = peer.call(PeerOp::connect, theirs, to.sin_addr.s_addr, to.sin_port, by_ip4 ? kByIp4 : 0);
    if (reply.result == 0 && listener >= 0) {
      sockaddr_in6 name{};
      socklen_t bytes = sizeof name;
      const int fd = accept(listener, reinterpret_cast<sockaddr*>(&name), &bytes);
      EXPECT_GE(fd, 0) << strerror(errno);
      EXPECT_EQ(bytes, sizeof name);
      if (who != nullptr) *who = name;
      if (accepted != nullptr) *accepted = fd;
      else close(fd);
    }
    if (accepted == nullptr) peer.close(theirs);
    return reply.result == 0 ? 0 : reply.error;
  }
  // As the peer lets this program connect to it, over IPv6.
  int peer_listens(uint16_t* port) {
    sockaddr_in at{};
    const int fd = peer.listen(&at);
    *port = ntohs(at.sin_port);
    return fd;
  }
};

TEST_F(Ip6, AListenerOfBothFamilies) {
  uint16_t port = 0;
  const int listener = listener6("::", false, &port);
  expect_name(name_of(listener), "::");
  for (const bool by_ip4 : {false, true}) {
    sockaddr_in6 who{};
    int fd = -1;
    ASSERT_EQ(peer_reaches(port, by_ip4, listener, &who, &fd), 0);
    expect_name(who, by_ip4 ? mapped_peer() : peer6());
    expect_name(name_by(fd, getpeername), by_ip4 ? mapped_peer() : peer6());
    expect_name(name_of(fd), by_ip4 ? mapped_self() : self6());
    EXPECT_EQ(name_of(fd).sin6_port, htons(port));
    EXPECT_EQ(get(fd, IPPROTO_IPV6, IPV6_V6ONLY), 0);
    close(fd);
  }
}

TEST_F(Ip6, AListenerOfIp6Only) {
  uint16_t port = 0;
  const int listener = listener6("::", true, &port);
  EXPECT_EQ(peer_reaches(port, false, listener), 0);
  EXPECT_EQ(peer_reaches(port, true, -1), ECONNREFUSED);
  const int ip4 = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(port);
  ASSERT_EQ(bind(ip4, reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << strerror(errno);
  ASSERT_EQ(listen(ip4, 8), 0);
  const sockaddr_in to = self_address(htons(port));
  EXPECT_EQ(peer.call(PeerOp::connect, peer.socket(), to.sin_addr.s_addr, to.sin_port, kByIp4).result, 0);
  EXPECT_EQ(wait_for(ip4, POLLIN), POLLIN);
  EXPECT_EQ(wait_for(listener, POLLIN, 0), 0);
  EXPECT_EQ(peer_reaches(port, false, listener), 0);
}

TEST_F(Ip6, AListenerAtOneAddress) {
  uint16_t port = 0;
  int listener = listener6(self6(), false, &port);
  expect_name(name_of(listener), self6());
  EXPECT_EQ(peer_reaches(port, false, listener), 0);
  EXPECT_EQ(peer_reaches(port, true, -1), ECONNREFUSED);
  close(listener);
  port = 0;
  listener = listener6(mapped_self().c_str(), false, &port);
  expect_name(name_of(listener), mapped_self());
  EXPECT_EQ(peer_reaches(port, true, listener), 0);
  EXPECT_EQ(peer_reaches(port, false, -1), ECONNREFUSED);
}

TEST_F(Ip6, AConnectionToThePeer) {
  uint16_t port = 0;
  const int theirs = peer_listens(&port);
  const int fd = socket6();
  ASSERT_EQ(connect6(fd, ip6(peer6(), port)), 0);
  expect_name(name_of(fd), self6());
  expect_name(name_by(fd, getpeername), peer6());
  const Reply accepted = peer.accept(theirs);
  EXPECT_EQ(accepted.name.sin_port, name_of(fd).sin6_port);
  peer.send(static_cast<int>(accepted.result), "by 6");
  EXPECT_EQ(read_all(fd, 4), "by 6");
  const int mapped = socket6();
  ASSERT_EQ(connect6(mapped, ip6(mapped_peer().c_str(), port)), 0);
  expect_name(name_of(mapped), mapped_self());
  const int bound = socket6();
  ASSERT_EQ(bind6(bound, ip6(self6())), 0);
  const uint16_t own = name_of(bound).sin6_port;
  EXPECT_NE(own, 0);
  ASSERT_EQ(connect6(bound, ip6(peer6(), port)), 0);
  expect_name(name_of(bound), self6());
  EXPECT_EQ(name_of(bound).sin6_port, own);
}

TEST_F(Ip6, AConnectionToItself) {
  uint16_t port = 0;
  const int listener = listener6("::", false, &port);
  for (const char* to : {self6(), "::1"}) {
    const int fd = socket6();
    ASSERT_EQ(connect6(fd, ip6(to, port)), 0) << to;
    const int accepted = accept(listener, nullptr, nullptr);
    expect_name(name_by(accepted, getpeername), to);
    EXPECT_EQ(write(fd, "x", 1), 1);
    EXPECT_EQ(read_all(accepted, 1), "x");
    close(fd);
    close(accepted);
  }
}

TEST_F(Ip6, WhatIsRefused) {
  uint16_t port = 0;
  const int theirs = peer_listens(&port);
  peer.close(theirs);
  EXPECT_EQ(connect6(socket6(), ip6(peer6(), port)), ECONNREFUSED);
  EXPECT_EQ(connect6(socket6(true), ip6(mapped_peer().c_str(), port)), ENETUNREACH);
  sockaddr_in ip4 = peer_address(htons(port));
  EXPECT_EQ(connect(socket6(), reinterpret_cast<sockaddr*>(&ip4), sizeof ip4), -1);
  EXPECT_EQ(errno, EINVAL);
  const sockaddr_in6 name = ip6(peer6(), port);
  EXPECT_EQ(connect(socket6(), reinterpret_cast<const sockaddr*>(&name), sizeof name - 5), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(bind6(socket6(), ip6("fdc6:1200:0:77::5")), EADDRNOTAVAIL);
  EXPECT_EQ(bind6(socket6(true), ip6(mapped_self().c_str())), EINVAL);
  const int fd = socket6();
  ASSERT_EQ(bind6(fd, ip6(self6())), 0);
  EXPECT_EQ(bind6(fd, ip6(self6())), EINVAL);
  const int only = 1;
  EXPECT_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only), -1);
  EXPECT_EQ(errno, EINVAL);
}

struct User {
  std::string at;
  bool v6_only;
};

// Each user of a port against each other one.
TEST_F(Ip6, PortsOfBothFamilies) {
  const User users[] = {{"::", false},
                        {"::", true},
                        {self6(), false},
                        {self6(), true},
                        {mapped_self(), false},
                        {"0.0.0.0", false},
                        {getenv("ZPS_TEST_SELF"), false}};
  const auto take = [](const User& user, uint16_t port) {
    const bool ip4 = user.at.find(':') == std::string::npos;
    const int fd = socket(ip4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (user.v6_only) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    if (ip4) inet_pton(AF_INET, user.at.c_str(), &name.sin_addr);
    const int error =
        ip4 ? (bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) == 0 ? 0 : errno) : bind6(fd, ip6(user.at.c_str(), port));
    if (error == 0) return fd;
    close(fd);
    return -error;
  };
  constexpr const char* kExpected[] = {"xxxxxxx", "xxxx...", "xxxx...", "xxxx...", "x...xxx", "x...xxx", "x...xxx"};
  uint16_t port = 21000;
  for (size_t i = 0; i < std::size(users); i++) {
    std::string line;
    for (const User& second : users) {
      const int first_fd = take(users[i], ++port);
      ASSERT_GE(first_fd, 0) << users[i].at << strerror(-first_fd);
      const int second_fd = take(second, port);
      EXPECT_TRUE(second_fd >= 0 || second_fd == -EADDRINUSE) << strerror(-second_fd);
      line += second_fd >= 0 ? '.' : 'x';
      close(first_fd);
      if (second_fd >= 0) close(second_fd);
    }
    EXPECT_EQ(line, kExpected[i]) << users[i].at << (users[i].v6_only ? " only" : "");
  }
}

TEST_F(Ip6, OptionsThatAreReadBack) {
  uint16_t port = 0;
  const int listener = listener6("::", false, &port);
  set(listener, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  set(listener, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33);
  int fd = -1;
  ASSERT_EQ(peer_reaches(port, false, listener, nullptr, &fd), 0);
  EXPECT_EQ(get(fd, IPPROTO_IPV6, IPV6_TCLASS), 0x20);
  EXPECT_EQ(get(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 33);
  set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1);
  EXPECT_EQ(get(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
  EXPECT_EQ(get(fd, SOL_SOCKET, SO_DOMAIN), AF_INET6);
  EXPECT_GT(get(fd, IPPROTO_IPV6, IPV6_MTU), 1279);
  EXPECT_EQ(get(socket6(), IPPROTO_IPV6, IPV6_UNICAST_HOPS), 64);
}

}  // namespace
