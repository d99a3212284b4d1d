// A datagram socket that is passed on in a message (SCM_RIGHTS).
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/peer.h"
#include "tests/lib/rights.h"

using namespace testing_lib;

namespace {

class UdpRights : public DiffTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    theirs = peer.datagram_socket(&at);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    socklen_t bytes = sizeof name;
    ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0);
  }
  int ends[2], theirs, fd;
  sockaddr_in at{}, name{};
};

TEST_F(UdpRights, WhatComesWhileItIsInFlightIsReceived) {
  ASSERT_EQ(pass(ends[0], {fd}), 1);
  close(fd);
  peer.send_to(theirs, name, "while in flight");
  const int mine = receive_one(ends[1]);
  ASSERT_GE(mine, 0);
  char data[100];
  ASSERT_EQ(recv(mine, data, sizeof data, 0), 15);
  ASSERT_EQ(send(mine, "and back", 8, 0), 8);
  EXPECT_EQ(peer.recv_from(theirs).payload, "and back");
}

TEST_F(UdpRights, InAnotherProcess) {
  const int before = fd;
  const pid_t child = fork();
  if (child == 0) {
    close(before);
    const int mine = receive_one(ends[1]);
    char data[100];
    const ssize_t count = recv(mine, data, sizeof data, 0);
    _exit(count > 0 && send(mine, data, static_cast<size_t>(count), 0) == count ? 0 : 1);
  }
  ASSERT_EQ(pass(ends[0], {fd}), 1);
  close(fd);
  peer.send_to(theirs, name, "there");
  EXPECT_EQ(peer.recv_from(theirs).payload, "there");
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
