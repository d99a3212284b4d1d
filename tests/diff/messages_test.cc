// sendmsg() and recvmsg() on connections: control messages, names, flags, and the order in which they are looked at.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Messages : public BothWays {
 protected:
  struct Control {
    int level, type;
    std::vector<char> data;
  };
  // Sends "x" with these control messages.
  long send_with(int fd, const std::vector<Control>& all) {
    memory_.assign(1024, 0);
    size_t at = 0;
    for (const Control& one : all) {
      auto* header = reinterpret_cast<cmsghdr*>(memory_.data() + at);
      header->cmsg_len = CMSG_LEN(one.data.size());
      header->cmsg_level = one.level;
      header->cmsg_type = one.type;
      memcpy(CMSG_DATA(header), one.data.data(), one.data.size());
      at += CMSG_SPACE(one.data.size());
    }
    return send_raw(fd, memory_.data(), at);
  }
  static long send_raw(int fd, void* control, size_t bytes) {
    iovec part{const_cast<char*>("x"), 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = bytes;
    return sendmsg(fd, &message, MSG_NOSIGNAL);
  }
  static std::vector<char> of(uint32_t value) {
    std::vector<char> bytes(sizeof value);
    memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  std::vector<char> memory_;
};
ZPS_BOTH_WAYS(Messages);

TEST_P(Messages, ControlThatIsIgnored) {
  Connection c = connect_pair();
  EXPECT_EQ(send_with(c.mine, {{SOL_SOCKET, SCM_RIGHTS, of(0)}}), 1) << strerror(errno);
  EXPECT_EQ(send_with(c.mine, {{SOL_SOCKET, SCM_CREDENTIALS, std::vector<char>(12)}}), 1) << strerror(errno);
  EXPECT_EQ(send_with(c.mine, {{IPPROTO_IP, IP_TOS, of(4)}}), 1) << strerror(errno);
  const std::vector<Control> several = {{12345, 6, {}}, {IPPROTO_TCP, 99, std::vector<char>(100)}, {SOL_SOCKET, SCM_RIGHTS, of(1)}};
  EXPECT_EQ(send_with(c.mine, several), 1) << strerror(errno);
  EXPECT_EQ(send_with(c.mine, {{SOL_SOCKET, SO_MARK, of(0)}}), 1) << strerror(errno);
  // Too short for a header is none at all.
  char few[8] = {};
  EXPECT_EQ(send_raw(c.mine, few, sizeof few), 1) << strerror(errno);
  EXPECT_EQ(peer.recv_all(c.theirs, 6), "xxxxxx");
}

TEST_P(Messages, ControlThatIsRefused) {
  Connection c = connect_pair();
  constexpr int kTxTime = 61;
  const std::vector<char> two(2), eight(8);
  const Control all[] = {{SOL_SOCKET, 12345, of(0)}, {SOL_SOCKET, SO_MARK, two}, {SOL_SOCKET, kTxTime, eight}};
  for (const Control& wrong : all) {
    EXPECT_EQ(send_with(c.mine, {wrong}), -1) << wrong.type;
    EXPECT_EQ(errno, EINVAL) << wrong.type;
    EXPECT_EQ(send_with(c.mine, {{IPPROTO_IP, IP_TTL, of(4)}, wrong}), -1) << wrong.type;
    EXPECT_EQ(errno, EINVAL) << wrong.type;
  }
  for (const size_t length : {size_t{0}, size_t{15}, size_t{33}, SIZE_MAX}) {
    cmsghdr alone[2] = {};
    alone[0].cmsg_len = length;
    alone[0].cmsg_level = IPPROTO_IP;
    EXPECT_EQ(send_raw(c.mine, alone, sizeof alone), -1) << length;
    EXPECT_EQ(errno, EINVAL) << length;
  }
  EXPECT_EQ(send_raw(c.mine, nullptr, 16), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(send_raw(c.mine, reinterpret_cast<void*>(8), 16), -1);
  EXPECT_EQ(errno, EFAULT);
  char any[1];
  EXPECT_EQ(send_raw(c.mine, any, size_t{1} << 40), -1);
  EXPECT_EQ(errno, ENOBUFS);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_DONTWAIT).error, EAGAIN) << "nothing was sent";
  // The connection's state comes first, bad memory before that.
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(send_raw(c.mine, nullptr, 16), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(send_with(c.mine, {{SOL_SOCKET, 12345, of(0)}}), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(send_with(c.mine, {{SOL_SOCKET, SCM_RIGHTS, of(0)}}), -1);
  EXPECT_EQ(errno, EPIPE);
}

TEST_P(Messages, WhatReceivingReports) {
  Connection c = connect_pair();
  peer.send(c.theirs, "ab");
  ASSERT_EQ(wait_for(c.mine, POLLIN), POLLIN);
  char byte, control[64];
  for (const int flags : {0, static_cast<int>(MSG_CMSG_CLOEXEC)}) {
    iovec part{&byte, 1};
    sockaddr_in name{};
    name.sin_port = 77;
    msghdr message{};
    message.msg_name = &name;
    message.msg_namelen = sizeof name;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    message.msg_flags = -1;
    EXPECT_EQ(recvmsg(c.mine, &message, flags), 1);
    EXPECT_EQ(message.msg_namelen, 0u);
    EXPECT_EQ(name.sin_port, 77) << "untouched";
    EXPECT_EQ(message.msg_controllen, 0u);
    EXPECT_EQ(message.msg_flags, flags);
  }
}

}  // namespace
