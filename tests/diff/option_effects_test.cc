// What options do to connections: waiting with accept(), ending early, keeping little unsent, sending slowly, peeking at an offset, hearing
// the near only.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

void set(int fd, int level, int name, int value) { ASSERT_EQ(setsockopt(fd, level, name, &value, sizeof value), 0) << strerror(errno); }

int get(int fd, int level, int name) {
  int value = -77;
  socklen_t size = sizeof value;
  EXPECT_EQ(getsockopt(fd, level, name, &value, &size), 0) << strerror(errno);
  return value;
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  return info;
}

class Effects : public DiffTest {
 protected:
  // A listener that defers, and a peer that is connected to it and silent.
  int defer(int seconds) {
    sockaddr_in at{};
    listener_ = listen_here(&at, 64, SOCK_NONBLOCK);
    set(listener_, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds);
    theirs_ = peer.socket();
    EXPECT_EQ(peer.connect(theirs_, at).result, 0);
    return listener_;
  }
  int listener_ = -1, theirs_ = -1;
};

class EffectsBothWays : public BothWays {};
ZPS_BOTH_WAYS(EffectsBothWays);

TEST_F(Effects, DeferredUntilDataComes) {
  defer(10);
  EXPECT_EQ(wait_for(listener_, POLLIN, 300), 0);
  EXPECT_EQ(accept(listener_, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EAGAIN);
  ASSERT_EQ(peer.send(theirs_, "data").result, 4);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  const int fd = accept(listener_, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(read_all(fd, 4), "data");
}

TEST_F(Effects, DeferredForItsTime) {
  const uint64_t begin = now_ms();
  defer(1);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  EXPECT_GE(now_ms() - begin, 700u);
  const int fd = accept(listener_, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(peer.send(theirs_, "late").result, 4);
  EXPECT_EQ(read_all(fd, 4), "late");
}

TEST_F(Effects, DeferredUntilTheEndComes) {
  defer(10);
  peer.shutdown(theirs_, SHUT_WR);
  ASSERT_EQ(wait_for(listener_, POLLIN), POLLIN);
  const int fd = accept(listener_, nullptr, nullptr);
  char byte;
  EXPECT_EQ(recv(fd, &byte, 1, 0), 0);
}

// Who does not wait for the peer's end resets it.
TEST_P(EffectsBothWays, NoFinWait2) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_LINGER2, -1);
  EXPECT_EQ(get(c.mine, IPPROTO_TCP, TCP_LINGER2), -1);
  close(c.mine);
  const Reply seen = peer.call(PeerOp::poll, c.theirs, POLLHUP, 10'000);
  EXPECT_NE(seen.result & (POLLHUP | POLLERR), 0);
}

TEST_P(EffectsBothWays, LittleUnsent) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_SNDBUF, 1'000'000);
  set(c.mine, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 20'000);
  const std::string bytes(50'000, 'n');
  while (wait_for(c.mine, POLLOUT, 300) != 0) ASSERT_GT(send(c.mine, bytes.data(), bytes.size(), MSG_DONTWAIT), 0);
  const tcp_info info = info_of(c.mine);
  EXPECT_GE(info.tcpi_notsent_bytes, 10'000u);
  EXPECT_LE(info.tcpi_notsent_bytes, 150'000u) << "the buffer would hold more";
  peer.start(PeerOp::drain, c.theirs);
  EXPECT_NE(wait_for(c.mine, POLLOUT), 0);
}

TEST_P(EffectsBothWays, SlowlySent) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_MAX_PACING_RATE, 1'000'000);
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_MAX_PACING_RATE), 1'000'000);
  constexpr size_t kBytes = 600'000;
  const int job = peer.start(PeerOp::drain, c.theirs);
  const uint64_t begin = now_ms();
  const std::string bytes(kBytes, 's');
  ASSERT_EQ(send(c.mine, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(kBytes));
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(kBytes));
  EXPECT_GE(now_ms() - begin, 350u);
}

TEST_P(EffectsBothWays, PeekingGoesOn) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 0);
  ASSERT_EQ(peer.send(c.theirs, "abcdefgh").result, 8);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 3, MSG_PEEK), 3);
  EXPECT_EQ(std::string(bytes, 3), "abc");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 3);
  EXPECT_EQ(recv(c.mine, bytes, 2, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "de");
  EXPECT_EQ(recv(c.mine, bytes, 4, 0), 4) << "what is read is no longer in front";
  EXPECT_EQ(std::string(bytes, 4), "abcd");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 1);
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 3);
  EXPECT_EQ(std::string(bytes, 3), "fgh");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK | MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  const int job = peer.start(PeerOp::send, c.theirs, 0, 0, 0, "ijk");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 3) << "it waits for what is new";
  EXPECT_EQ(std::string(bytes, 3), "ijk");
  peer.finish(job);
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, -1);
  EXPECT_EQ(recv(c.mine, bytes, 2, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "ef");
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), -1);
  EXPECT_EQ(read_all(c.mine, 7), "efghijk");
}

TEST_P(EffectsBothWays, PeekingComesToTheEnd) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 2);
  ASSERT_EQ(peer.send(c.theirs, "abcd").result, 4);
  peer.shutdown(c.theirs, SHUT_WR);
  ASSERT_NE(wait_for(c.mine, POLLRDHUP) & POLLRDHUP, 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 2);
  EXPECT_EQ(std::string(bytes, 2), "cd");
  EXPECT_EQ(recv(c.mine, bytes, 8, MSG_PEEK), 0);
  EXPECT_EQ(read_all(c.mine, 8), "abcd");
}

TEST_P(EffectsBothWays, ACallForNoBytesLooksWhereItWouldTake) {
  const Connection c = connect_pair();
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 100);
  ASSERT_EQ(peer.send(c.theirs, "abcd").result, 4);
  ASSERT_NE(wait_for(c.mine, POLLIN), 0);
  char bytes[8] = {};
  EXPECT_EQ(recv(c.mine, bytes, 0, 0), 0) << "there is something in front";
  EXPECT_EQ(recv(c.mine, bytes, 0, MSG_PEEK | MSG_DONTWAIT), -1) << "but nothing at the offset";
  EXPECT_EQ(errno, EAGAIN);
  set(c.mine, SOL_SOCKET, SO_PEEK_OFF, 2);
  EXPECT_EQ(recv(c.mine, bytes, 0, MSG_PEEK), 0);
  EXPECT_EQ(get(c.mine, SOL_SOCKET, SO_PEEK_OFF), 2);
  EXPECT_EQ(read_all(c.mine, 4), "abcd");
}

// The window that the peer sees is no larger.
TEST_P(EffectsBothWays, AClampedWindow) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_TCP, TCP_WINDOW_CLAMP, 30'000);
  EXPECT_EQ(get(c.mine, IPPROTO_TCP, TCP_WINDOW_CLAMP), 30'000);
}

// RFC 5082: who is far away is not heard, until he says that he is near.
TEST_P(EffectsBothWays, FarSegmentsAreDropped) {
  const Connection c = connect_pair();
  set(c.mine, IPPROTO_IP, IP_MINTTL, 100);
  const uint32_t segments = info_of(c.mine).tcpi_segs_in;
  ASSERT_EQ(peer.send(c.theirs, "far").result, 3);
  EXPECT_EQ(wait_for(c.mine, POLLIN, 300), 0);
  EXPECT_EQ(info_of(c.mine).tcpi_segs_in, segments);
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(read_all(c.mine, 3), "far");
  EXPECT_GT(info_of(c.mine).tcpi_segs_in, segments);
  set(c.mine, IPPROTO_IP, IP_MINTTL, 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, c.theirs, IPPROTO_IP, IP_TTL, 2).result, 0);
  ASSERT_EQ(peer.send(c.theirs, "away").result, 4);
  EXPECT_EQ(read_all(c.mine, 4), "away");
}

TEST_F(Effects, FarHandshakesAreDropped) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  set(listener, IPPROTO_IP, IP_MINTTL, 100);
  const int theirs = peer.socket();
  const int job = peer.start_connect(theirs, at);
  EXPECT_EQ(wait_for(listener, POLLIN, 300), 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, theirs, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(peer.finish(job).result, 0);
  const int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(get(fd, IPPROTO_IP, IP_MINTTL), 100);
  ASSERT_EQ(peer.send(theirs, "near").result, 4);
  EXPECT_EQ(read_all(fd, 4), "near");
}

TEST_F(Effects, FarAnswersToASynAreDropped) {
  sockaddr_in at{};
  const int far = peer.listen(&at);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  set(fd, IPPROTO_IP, IP_MINTTL, 100);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  EXPECT_EQ(wait_for(fd, POLLOUT, 300), 0);
  ASSERT_EQ(peer.call(PeerOp::set_option, far, IPPROTO_IP, IP_TTL, 255).result, 0);
  EXPECT_EQ(wait_for(fd, POLLOUT), POLLOUT);
}

}  // namespace
