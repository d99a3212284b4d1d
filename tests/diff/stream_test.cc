// Byte streams: any split of writes against any split of reads, vectors, flags of recv, half close and end of stream.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/pattern.h"
#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

class Stream : public BothWays {};
ZPS_BOTH_WAYS(Stream);

// Sends `total` pattern bytes in random parts through randomly chosen calls.
void send_randomly(int fd, uint64_t seed, size_t total) {
  Random random(seed);
  std::vector<uint8_t> buffer(100000);
  for (size_t sent = 0; sent < total;) {
    size_t part = std::min(random.size(1, buffer.size()), total - sent);
    fill_pattern(seed, sent, buffer.data(), part);
    size_t first = random.next() % (part + 1);
    iovec parts[3] = {{buffer.data(), first}, {nullptr, 0}, {buffer.data() + first, part - first}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 3;
    ssize_t count;
    switch (random.next() % 4) {
      case 0: count = write(fd, buffer.data(), part); break;
      case 1: count = send(fd, buffer.data(), part, 0); break;
      case 2: count = writev(fd, parts, 3); break;
      default: count = sendmsg(fd, &message, 0); break;
    }
    ASSERT_GT(count, 0) << strerror(errno) << " seed " << seed;
    ASSERT_EQ(static_cast<size_t>(count), part) << "a blocking write is complete, seed " << seed;
    sent += static_cast<size_t>(count);
  }
}

void receive_randomly(int fd, uint64_t seed, size_t total) {
  Random random(seed + 7);
  std::vector<uint8_t> buffer(100000);
  for (size_t seen = 0; seen < total;) {
    size_t part = std::min(random.size(1, buffer.size()), total - seen);
    size_t first = random.next() % (part + 1);
    iovec parts[3] = {{buffer.data(), first}, {nullptr, 0}, {buffer.data() + first, part - first}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 3;
    ssize_t count;
    switch (random.next() % 4) {
      case 0: count = read(fd, buffer.data(), part); break;
      case 1: count = recv(fd, buffer.data(), part, 0); break;
      case 2: count = readv(fd, parts, 3); break;
      default: count = recvmsg(fd, &message, 0); break;
    }
    ASSERT_GT(count, 0) << strerror(errno) << " at " << seen << " seed " << seed;
    ASSERT_EQ(pattern_mismatch(seed, seen, buffer.data(), static_cast<size_t>(count)), -1) << "seed " << seed;
    seen += static_cast<size_t>(count);
  }
}

TEST_P(Stream, SendsEverySplit) {
  for (uint64_t seed = 1; seed <= 6; seed++) {
    Connection c = connect_pair();
    size_t total = 2000000;
    int job = peer.start(PeerOp::check_pattern, c.theirs, static_cast<int64_t>(seed), static_cast<int64_t>(total), 60000);
    send_randomly(c.mine, seed, total);
    Reply checked = peer.finish(job);
    EXPECT_EQ(checked.result, static_cast<int64_t>(total)) << "error or first wrong byte " << checked.error << " seed " << seed;
    close(c.mine);
  }
}

TEST_P(Stream, ReceivesEverySplit) {
  for (uint64_t seed = 1; seed <= 6; seed++) {
    Connection c = connect_pair();
    size_t total = 2000000;
    int job = peer.start(PeerOp::send_pattern, c.theirs, static_cast<int64_t>(seed), static_cast<int64_t>(total), 60000);
    receive_randomly(c.mine, seed, total);
    EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
    close(c.mine);
  }
}

// Both directions at once, with the application as the one who must not deadlock: non-blocking with poll.
TEST_P(Stream, BothDirectionsAtOnce) {
  Connection c = connect_pair();
  const size_t total = 3000000;
  int job = peer.start(PeerOp::echo, c.theirs, total);
  fcntl(c.mine, F_SETFL, O_NONBLOCK);
  std::vector<uint8_t> out(65536), in(65536);
  size_t sent = 0, seen = 0;
  while (seen < total) {
    pollfd one{c.mine, static_cast<short>(POLLIN | (sent < total ? POLLOUT : 0)), 0};
    ASSERT_EQ(poll(&one, 1, 20000), 1) << "sent " << sent << " seen " << seen;
    if (one.revents & POLLOUT) {
      size_t part = std::min(out.size(), total - sent);
      fill_pattern(9, sent, out.data(), part);
      ssize_t count = write(c.mine, out.data(), part);
      ASSERT_TRUE(count > 0 || errno == EAGAIN) << strerror(errno);
      if (count > 0) sent += static_cast<size_t>(count);
    }
    if (one.revents & POLLIN) {
      ssize_t count = read(c.mine, in.data(), in.size());
      ASSERT_TRUE(count > 0 || (count < 0 && errno == EAGAIN)) << count << " " << strerror(errno);
      if (count < 0) continue;
      ASSERT_EQ(pattern_mismatch(9, seen, in.data(), static_cast<size_t>(count)), -1);
      seen += static_cast<size_t>(count);
    }
  }
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
}

// A peer that does not read yet may still write: what it sends is acknowledged, also after its window has been probed.
TEST_P(Stream, AShutWindowLeavesTheOtherDirectionOpen) {
  Connection c = connect_pair();
  std::vector<uint8_t> out(65536);
  size_t sent = 0;
  for (pollfd one{c.mine, POLLOUT, 0}; poll(&one, 1, 100) == 1;) {
    fill_pattern(3, sent, out.data(), out.size());
    ssize_t count = send(c.mine, out.data(), out.size(), MSG_DONTWAIT);
    ASSERT_TRUE(count > 0 || errno == EAGAIN) << strerror(errno);
    if (count > 0) sent += static_cast<size_t>(count);
  }
  usleep(900000);
  timeval limit{10, 0};
  ASSERT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
  const size_t total = 16000000;
  int job = peer.start(PeerOp::send_pattern, c.theirs, 4, static_cast<int64_t>(total), 60000);
  ASSERT_NO_FATAL_FAILURE(receive_randomly(c.mine, 4, total));
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(total));
  job = peer.start(PeerOp::check_pattern, c.theirs, 3, static_cast<int64_t>(sent), 60000);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(sent));
  close(c.mine);
}

TEST_P(Stream, PartialReadsGoOnWhereTheLastOneEnded) {
  Connection c = connect_pair();
  peer.send(c.theirs, "abcdefghij");
  char got[4] = {};
  ASSERT_EQ(read_all(c.mine, 3), "abc");
  ASSERT_EQ(read_all(c.mine, 3), "def");
  ASSERT_EQ(recv(c.mine, got, 1, 0), 1);
  EXPECT_EQ(got[0], 'g');
  EXPECT_EQ(read_all(c.mine, 3), "hij");
}

TEST_P(Stream, PeekLeavesTheBytes) {
  Connection c = connect_pair();
  peer.send(c.theirs, "peekaboo");
  char got[16] = {};
  EXPECT_EQ(recv(c.mine, got, 8, MSG_PEEK | MSG_WAITALL), 8);
  EXPECT_EQ(std::string(got, 8), "peekaboo");
  memset(got, 0, sizeof got);
  EXPECT_EQ(recv(c.mine, got, 4, MSG_PEEK), 4);
  EXPECT_EQ(std::string(got, 4), "peek");
  EXPECT_EQ(read_all(c.mine, 8), "peekaboo");
  EXPECT_EQ(recv(c.mine, got, 1, MSG_PEEK | MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
}

TEST_P(Stream, WaitAllWaitsForAll) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::send_pattern, c.theirs, 5, 300000, 1000);
  std::vector<uint8_t> got(300000);
  EXPECT_EQ(recv(c.mine, got.data(), got.size(), MSG_WAITALL), 300000);
  EXPECT_EQ(pattern_mismatch(5, 0, got.data(), got.size()), -1);
  peer.finish(job);
  peer.send(c.theirs, "tail");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(recv(c.mine, got.data(), 100, MSG_WAITALL), 4) << "the end of the stream ends the wait";
}

TEST_P(Stream, WaitAllOverSeveralParts) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::send_pattern, c.theirs, 6, 50000, 700);
  std::vector<uint8_t> got(50000);
  iovec parts[3] = {{got.data(), 1}, {got.data() + 1, 30000}, {got.data() + 30001, 19999}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 3;
  EXPECT_EQ(recvmsg(c.mine, &message, MSG_WAITALL), 50000);
  EXPECT_EQ(pattern_mismatch(6, 0, got.data(), got.size()), -1);
  peer.finish(job);
}

TEST_P(Stream, DontWaitNeverWaits) {
  Connection c = connect_pair();
  char byte;
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  std::vector<char> block(1 << 20);
  size_t sent = 0;
  for (;;) {
    ssize_t count = send(c.mine, block.data(), block.size(), MSG_DONTWAIT);
    if (count < 0) break;
    sent += static_cast<size_t>(count);
    ASSERT_LT(sent, size_t{1} << 30) << "the peer reads nothing: the queue must fill";
  }
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GT(sent, 0u);
  int job = peer.start(PeerOp::drain, c.theirs);
  EXPECT_TRUE(wait_for(c.mine, POLLOUT) & POLLOUT);
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.finish(job).result, static_cast<int64_t>(sent));
}

TEST_P(Stream, TruncThrowsAway) {
  Connection c = connect_pair();
  peer.send(c.theirs, "0123456789");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  char got[8] = "xxxxxxx";
  EXPECT_EQ(recv(c.mine, got, 4, MSG_TRUNC), 4);
  EXPECT_EQ(std::string(got), "xxxxxxx") << "TCP discards, and writes nothing to the buffer";
  EXPECT_EQ(read_all(c.mine, 6), "456789");
}

TEST_P(Stream, ZeroLengths) {
  Connection c = connect_pair();
  char byte = 'x';
  EXPECT_EQ(send(c.mine, &byte, 0, 0), 0);
  EXPECT_EQ(write(c.mine, &byte, 0), 0);
  EXPECT_EQ(recv(c.mine, &byte, 0, MSG_DONTWAIT), -1);
  EXPECT_EQ(errno, EAGAIN) << "recv of nothing asks for the state all the same";
  EXPECT_EQ(read(c.mine, &byte, 0), 0);
  peer.send(c.theirs, "z");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(recv(c.mine, &byte, 0, 0), 0);
  EXPECT_EQ(read_all(c.mine, 1), "z");
}

TEST_P(Stream, RecvFromAndSendToOnAConnectedStream) {
  Connection c = connect_pair();
  peer.send(c.theirs, "who");
  char got[8];
  sockaddr_in from;
  memset(&from, 0x55, sizeof from);
  socklen_t size = sizeof from;
  ASSERT_EQ(recvfrom(c.mine, got, sizeof got, 0, reinterpret_cast<sockaddr*>(&from), &size), 3);
  EXPECT_EQ(size, 0u) << "a stream leaves the address alone";
  sockaddr_in to = peer_address(1);
  EXPECT_EQ(sendto(c.mine, "hi", 2, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 2) << strerror(errno);
  EXPECT_EQ(peer.recv_all(c.theirs, 2), "hi");
}

TEST_P(Stream, RecvmsgFillsItsHeader) {
  Connection c = connect_pair();
  peer.send(c.theirs, "head");
  char got[8], control[64];
  sockaddr_in from{};
  iovec part{got, sizeof got};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  message.msg_flags = 0x7777;
  ASSERT_EQ(recvmsg(c.mine, &message, 0), 4);
  EXPECT_EQ(message.msg_namelen, 0u);
  EXPECT_EQ(message.msg_controllen, 0u);
  EXPECT_EQ(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB | MSG_ERRQUEUE), 0);
}

TEST_P(Stream, ManyMessagesInOneCall) {
  Connection c = connect_pair();
  char a[] = "first ", b[] = "second";
  iovec parts[2] = {{a, 6}, {b, 6}};
  mmsghdr out[2] = {};
  for (int i = 0; i < 2; i++) {
    out[i].msg_hdr.msg_iov = &parts[i];
    out[i].msg_hdr.msg_iovlen = 1;
  }
  ASSERT_EQ(sendmmsg(c.mine, out, 2, 0), 2);
  EXPECT_EQ(out[0].msg_len, 6u);
  EXPECT_EQ(peer.recv_all(c.theirs, 12), "first second");
  peer.send(c.theirs, "abcdef");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  char got[6];
  iovec in_parts[2] = {{got, 3}, {got + 3, 3}};
  mmsghdr in[2] = {};
  for (int i = 0; i < 2; i++) {
    in[i].msg_hdr.msg_iov = &in_parts[i];
    in[i].msg_hdr.msg_iovlen = 1;
  }
  ASSERT_EQ(recvmmsg(c.mine, in, 2, 0, nullptr), 2);
  EXPECT_EQ(in[0].msg_len + in[1].msg_len, 6u);
  EXPECT_EQ(std::string(got, 6), "abcdef");
}

TEST_P(Stream, EndOfStreamWhileStillSendable) {
  Connection c = connect_pair();
  peer.send(c.theirs, "last words");
  peer.shutdown(c.theirs, SHUT_WR);
  EXPECT_EQ(read_all(c.mine, 100), "last words");
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), 0);
  EXPECT_EQ(read(c.mine, &byte, 1), 0) << "the end stays the end";
  EXPECT_EQ(write(c.mine, "still here", 10), 10);
  EXPECT_EQ(peer.recv_all(c.theirs, 10), "still here");
  int job = peer.start(PeerOp::check_pattern, c.theirs, 3, 500000, 5000);
  send_randomly(c.mine, 3, 500000);
  EXPECT_EQ(peer.finish(job).result, 500000);
  EXPECT_EQ(close(c.mine), 0);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Stream, HalfCloseFromHere) {
  Connection c = connect_pair();
  ASSERT_EQ(write(c.mine, "bye", 3), 3);
  ASSERT_EQ(shutdown(c.mine, SHUT_WR), 0);
  EXPECT_EQ(peer.recv_all(c.theirs, 10), "bye");
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  int job = peer.start(PeerOp::send_pattern, c.theirs, 4, 500000, 5000);
  receive_randomly(c.mine, 4, 500000);
  EXPECT_EQ(peer.finish(job).result, 500000);
  EXPECT_EQ(send(c.mine, "x", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_EQ(shutdown(c.mine, SHUT_WR), 0) << "twice is fine";
}

TEST_P(Stream, ShutdownOfReading) {
  Connection c = connect_pair();
  ASSERT_EQ(shutdown(c.mine, SHUT_RD), 0);
  char byte;
  EXPECT_EQ(read(c.mine, &byte, 1), 0);
  EXPECT_EQ(write(c.mine, "out", 3), 3);
  EXPECT_EQ(peer.recv_all(c.theirs, 3), "out");
}

TEST_P(Stream, EverythingSentArrivesAfterClose) {
  Connection c = connect_pair();
  int job = peer.start(PeerOp::check_pattern, c.theirs, 8, 4000000, 20000);
  send_randomly(c.mine, 8, 4000000);
  ASSERT_EQ(close(c.mine), 0);
  EXPECT_EQ(peer.finish(job).result, 4000000);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
}

TEST_P(Stream, CorkAndMoreHoldBack) {
  Connection c = connect_pair();
  int on = 1, off = 0;
  ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
  ASSERT_EQ(write(c.mine, "held", 4), 4);
  ASSERT_EQ(write(c.mine, "back", 4), 4);
  ASSERT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &off, sizeof off), 0);
  EXPECT_EQ(peer.recv_all(c.theirs, 8), "heldback");
  ASSERT_EQ(send(c.mine, "more ", 5, MSG_MORE), 5);
  ASSERT_EQ(send(c.mine, "to come", 7, 0), 7);
  EXPECT_EQ(peer.recv_all(c.theirs, 12), "more to come");
}

TEST_P(Stream, QueueLengths) {
  Connection c = connect_pair();
  int value = -1;
  ASSERT_EQ(ioctl(c.mine, FIONREAD, &value), 0);
  EXPECT_EQ(value, 0);
  peer.send(c.theirs, "twelve bytes");
  char got[12];
  ASSERT_EQ(recv(c.mine, got, 12, MSG_PEEK | MSG_WAITALL), 12);
  ASSERT_EQ(ioctl(c.mine, FIONREAD, &value), 0);
  EXPECT_EQ(value, 12);
  read_all(c.mine, 5);
  ASSERT_EQ(ioctl(c.mine, FIONREAD, &value), 0);
  EXPECT_EQ(value, 7);
  ASSERT_EQ(write(c.mine, "acknowledge me", 14), 14);
  EXPECT_EQ(peer.recv_all(c.theirs, 14), "acknowledge me");
  // The acknowledgement may be delayed; the peer's answer carries it.
  peer.send(c.theirs, "!");
  read_all(c.mine, 8);
  ASSERT_EQ(ioctl(c.mine, TIOCOUTQ, &value), 0);
  EXPECT_EQ(value, 0);
}

TEST_P(Stream, UrgentAndPositionedCallsAreRefused) {
  Connection c = connect_pair();
  char byte;
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_OOB), -1);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(recv(c.mine, &byte, 1, MSG_ERRQUEUE), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(pread(c.mine, &byte, 1, 0), -1);
  EXPECT_EQ(errno, ESPIPE);
  EXPECT_EQ(pwrite(c.mine, &byte, 1, 0), -1);
  EXPECT_EQ(errno, ESPIPE);
  EXPECT_EQ(lseek(c.mine, 0, SEEK_SET), -1);
  EXPECT_EQ(errno, ESPIPE);
}

TEST_P(Stream, PositionedVectorCallsWithoutPosition) {
  Connection c = connect_pair();
  char out[] = "v2";
  iovec part{out, 2};
  EXPECT_EQ(pwritev2(c.mine, &part, 1, -1, 0), 2) << strerror(errno);
  EXPECT_EQ(peer.recv_all(c.theirs, 2), "v2");
  EXPECT_EQ(preadv2(c.mine, &part, 1, -1, RWF_NOWAIT), -1);
  EXPECT_EQ(errno, EAGAIN);
  peer.send(c.theirs, "ok");
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(preadv2(c.mine, &part, 1, -1, RWF_NOWAIT), 2);
  EXPECT_EQ(std::string(out, 2), "ok");
}

}  // namespace
