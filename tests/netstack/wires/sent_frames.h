// A packet wire of a test's own, whose frames a socket of the test gets, each behind its virtio header.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "packet_bed.h"

namespace packet_bed {

class SentFrames : public testing::Test {
 protected:
  // The pool is the process's.
  static void SetUpTestSuite() {
    if (unshare(CLONE_NEWNET) == 0) bed_ = new Bed;
  }

  void SetUp() override {
    if (bed_ == nullptr) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    int pair[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
    ASSERT_EQ(dup2(pair[0], bed_->sending()), bed_->sending());
    close(pair[0]);
    kernel_ = pair[1];
  }
  void TearDown() override {
    if (kernel_ >= 0) close(kernel_);
  }

  static netstack::PacketWire& wire() { return *bed_->wire; }

  static inline Bed* bed_ = nullptr;
  int kernel_ = -1;
};

}  // namespace packet_bed
