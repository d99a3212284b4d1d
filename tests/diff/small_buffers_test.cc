// Small send and receive buffers move data as promptly as on Linux: no timer of either side stands between two bufferfuls.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr int kPromptMs = 1000;  // a timer between two bufferfuls makes it more in each case; without any it is a few milliseconds
constexpr size_t kTotal = 160 * 1024;
constexpr size_t kLongTotal = 4 << 20;  // several of the windows that a connection begins with
constexpr int kLongPromptMs = 5000;     // some hundred windows

void set(int fd, int level, int option, int value) { EXPECT_EQ(setsockopt(fd, level, option, &value, sizeof value), 0) << strerror(errno); }

// How a program writes.
enum class Style { all, pieces, odd_pieces, no_delay, more, cork, nonblocking, file };
constexpr const char* kStyleNames[] = {"all", "pieces", "odd_pieces", "no_delay", "more", "cork", "nonblocking", "file"};

bool send_file(int fd) {
  FILE* file = tmpfile();
  const std::vector<char> text(kTotal, 'f');
  const bool written = fwrite(text.data(), 1, text.size(), file) == text.size() && fflush(file) == 0;
  off_t at = 0;
  while (written && at < static_cast<off_t>(kTotal)) {
    if (sendfile(fd, fileno(file), &at, kTotal - static_cast<size_t>(at)) <= 0) break;
  }
  fclose(file);
  return at == static_cast<off_t>(kTotal);
}

bool send_pieces(int fd, size_t piece, int flags, size_t total = kTotal) {
  const std::vector<char> text(piece, 'p');
  for (size_t done = 0; done < total;) {
    const size_t n = std::min(piece, total - done);
    const int now = done + n < total ? flags : flags & ~MSG_MORE;
    const ssize_t sent = send(fd, text.data(), n, now | MSG_NOSIGNAL);
    if (sent > 0) {
      done += static_cast<size_t>(sent);
      continue;
    }
    if (errno != EAGAIN) return false;
    pollfd one{fd, POLLOUT, 0};
    if (poll(&one, 1, 30000) != 1) return false;
  }
  return true;
}

bool send_all(int fd, Style style) {
  switch (style) {
    case Style::no_delay: set(fd, IPPROTO_TCP, TCP_NODELAY, 1); [[fallthrough]];
    case Style::all: return send_pieces(fd, kTotal, 0);
    case Style::pieces: return send_pieces(fd, 1000, 0);
    case Style::odd_pieces: return send_pieces(fd, 4097, 0);
    case Style::more: return send_pieces(fd, 1000, MSG_MORE);
    case Style::cork: {
      set(fd, IPPROTO_TCP, TCP_CORK, 1);
      const bool done = send_pieces(fd, 1000, 0);
      set(fd, IPPROTO_TCP, TCP_CORK, 0);
      return done;
    }
    case Style::nonblocking: return send_pieces(fd, kTotal, MSG_DONTWAIT);
    case Style::file: return send_file(fd);
  }
  return false;
}

size_t drain(int fd) {
  std::vector<char> buffer(65536);
  size_t seen = 0;
  for (ssize_t n; (n = read(fd, buffer.data(), buffer.size())) > 0;) seen += static_cast<size_t>(n);
  return seen;
}

std::string describe(int rcvbuf, int sndbuf, int style) {
  return "SO_RCVBUF " + std::to_string(rcvbuf) + ", SO_SNDBUF " + std::to_string(sndbuf) + ", " + kStyleNames[style];
}

void tell(int rcvbuf, int sndbuf, int style, uint64_t took_ms) {
  printf("%s: %d ms\n", describe(rcvbuf, sndbuf, style).c_str(), static_cast<int>(took_ms));
}

class SmallBuffers : public DiffTest {
 protected:
  // To the program's own address, both ends here; the receive buffer must be set before there is a connection.
  Connection connect_to_self(int sndbuf, int rcvbuf) {
    Connection made;
    sockaddr_in at{};
    const int listener = listen_here(&at);
    if (rcvbuf != 0) set(listener, SOL_SOCKET, SO_RCVBUF, rcvbuf);
    made.mine = socket(AF_INET, SOCK_STREAM, 0);
    set(made.mine, SOL_SOCKET, SO_SNDBUF, sndbuf);
    EXPECT_EQ(connect(made.mine, reinterpret_cast<sockaddr*>(&at), sizeof at), 0) << strerror(errno);
    made.theirs = accept(listener, nullptr, nullptr);
    EXPECT_GE(made.theirs, 0);
    close(listener);
    return made;
  }
  Connection connect_to_peer(int sndbuf, int rcvbuf) {
    Connection made;
    sockaddr_in at{};
    const int listener = peer.listen(&at);
    if (rcvbuf != 0) peer.call(PeerOp::set_option, listener, SOL_SOCKET, SO_RCVBUF, rcvbuf);
    made.mine = socket(AF_INET, SOCK_STREAM, 0);
    set(made.mine, SOL_SOCKET, SO_SNDBUF, sndbuf);
    linger until_delivered{1, 30};  // what is measured ends with the delivery, and this process takes part in it
    EXPECT_EQ(setsockopt(made.mine, SOL_SOCKET, SO_LINGER, &until_delivered, sizeof until_delivered), 0);
    EXPECT_EQ(connect(made.mine, reinterpret_cast<sockaddr*>(&at), sizeof at), 0) << strerror(errno);
    made.theirs = static_cast<int>(peer.accept(listener).result);
    peer.close(listener);
    return made;
  }
};

// A receive buffer that is small from the start has a small window in the end, whatever was offered at first.
TEST_F(SmallBuffers, ALongTransfer) {
  for (const bool to_peer : {false, true}) {
    for (const int rcvbuf : {2304, 4096, 16384}) {
      SCOPED_TRACE(describe(rcvbuf, 0, 0) + (to_peer ? " to the peer" : " to itself"));
      expect_within(kLongPromptMs, [&] {
        Connection c = to_peer ? connect_to_peer(1 << 20, rcvbuf) : connect_to_self(1 << 20, rcvbuf);
        size_t seen = 0;
        std::thread reader;
        const int job = to_peer ? peer.start(PeerOp::drain, c.theirs) : 0;
        if (!to_peer) reader = std::thread([&] { seen = drain(c.theirs); });
        const uint64_t start = now_ms();
        EXPECT_TRUE(send_pieces(c.mine, 100'000, 0, kLongTotal));
        close(c.mine);
        if (to_peer) {
          seen = static_cast<size_t>(peer.finish(job).result);
          peer.close(c.theirs);
        } else {
          reader.join();
          close(c.theirs);
        }
        tell(rcvbuf, 0, 0, now_ms() - start);
        EXPECT_EQ(seen, kLongTotal);
      });
    }
  }
}

TEST_F(SmallBuffers, ToItself) {
  for (const int rcvbuf : {0, 2304, 16384}) {
    for (const int sndbuf : {1, 4096, 9000, 40000}) {
      for (int style = 0; style <= static_cast<int>(Style::file); style++) {
        SCOPED_TRACE(describe(rcvbuf, sndbuf, style));
        expect_within(kPromptMs, [&] {
          Connection c = connect_to_self(sndbuf, rcvbuf);
          size_t seen = 0;
          std::thread reader([&] { seen = drain(c.theirs); });
          const uint64_t start = now_ms();
          EXPECT_TRUE(send_all(c.mine, static_cast<Style>(style)));
          close(c.mine);
          reader.join();
          tell(rcvbuf, sndbuf, style, now_ms() - start);
          EXPECT_EQ(seen, kTotal);
          close(c.theirs);
        });
      }
    }
  }
}

TEST_F(SmallBuffers, ToThePeer) {
  for (const int rcvbuf : {0, 2304, 16384}) {
    for (const int sndbuf : {1, 4096, 9000, 40000}) {
      for (int style = 0; style <= static_cast<int>(Style::file); style++) {
        SCOPED_TRACE(describe(rcvbuf, sndbuf, style));
        expect_within(kPromptMs, [&] {
          Connection c = connect_to_peer(sndbuf, rcvbuf);
          const int job = peer.start(PeerOp::drain, c.theirs);
          const uint64_t start = now_ms();
          EXPECT_TRUE(send_all(c.mine, static_cast<Style>(style)));
          close(c.mine);
          EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kTotal));
          tell(rcvbuf, sndbuf, style, now_ms() - start);
          peer.close(c.theirs);
        });
      }
    }
  }
}

}  // namespace
