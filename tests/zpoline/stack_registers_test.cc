// Every register over socket calls that TCP serves: data copied in and out, waiting, and connections made and closed.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <random>
#include <vector>

#include "tests/lib/peer.h"
#include "tests/zpoline/snapshot.h"

using namespace testing_lib;

namespace {

class StackRegisters : public DiffTest {
 protected:
  // The call's result; all else is compared. `flags`: DF is clear here, as the ABI has it.
  long call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
    static constexpr uint64_t kFlags[] = {0x202, 0x202 | 0x8d5, 0x202 | 0x801, 0x202 | 0x0d4};
    const int width = static_cast<int>(turn_ % static_cast<unsigned>(tests::widest() + 1));
    tests::State in = tests::random_state(random_, nr);
    in.flags = kFlags[turn_++ % 4];
    in.mxcsr = 0x1f80;  // the kernel's copy of a signal frame or a switch may not see anything else here
    const long arguments[] = {a, b, c, d, e, f};
    static constexpr int kPlaces[] = {7, 6, 2, 10, 8, 9};
    for (int i = 0; i < 6; i++) in.general[kPlaces[i]] = static_cast<uint64_t>(arguments[i]);
    static tests::State out;
    SCOPED_TRACE(::testing::Message() << "call " << nr << ", width " << width);
    tests::snapshot_call(&in, &out, width);
    tests::expect_kept(in, out, width);
    return static_cast<long>(out.general[0]);
  }
  template <class T>
  static long word(T* pointer) {
    return reinterpret_cast<long>(pointer);
  }

 private:
  std::mt19937_64 random_{99};
  unsigned turn_ = 0;
};

TEST_F(StackRegisters, OverDataInBothDirections) {
  const Connection pair = connect_pair();
  std::vector<char> data(20000, 'x');
  for (const size_t bytes : {1, 15, 16, 64, 100, 1000, 1448, 4096, 9000, 20000}) {
    const long size = static_cast<long>(bytes);
    for (int turn = 0; turn < 3; turn++) {
      ASSERT_EQ(call(SYS_sendto, pair.mine, word(data.data()), size), size);
      ASSERT_EQ(peer.recv_all(pair.theirs, bytes).size(), bytes);
      ASSERT_EQ(call(SYS_write, pair.mine, word(data.data()), size), size);
      ASSERT_EQ(peer.recv_all(pair.theirs, bytes).size(), bytes);
      peer.send(pair.theirs, std::string_view(data.data(), bytes));
      for (long got = 0; got < size;) {
        const long part = call(turn == 0 ? SYS_recvfrom : SYS_read, pair.mine, word(data.data()), size - got);
        ASSERT_GT(part, 0);
        got += part;
      }
    }
  }
  close(pair.mine);
}

TEST_F(StackRegisters, OverWaits) {
  const Connection pair = connect_pair();
  const int epoll = epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 7}};
  ASSERT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pair.mine, word(&event)), 0);
  for (int turn = 0; turn < 12; turn++) {
    pollfd fd{pair.mine, POLLIN, 0};
    char byte = 0;
    EXPECT_EQ(call(SYS_poll, word(&fd), 1, 0), 0);
    EXPECT_EQ(call(SYS_epoll_wait, epoll, word(&event), 1, 0), 0);
    EXPECT_EQ(call(SYS_recvfrom, pair.mine, word(&byte), 1, MSG_DONTWAIT), -EAGAIN);
    peer.send(pair.theirs, "x");
    // Each of them sleeps for what the peer has sent, or finds it.
    if (turn % 3 == 0) {
      EXPECT_EQ(call(SYS_poll, word(&fd), 1, 10000), 1);
    }
    if (turn % 3 == 1) {
      EXPECT_EQ(call(SYS_epoll_wait, epoll, word(&event), 1, 10000), 1);
    }
    EXPECT_EQ(call(SYS_read, pair.mine, word(&byte), 1), 1);
    EXPECT_EQ(byte, 'x');
    // A registration changed, taken out, put back (the second time while there is something to tell), and in ways that are refused.
    EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, pair.mine, word(&event)), 0);
    EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pair.mine, word(&event)), -EEXIST);
    EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_MOD, pair.mine, 8), -EFAULT);
    for (const uint32_t events : {uint32_t{EPOLLOUT} | EPOLLET, uint32_t{EPOLLIN}}) {
      EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, pair.mine), 0);
      EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, pair.mine), -ENOENT);
      event.events = events;
      EXPECT_EQ(call(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pair.mine, word(&event)), 0);
    }
  }
  close(epoll);
  close(pair.mine);
}

TEST_F(StackRegisters, OverMakingAndClosing) {
  sockaddr_in at{};
  const int listener = peer.listen(&at);
  for (int turn = 0; turn < 12; turn++) {
    const long fd = call(SYS_socket, AF_INET, SOCK_STREAM, 0);
    ASSERT_GE(fd, 0);
    const int one = 1;
    int got = 0;
    socklen_t size = sizeof got;
    EXPECT_EQ(call(SYS_setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, word(&one), sizeof one), 0);
    EXPECT_EQ(call(SYS_getsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, word(&got), word(&size)), 0);
    EXPECT_EQ(got, 1);
    ASSERT_EQ(call(SYS_connect, fd, word(&at), sizeof at), 0);
    const int theirs = static_cast<int>(peer.accept(listener).result);
    EXPECT_EQ(call(SYS_ioctl, fd, FIONREAD, word(&got)), 0);
    EXPECT_EQ(call(SYS_fcntl, fd, F_SETFL, O_NONBLOCK), 0);
    EXPECT_EQ(call(SYS_shutdown, fd, SHUT_WR), 0);
    EXPECT_EQ(call(SYS_close, fd), 0);
    peer.close(theirs);
  }
}

}  // namespace
