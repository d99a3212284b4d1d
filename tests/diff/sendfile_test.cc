// sendfile() from files into sockets: whole, with offsets, in parts, between writes, into a full queue, past the end, of files of several
// kinds.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>

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

// Written and sent from the file in turn, in pieces of all sizes, corked and not.
TEST_P(Sendfile, BetweenWrites) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::check_pattern, c.theirs, 21, kSize, 50000);
  constexpr size_t kPieces[] = {1, 100, 1448, 1460, 4032, 16320, 65472, 65473, 100000};
  size_t sent = 0;
  for (size_t i = 0; sent < kSize; i++) {
    const int cork = i % 5 == 3;
    ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &cork, sizeof cork), 0);
    const size_t wanted = std::min(kPieces[i % std::size(kPieces)], kSize - sent);
    off_t offset = static_cast<off_t>(sent);
    const std::string written = i % 2 == 0 ? pattern(21, sent, wanted) : std::string();
    const ssize_t count = i % 2 == 0 ? write(c.mine, written.data(), wanted) : sendfile(c.mine, file_, &offset, wanted);
    ASSERT_EQ(count, static_cast<ssize_t>(wanted)) << strerror(errno);
    sent += wanted;
  }
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kSize));
}

// Of which the page cache has parts only.
TEST_P(Sendfile, OfAFileThatHasToBeRead) {
  Connection c = connect_pair();
  ASSERT_EQ(fdatasync(file_), 0);
  constexpr size_t kPart = 500000;
  std::string part(kPart, '\0');
  for (size_t at = 0; at < kSize; at += 2 * kPart) {
    ASSERT_EQ(posix_fadvise(file_, static_cast<off_t>(at + kPart), kPart, POSIX_FADV_DONTNEED), 0);
    ASSERT_EQ(pread(file_, part.data(), kPart, static_cast<off_t>(at)), static_cast<ssize_t>(kPart));
  }
  int job = peer.start(PeerOp::check_pattern, c.theirs, 21, kSize, 50000);
  EXPECT_EQ(sendfile(c.mine, file_, nullptr, kSize), static_cast<ssize_t>(kSize));
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kSize));
}

TEST_P(Sendfile, OfAFileThatBecameShorter) {
  Connection c = connect_pair();
  constexpr size_t kLeft = 1000003;
  ASSERT_EQ(ftruncate(file_, kLeft), 0);
  int job = peer.start(PeerOp::check_pattern, c.theirs, 21, kLeft, 50000);
  size_t sent = 0;
  for (ssize_t count = 1; count > 0; sent += static_cast<size_t>(count)) {
    count = sendfile(c.mine, file_, nullptr, kSize);
    ASSERT_GE(count, 0) << strerror(errno);
  }
  EXPECT_EQ(sent, kLeft);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kLeft));
}

TEST_P(Sendfile, OfOtherKinds) {
  constexpr size_t kBytes = 15 * 5 * 4096;  // O_DIRECT reads whole blocks
  const std::string content = pattern(21, 0, kBytes);
  const int memory = memfd_create("content", 0), zeros = open("/dev/zero", O_RDONLY);
  ASSERT_EQ(write(memory, content.data(), kBytes), static_cast<ssize_t>(kBytes));
  const int direct = open(scratch_file("content").c_str(), O_RDONLY | O_DIRECT);  // -1 where there is no such thing
  Connection c = connect_pair();
  for (const int file : {memory, zeros, direct}) {
    if (file < 0) continue;
    off_t offset = 0;
    for (size_t sent = 0; sent < kBytes;) {
      const size_t most = std::min<size_t>(4096 * 5, kBytes - sent);
      const ssize_t count = sendfile(c.mine, file, &offset, most);
      ASSERT_GT(count, 0) << strerror(errno);
      sent += static_cast<size_t>(count);
      const std::string expected = content.substr(sent - static_cast<size_t>(count), static_cast<size_t>(count));
      EXPECT_TRUE(file == zeros || offset == static_cast<off_t>(sent));  // the device has no positions
      EXPECT_EQ(peer.recv_all(c.theirs, expected.size()), file == zeros ? std::string(expected.size(), '\0') : expected);
    }
    close(file);
  }
}

// It says how far it has come, and goes on from there.
TEST_P(Sendfile, IsInterruptedBehindAPart) {
  Connection c = connect_pair();
  const int little = 50000;
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_SNDBUF, &little, sizeof little), 0);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGALRM, &action, nullptr), 0);
  const itimerval soon{{0, 50000}, {0, 50000}}, never{};
  ASSERT_EQ(setitimer(ITIMER_REAL, &soon, nullptr), 0);
  const ssize_t first = sendfile(c.mine, file_, nullptr, kSize);
  ASSERT_EQ(setitimer(ITIMER_REAL, &never, nullptr), 0);
  ASSERT_GT(first, 0);
  ASSERT_LT(first, static_cast<ssize_t>(kSize));
  EXPECT_EQ(lseek(file_, 0, SEEK_CUR), first);
  int job = peer.start(PeerOp::check_pattern, c.theirs, 21, kSize, 50000);
  for (size_t sent = static_cast<size_t>(first); sent < kSize;) {
    const ssize_t count = sendfile(c.mine, file_, nullptr, kSize - sent);
    ASSERT_GT(count, 0) << strerror(errno);
    sent += static_cast<size_t>(count);
  }
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kSize));
}

}  // namespace
