// Datagram sockets of a differential test, and the calls it makes on them with less ado.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/lib/family.h"
#include "tests/lib/peer.h"

namespace testing_lib {

inline sockaddr_in ipv4(const char* text, uint16_t port_be) {
  sockaddr_in made{};
  made.sin_family = AF_INET;
  made.sin_port = port_be;
  inet_pton(AF_INET, text, &made.sin_addr);
  return made;
}

class DatagramTest : public DiffTest {
 protected:
  void SetUp() override { theirs = peer.datagram_socket(&there); }
  void TearDown() override { close_opened(); }
  void close_opened() {
    for (int fd : opened_) close(fd);
    opened_.clear();
  }

  int open(int flags = 0) {
    const int fd = socket(domain(), SOCK_DGRAM | flags, 0);
    EXPECT_GE(fd, 0) << strerror(errno);
    opened_.push_back(fd);
    return fd;
  }
  // Bound to all addresses and a port of the system's choice; `here` gets what the peer sends to.
  int bound(sockaddr_in* here, int flags = 0) {
    const int fd = open(flags);
    EXPECT_EQ(bind_to(fd, ipv4("0.0.0.0", 0)), 0) << strerror(errno);
    *here = self_address(name_of(fd).sin_port);
    return fd;
  }
  static int bind_to(int fd, const sockaddr_in& to) {
    const Name name = in_family(to);
    return bind(fd, name.get(), name.bytes);
  }
  static int connect_to(int fd, const sockaddr_in& to) {
    const Name name = in_family(to);
    return connect(fd, name.get(), name.bytes);
  }
  static int disconnect(int fd) {
    const sockaddr nowhere{AF_UNSPEC, {}};
    return connect(fd, &nowhere, sizeof nowhere);
  }
  static sockaddr_in name_of(int fd, int (*ask)(int, sockaddr*, socklen_t*) = getsockname) {
    sockaddr_in6 name{};
    socklen_t bytes = sizeof name;
    if (ask(fd, reinterpret_cast<sockaddr*>(&name), &bytes) != 0) name = {};
    return from_family(name);
  }
  static ssize_t send_to(int fd, const sockaddr_in& to, const std::string& text, int flags = 0) {
    const Name name = in_family(to);
    return sendto(fd, text.data(), text.size(), flags, name.get(), name.bytes);
  }
  // The next datagram as text, or the error's.
  static std::string take(int fd, sockaddr_in* from = nullptr, int flags = 0) {
    char buffer[65536];
    sockaddr_in6 who{};
    socklen_t bytes = sizeof who;
    const ssize_t count = recvfrom(fd, buffer, sizeof buffer, flags, reinterpret_cast<sockaddr*>(&who), &bytes);
    if (count < 0) return strerror(errno);
    if (from != nullptr) *from = from_family(who);
    return {buffer, static_cast<size_t>(count)};
  }
  static std::string wait_and_take(int fd, sockaddr_in* from = nullptr) {
    EXPECT_EQ(wait_for(fd, kReadable), kReadable);
    return take(fd, from, MSG_DONTWAIT);
  }
  static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }
  static int get(int fd, int level, int name) {
    int value = -1;
    socklen_t bytes = sizeof value;
    return getsockopt(fd, level, name, &value, &bytes) == 0 ? value : -errno;
  }

  static constexpr short kReadable = 1;
  int theirs = -1;      // the peer's socket,
  sockaddr_in there{};  // and where it is

 private:
  std::vector<int> opened_;
};

}  // namespace testing_lib
