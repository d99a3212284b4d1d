// Datagrams with control messages: what recvmsg() tells, and sendmsg() with one of them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <map>

#include "tests/lib/datagrams.h"

namespace testing_lib {

struct Received {
  ssize_t result = -1;
  int error = 0, flags = 0;
  sockaddr_in6 from{};
  std::string text;
  std::map<std::pair<int, int>, std::string> control;
  [[nodiscard]] bool has(int level, int type) const { return control.count({level, type}) != 0; }
  // A control message's bytes as a T; as an int, one that has fewer. -1 if there is none.
  [[nodiscard]] int number(int level, int type) const {
    if (!has(level, type)) return -1;
    int value = 0;
    const std::string& bytes = control.at({level, type});
    memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof value));
    return value;
  }
  template <class T>
  [[nodiscard]] T as(int level, int type) const {
    T value{};
    EXPECT_TRUE(has(level, type)) << level << " " << type;
    if (!has(level, type)) return value;
    EXPECT_EQ(control.at({level, type}).size(), sizeof value);
    memcpy(&value, control.at({level, type}).data(), std::min(sizeof value, control.at({level, type}).size()));
    return value;
  }
};

inline Received receive(int fd, int flags = 0, size_t control_bytes = 512) {
  static char buffer[65536];
  char control[512] = {};
  Received got;
  iovec part{buffer, sizeof buffer};
  msghdr message{};
  message.msg_name = &got.from;
  message.msg_namelen = sizeof got.from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = control_bytes;
  got.result = recvmsg(fd, &message, flags);
  got.error = got.result < 0 ? errno : 0;
  if (got.result < 0) return got;
  got.flags = message.msg_flags;
  got.text.assign(buffer, static_cast<size_t>(got.result));
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    got.control[{c->cmsg_level, c->cmsg_type}] = std::string(reinterpret_cast<char*>(CMSG_DATA(c)), c->cmsg_len - CMSG_LEN(0));
  }
  return got;
}

template <class T>
std::string bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// To an address as it is, of whatever family.
template <class Address>
ssize_t send_message(int fd, const Address& to, int level, int type, const std::string& data, const std::string& text) {
  alignas(cmsghdr) char control[128] = {};
  auto* const head = reinterpret_cast<cmsghdr*>(control);
  *head = {CMSG_LEN(data.size()), level, type};
  memcpy(CMSG_DATA(head), data.data(), data.size());
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_name = const_cast<Address*>(&to);
  message.msg_namelen = sizeof to;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(data.size());
  return sendmsg(fd, &message, 0);
}

inline ssize_t send_with(int fd, const sockaddr_in& to, int level, int type, const std::string& data, const std::string& text = "x") {
  const Name name = in_family(to);
  if (name.bytes == sizeof(sockaddr_in6)) return send_message(fd, name.address, level, type, data, text);
  return send_message(fd, to, level, type, data, text);
}

}  // namespace testing_lib
