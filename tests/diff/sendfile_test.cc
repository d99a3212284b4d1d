// sendfile() from files into sockets: whole, with offsets, in parts, into a full queue, past the end.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Sendfile : public BothWays {
 protected:
  static constexpr size_t kSize = 3000000;
  void SetUp() override {
    file_ = open(scratch_file("content").c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    std::string content = pattern(21, 0, kSize);
    ASSERT_EQ(write(file_, content.data(), content.size()), static_cast<ssize_t>(kSize));
    ASSERT_EQ(lseek(file_, 0, SEEK_SET), 0);
  }
  void TearDown() override { close(file_); }
  int file_ = -1;
};
ZPS_BOTH_WAYS(Sendfile);

TEST_P(Sendfile, WholeFile) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::check_pattern, c.theirs, 21, kSize, 50000);
  for (size_t sent = 0; sent < kSize;) {
    ssize_t count = sendfile(c.mine, file_, nullptr, kSize - sent);
    ASSERT_GT(count, 0) << strerror(errno);
    sent += static_cast<size_t>(count);
    EXPECT_EQ(lseek(file_, 0, SEEK_CUR), static_cast<off_t>(sent)) << "the file's own position moves";
  }
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kSize));
  EXPECT_EQ(sendfile(c.mine, file_, nullptr, 100), 0) << "at the end of the file";
}

TEST_P(Sendfile, WithAnOffset) {
  Connection c = connect_pair();
  off_t offset = 12345;
  ASSERT_EQ(sendfile(c.mine, file_, &offset, 1000), 1000);
  EXPECT_EQ(offset, 13345);
  EXPECT_EQ(lseek(file_, 0, SEEK_CUR), 0) << "the file's position stays";
  EXPECT_EQ(peer.recv_all(c.theirs, 1000), pattern(21, 12345, 1000));
  offset = kSize - 10;
  EXPECT_EQ(sendfile(c.mine, file_, &offset, 1000), 10);
  EXPECT_EQ(peer.recv_all(c.theirs, 10), pattern(21, kSize - 10, 10));
  EXPECT_EQ(sendfile(c.mine, file_, &offset, 0), 0);
}

TEST_P(Sendfile, IntoAFullQueue) {
  Connection c = connect_pair();
  fcntl(c.mine, F_SETFL, O_NONBLOCK);
  off_t offset = 0;
  size_t sent = 0, rounds = 0;
  int job = 0;
  while (sent < kSize * 10) {
    offset = static_cast<off_t>(sent % kSize);
    ssize_t count = sendfile(c.mine, file_, &offset, kSize - sent % kSize);
    if (count < 0) {
      ASSERT_EQ(errno, EAGAIN);
      EXPECT_EQ(offset, static_cast<off_t>(sent % kSize)) << "unchanged by a refusal";
      if (rounds++ == 0) job = peer.start(PeerOp::drain, c.theirs);
      ASSERT_TRUE(wait_for(c.mine, POLLOUT) & POLLOUT);
      continue;
    }
    ASSERT_GT(count, 0);
    EXPECT_EQ(offset, static_cast<off_t>(sent % kSize) + count);
    sent += static_cast<size_t>(count);
  }
  EXPECT_GT(rounds, 0u);
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(sent));
}

TEST_P(Sendfile, FromASocketOrAPipeIsRefused) {
  Connection c = connect_pair();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(sendfile(c.mine, c.mine, nullptr, 10), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(sendfile(c.mine, 999, nullptr, 10), -1);
  EXPECT_EQ(errno, EBADF);
  off_t negative = -5;
  EXPECT_EQ(sendfile(c.mine, file_, &negative, 10), -1);
  EXPECT_EQ(errno, EINVAL);
}

TEST_P(Sendfile, AfterShutdown) {
  Connection c = connect_pair();
  signal(SIGPIPE, SIG_IGN);
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(sendfile(c.mine, file_, nullptr, 10), -1);
  EXPECT_EQ(errno, EPIPE);
}

}  // namespace
