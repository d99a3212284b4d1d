// What write() accepted reaches the peer before the connection ends, in whatever way it ends: also before a reset.
// SPDX-License-Identifier: BSD-3-Clause
//
// Linux hands to the device in write() what windows, Nagle and cork let out, and close() cannot take it back. Only what they hold is lost
// to a reset.

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

// Ways in which a process lets go of a descriptor.
enum class End { close, last_copy, dup2, dup3, close_range, exit, exit_group, exec, kill };
constexpr const char* kEndNames[] = {"close", "last_copy", "dup2", "dup3", "close_range", "exit", "exit_group", "exec", "kill"};

// In a process that holds nothing else of the connection.
[[noreturn]] void end_process(End end, int fd) {
  switch (end) {
    case End::exit: _exit(0);
    case End::exit_group: syscall(SYS_exit_group, 0); break;
    case End::exec:
      fcntl(fd, F_SETFD, FD_CLOEXEC);
      execl("/bin/true", "true", nullptr);
      break;
    default: kill(getpid(), SIGKILL);
  }
  abort();
}

// Runs `last_words` and lets the connection go.
void end(End how, int fd, const std::function<void()>& last_words) {
  if (how >= End::exit) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      last_words();
      end_process(how, fd);
    }
    ASSERT_EQ(close(fd), 0);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    return;
  }
  int other = -1;
  if (how == End::last_copy) other = dup(fd);
  if (how == End::dup2 || how == End::dup3) other = open("/dev/null", O_RDWR);
  last_words();
  switch (how) {
    case End::last_copy:
      EXPECT_EQ(close(fd), 0);
      EXPECT_EQ(close(other), 0);
      break;
    case End::dup2: EXPECT_EQ(dup2(other, fd), fd); break;
    case End::dup3: EXPECT_EQ(dup3(other, fd, O_CLOEXEC), fd); break;
    case End::close_range: EXPECT_EQ(syscall(SYS_close_range, fd, fd, 0), 0); break;
    default: EXPECT_EQ(close(fd), 0);
  }
}

// Why the connection ends with a reset, or that it does not.
enum class Reason { none, linger_zero, unread_before, unread_after, linger_and_unread };

void set_linger(int fd, int seconds) {
  linger option{1, seconds};
  ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof option), 0);
}

bool memif() { return strcmp(getenv("ZPS_TEST_MODE"), "zpstack-memif") == 0; }

void set(int fd, int level, int option, int value) { ASSERT_EQ(setsockopt(fd, level, option, &value, sizeof value), 0); }

std::string words(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; i++) text[i] = static_cast<char>('a' + i % 23);
  return text;
}

class LastBytes : public BothWays {
 protected:
  // The peer reads to the end, whatever that is. An error is told after the data.
  std::string rest(int theirs, int* error) {
    std::string all;
    *error = 0;
    while (true) {
      Reply part = peer.recv(theirs, kMaxPayload);
      if (part.result <= 0) {
        if (part.result < 0) *error = part.error;
        return all;
      }
      all += part.payload;
    }
  }
  void unread(const Connection& c) {
    peer.send(c.theirs, "unread");
    ASSERT_TRUE(wait_for(c.mine, POLLIN) & POLLIN);
  }
  void expect_rest(const Connection& c, const std::string& text, int error) { expect_at_least(text.size(), c, text, error); }
  void expect_at_least(size_t bytes, const Connection& c, const std::string& text, int error) {
    int told = 0;
    const std::string seen = rest(c.theirs, &told);
    EXPECT_GE(seen.size(), bytes);
    EXPECT_LE(seen.size(), text.size());
    EXPECT_TRUE(seen == text.substr(0, seen.size()));
    EXPECT_EQ(told, error);
    peer.close(c.theirs);
  }
  // Every way to let go, each with what fits one segment, and several.
  void expect_delivery(Reason reason) {
    for (int how = 0; how <= static_cast<int>(End::kill); how++) {
      for (const size_t bytes : {1, 1000, 3001, 14001}) {
        SCOPED_TRACE(std::string(kEndNames[how]) + " " + std::to_string(bytes));
        Connection c = connect_pair();
        const std::string text = words(bytes);
        if (reason == Reason::linger_zero) set_linger(c.mine, 0);
        if (reason == Reason::linger_and_unread) set_linger(c.mine, 5);
        if (reason == Reason::unread_before || reason == Reason::linger_and_unread) unread(c);
        end(static_cast<End>(how), c.mine, [&] {
          EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
          if (reason == Reason::unread_after) unread(c);
        });
        expect_rest(c, text, reason == Reason::none ? 0 : ECONNRESET);
      }
    }
  }
};
ZPS_BOTH_WAYS(LastBytes);

TEST_P(LastBytes, ThenFin) { expect_delivery(Reason::none); }
TEST_P(LastBytes, LingerZero) { expect_delivery(Reason::linger_zero); }
TEST_P(LastBytes, UnreadBefore) { expect_delivery(Reason::unread_before); }
TEST_P(LastBytes, UnreadAfter) { expect_delivery(Reason::unread_after); }
TEST_P(LastBytes, LingerAndUnread) { expect_delivery(Reason::linger_and_unread); }

// More than the first window: acknowledgements come while it is written, where the peer is a kernel's. Another stack acknowledges when it
// has the processor; the first window (RFC 6928) it has all the same.
TEST_P(LastBytes, ALargeAnswerToARequestThatWasNotRead) {
  constexpr size_t kFirstWindow = 10 * 1448;
  for (int i = 0; i < 10; i++) {
    Connection c = connect_pair();
    unread(c);
    const std::string text = words(20019);
    EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(close(c.mine), 0);
    expect_at_least(memif() ? kFirstWindow : text.size(), c, text, ECONNRESET);
  }
}

// In pieces, each sent at once.
TEST_P(LastBytes, WithoutDelay) {
  Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_NODELAY, 1);
  set_linger(c.mine, 0);
  std::string all;
  for (int i = 0; i < 10; i++) {
    const std::string text = words(static_cast<size_t>(100 + i));
    EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    all += text;
  }
  EXPECT_EQ(close(c.mine), 0);
  expect_rest(c, all, ECONNRESET);
}

// What Nagle's algorithm holds leaves with the acknowledgement, and the peer has acknowledged.
TEST_P(LastBytes, LetOutByWhatHasCome) {
  Connection c = connect_pair();
  set_linger(c.mine, 0);
  const std::string first = words(141), second = words(215);
  EXPECT_EQ(write(c.mine, first.data(), first.size()), static_cast<ssize_t>(first.size()));
  EXPECT_EQ(write(c.mine, second.data(), second.size()), static_cast<ssize_t>(second.size()));
  EXPECT_EQ(peer.recv_all(c.theirs, first.size()), first);
  EXPECT_EQ(close(c.mine), 0);
  expect_rest(c, second, ECONNRESET);
}

// What a cork holds back is lost, and no more: whole segments have left.
TEST_P(LastBytes, OfACork) {
  for (const bool more : {false, true}) {
    SCOPED_TRACE(more);
    Connection c = connect_pair();
    if (!more) set(c.mine, IPPROTO_TCP, TCP_CORK, 1);
    set_linger(c.mine, 0);
    const std::string text = words(10000);
    EXPECT_EQ(send(c.mine, text.data(), text.size(), more ? MSG_MORE : 0), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(close(c.mine), 0);
    int error = 0;
    const std::string seen = rest(c.theirs, &error);
    EXPECT_EQ(error, ECONNRESET);
    EXPECT_EQ(seen, text.substr(0, seen.size()));
    const size_t segment = on_stack() ? 4000 : 1460;
    EXPECT_GE(seen.size(), text.size() - segment);
    if (!more) {  // MSG_MORE holds until the peer has acknowledged the rest
      EXPECT_LT(seen.size(), text.size());
    }
    peer.close(c.theirs);
  }
}

TEST_P(LastBytes, UncorkedJustBefore) {
  Connection c = connect_pair();
  set_linger(c.mine, 0);
  set(c.mine, IPPROTO_TCP, TCP_CORK, 1);
  const std::string text = words(2000);
  EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  set(c.mine, IPPROTO_TCP, TCP_CORK, 0);
  EXPECT_EQ(close(c.mine), 0);
  expect_rest(c, text, ECONNRESET);
}

// The FIN has been said, and then the reset: the peer has seen the end.
TEST_P(LastBytes, ShutdownThenReset) {
  Connection c = connect_pair();
  set_linger(c.mine, 0);
  const std::string text = words(5000);
  EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(close(c.mine), 0);
  expect_rest(c, text, 0);
}

// The peer has closed its side: both have said their last, and nothing is left to reset.
TEST_P(LastBytes, LingerZeroAfterBothFins) {
  Connection c = connect_pair();
  set_linger(c.mine, 0);
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_TRUE(wait_for(c.mine, POLLIN) & POLLIN);
  const std::string text = words(5000);
  EXPECT_EQ(write(c.mine, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(close(c.mine), 0);
  expect_rest(c, text, 0);
}

// Behind a window that the peer keeps shut nothing fits, but the reset must.
TEST_P(LastBytes, BehindAFullWindow) {
  Connection c = connect_pair();
  set_linger(c.mine, 0);
  const std::string piece = words(60000);
  size_t written = 0;
  while (true) {
    const ssize_t n = send(c.mine, piece.data(), piece.size(), MSG_DONTWAIT);
    if (n > 0) {
      written += static_cast<size_t>(n);
    } else if (wait_for(c.mine, POLLOUT, 300) == 0) {
      break;
    }
  }
  EXPECT_EQ(close(c.mine), 0);
  int error = 0;
  const size_t seen = rest(c.theirs, &error).size();
  EXPECT_EQ(error, ECONNRESET);
  EXPECT_GT(seen, 0u);
  EXPECT_LE(seen, written);
  peer.close(c.theirs);
}

}  // namespace
