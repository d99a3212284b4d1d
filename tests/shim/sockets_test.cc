// Sockets: which side serves them, and what passes between the program and a stream.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <thread>

#include "base/clock.h"
#include "shim/family/family.h"
#include "shim/family/wait.h"
#include "shim/files/fd_table.h"
#include "shim_bed.h"

namespace shim_test {
namespace {

sockaddr_in address(const char* text, uint16_t port_be) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = port_be;
  in.sin_addr.s_addr = inet_addr(text);
  return in;
}

int stream_socket(int flags = 0, int domain = AF_INET) { return static_cast<int>(call(SYS_socket, domain, SOCK_STREAM | flags, 0)); }

bool is_ours(int fd) { return shim::peek(fd) != nullptr; }

TEST(Sockets, LoopbackGoesToTheKernelForGood) {
  const int fd = stream_socket();
  EXPECT_TRUE(is_ours(fd));
  const sockaddr_in nobody = address("127.0.0.1", htons(1));
  EXPECT_EQ(call(SYS_connect, fd, arg(&nobody), sizeof nobody), -ECONNREFUSED);
  EXPECT_FALSE(is_ours(fd));
  EXPECT_EQ(call(SYS_close, fd), 0);
  expect_all_closed();
}

TEST(Sockets, OtherKindsNeverEnterTheTable) {
  const int datagram = static_cast<int>(call(SYS_socket, AF_INET, SOCK_DGRAM, 0));
  const int local = static_cast<int>(call(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
  EXPECT_FALSE(is_ours(datagram) || is_ours(local));
  EXPECT_EQ(call(SYS_close, datagram), 0);
  EXPECT_EQ(call(SYS_close, local), 0);
}

TEST(Sockets, ConnectReachesTheStacksOwnListenerAlsoAsMappedIpv6) {
  {
    Listening listening;
    const int plain = stream_socket();
    const sockaddr_in to = address("198.18.0.2", listening.port_be);
    EXPECT_EQ(call(SYS_connect, plain, arg(&to), sizeof to), 0);
    EXPECT_EQ(call(SYS_connect, plain, arg(&to), sizeof to), -EISCONN);
    const int mapped = stream_socket(SOCK_NONBLOCK, AF_INET6);
    sockaddr_in6 to6{};
    to6.sin6_family = AF_INET6;
    to6.sin6_port = listening.port_be;
    inet_pton(AF_INET6, "::ffff:198.18.0.2", &to6.sin6_addr);
    EXPECT_EQ(call(SYS_connect, mapped, arg(&to6), sizeof to6), -EINPROGRESS);
    EXPECT_EQ(call(SYS_connect, mapped, arg(&to6), sizeof to6), 0);
    sockaddr_in6 name{};
    socklen_t bytes = sizeof name;
    EXPECT_EQ(call(SYS_getpeername, mapped, arg(&name), arg(&bytes)), 0);
    EXPECT_EQ(memcmp(&name.sin6_addr, &to6.sin6_addr, sizeof name.sin6_addr), 0);
    sockaddr_in peer{};
    bytes = sizeof peer;
    const long first = call(SYS_accept4, listening.fd, arg(&peer), arg(&bytes), 0);
    const long second = call(SYS_accept4, listening.fd, 0, 0, 0);
    EXPECT_EQ(ntohs(peer.sin_port) + 1, ntohs(static_cast<shim::Socket*>(shim::peek(second))->stream->peer().port_be)) << "oldest first";
    for (long fd : {static_cast<long>(plain), static_cast<long>(mapped), first, second}) EXPECT_EQ(call(SYS_close, fd), 0);
  }
  expect_all_closed();
}

TEST(Sockets, ARefusedConnectLeavesASocketThatCanTryAgain) {
  {
    Listening listening;
    const int fd = stream_socket();
    const sockaddr_in wrong = address("198.18.0.2", htons(9));
    EXPECT_EQ(call(SYS_connect, fd, arg(&wrong), sizeof wrong), -ECONNREFUSED);
    const sockaddr_in right = address("198.18.0.2", listening.port_be);
    EXPECT_EQ(call(SYS_connect, fd, arg(&right), sizeof right), 0);
    EXPECT_EQ(call(SYS_close, fd), 0);
  }
  expect_all_closed();
}

TEST(Sockets, AnUntouchedPlaceholderIsTheNextConnectionsToo) {
  {
    Listening listening;
    const auto next = [&listening](void (*deed)(int fd)) {
      int fd;
      FakeStream* far = listening.connect(&fd);
      struct stat about{};
      EXPECT_EQ(fstat(fd, &about), 0);
      deed(fd);
      EXPECT_EQ(call(SYS_close, fd), 0);
      far_close(far);
      return about.st_ino;
    };
    const auto nothing = [](int) {};
    const ino_t first = next(nothing);
    EXPECT_EQ(next([](int fd) { EXPECT_EQ(call(SYS_fcntl, fd, F_SETFL, O_NONBLOCK), 0); }), first);
    EXPECT_EQ(next([](int fd) {
      const int yes = 1;
      EXPECT_EQ(call(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, arg(&yes), sizeof yes), 0);
    }), first) << "the stream holds it";
    EXPECT_EQ(next([](int fd) {
      const int yes = 1;
      EXPECT_EQ(call(SYS_setsockopt, fd, SOL_SOCKET, SO_OOBINLINE, arg(&yes), sizeof yes), 0);
    }), first);
    const ino_t second = next(nothing);
    EXPECT_NE(second, first) << "it has an option that a new one has not";
    EXPECT_EQ(next([](int) { hook().before_fork(CLONE_VM | CLONE_VFORK); }), second);
    EXPECT_NE(next(nothing), second) << "a child may have it";
  }
  expect_all_closed();
}

TEST(Sockets, AWildcardListenerAcceptsFromBothSides) {
  {
    Listening listening;
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in to = address("127.0.0.1", listening.port_be);
    ASSERT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
    const int accepted = static_cast<int>(call(SYS_accept4, listening.fd, 0, 0, 0));
    ASSERT_GE(accepted, 0);
    EXPECT_FALSE(is_ours(accepted));
    int near;
    FakeStream* far = listening.connect(&near);
    EXPECT_TRUE(is_ours(near));
    EXPECT_EQ(call(SYS_close, accepted), 0);
    EXPECT_EQ(call(SYS_close, near), 0);
    close(client);
    far_close(far);
  }
  expect_all_closed();
}

TEST(Sockets, BindToTheStackReservesThePort) {
  const int first = stream_socket(), second = stream_socket();
  sockaddr_in name = address("198.18.0.2", 0);
  ASSERT_EQ(call(SYS_bind, first, arg(&name), sizeof name), 0);
  socklen_t bytes = sizeof name;
  ASSERT_EQ(call(SYS_getsockname, first, arg(&name), arg(&bytes)), 0);
  EXPECT_NE(name.sin_port, 0);
  EXPECT_EQ(name.sin_addr.s_addr, kStackAddress);
  EXPECT_EQ(call(SYS_bind, second, arg(&name), sizeof name), -EADDRINUSE);
  EXPECT_EQ(call(SYS_listen, first, 5), 0);
  EXPECT_EQ(call(SYS_close, first), 0);
  EXPECT_EQ(call(SYS_bind, second, arg(&name), sizeof name), 0);
  EXPECT_EQ(call(SYS_close, second), 0);
  expect_all_closed();
}

class Stream : public testing::Test {
 protected:
  void SetUp() override {
    listening_ = new Listening();
    far_ = listening_->connect(&near_);
  }
  void TearDown() override {
    EXPECT_EQ(call(SYS_close, near_), 0);
    far_close(far_);
    delete listening_;
    expect_all_closed();
  }
  Listening* listening_;
  int near_;
  FakeStream* far_;
};

TEST_F(Stream, ShortReadsPeeksAndVectors) {
  far_write(far_, "abcdef");
  char first[4] = {}, second[8] = {};
  EXPECT_EQ(call(SYS_recvfrom, near_, arg(first), 3, MSG_PEEK, 0, 0), 3);
  EXPECT_STREQ(first, "abc");
  iovec parts[2] = {{first, 2}, {second, 8}};
  EXPECT_EQ(call(SYS_readv, near_, arg(parts), 2), 6);
  EXPECT_STREQ(second, "cdef");
  EXPECT_EQ(call(SYS_recvfrom, near_, arg(first), 3, MSG_DONTWAIT, 0, 0), -EAGAIN);
  EXPECT_EQ(call(SYS_preadv2, near_, arg(parts), 2, 0, 0, 0), -ESPIPE);
  EXPECT_EQ(call(SYS_readv, near_, arg(parts), -1), -EINVAL);
}

TEST_F(Stream, BadPointersAreEfault) {
  EXPECT_EQ(call(SYS_write, near_, 8, 4), -EFAULT);
  EXPECT_EQ(call(SYS_read, near_, 0x7fff'ffff'ffff, 4), -EFAULT);
  EXPECT_EQ(call(SYS_readv, near_, 16, 1), -EFAULT);
  EXPECT_EQ(call(SYS_sendmsg, near_, 16, 0), -EFAULT);
  EXPECT_EQ(call(SYS_getpeername, near_, 0, 0), -EFAULT);
}

TEST_F(Stream, ABlockingWriteWaitsForRoomAndAReaderForAllOfIt) {
  std::string big(3 * FakeStream::kCapacity, 'x');
  std::thread reader([&] {
    size_t seen = 0;
    while (seen < big.size()) {
      shim::Guard guard;
      char bytes[1000];
      const iovec part{bytes, sizeof bytes};
      const long got = far_->read(&part, 1, false);
      if (got > 0) seen += static_cast<size_t>(got);
    }
  });
  EXPECT_EQ(call(SYS_write, near_, arg(big.data()), static_cast<long>(big.size())), static_cast<long>(big.size()));
  reader.join();
  std::thread writer([&] {
    far_write(far_, "first ");
    far_write(far_, "second");
  });
  char all[13] = {};
  EXPECT_EQ(call(SYS_recvfrom, near_, arg(all), 12, MSG_WAITALL, 0, 0), 12);
  EXPECT_STREQ(all, "first second");
  writer.join();
}

TEST_F(Stream, SendfileMovesWhatTheStreamTook) {
  char name[] = "/tmp/shim_sendfileXXXXXX";
  const int file = mkstemp(name);
  unlink(name);
  const std::string text(FakeStream::kCapacity + 1000, 'f');
  ASSERT_EQ(write(file, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  ASSERT_EQ(call(SYS_fcntl, near_, F_SETFL, O_NONBLOCK), 0);
  off_t offset = 500;
  EXPECT_EQ(call(SYS_sendfile, near_, file, arg(&offset), 100'000), static_cast<long>(FakeStream::kCapacity));
  EXPECT_EQ(offset, static_cast<off_t>(500 + FakeStream::kCapacity));
  EXPECT_EQ(call(SYS_sendfile, near_, file, arg(&offset), 100'000), -EAGAIN);
  EXPECT_EQ(call(SYS_sendfile, file, near_, 0, 10), -EINVAL);
  EXPECT_EQ(call(SYS_splice, near_, 0, file, 0, 10, 0), -EINVAL);
  close(file);
}

TEST_F(Stream, OptionsAreCheckedByThePlaceholderAndReachTheStream) {
  int value = 1;
  EXPECT_EQ(call(SYS_setsockopt, near_, IPPROTO_TCP, TCP_NODELAY, arg(&value), sizeof value), 0);
  const auto* stream = static_cast<FakeStream*>(static_cast<shim::Socket*>(shim::peek(near_))->stream);
  EXPECT_EQ(stream->options[static_cast<int>(netstack::TcpOption::nodelay)], 1);
  EXPECT_EQ(call(SYS_setsockopt, near_, IPPROTO_TCP, TCP_NODELAY, arg(&value), 1), -EINVAL);
  EXPECT_EQ(call(SYS_setsockopt, near_, SOL_SOCKET, 9999, arg(&value), sizeof value), -ENOPROTOOPT);
  value = 20'000;
  EXPECT_EQ(call(SYS_setsockopt, near_, SOL_SOCKET, SO_RCVBUF, arg(&value), sizeof value), 0);
  EXPECT_EQ(stream->options[static_cast<int>(netstack::TcpOption::receive_buffer_bytes)], 20'000);
  socklen_t bytes = sizeof value;
  EXPECT_EQ(call(SYS_getsockopt, near_, SOL_SOCKET, SO_RCVBUF, arg(&value), arg(&bytes)), 0);
  EXPECT_EQ(value, 40'000);
  EXPECT_EQ(call(SYS_getsockopt, near_, SOL_SOCKET, SO_ACCEPTCONN, arg(&value), arg(&bytes)), 0);
  EXPECT_EQ(value, 0);
}

// One that gives its processor away does not ask for more turns of others than it has time for.
TEST_F(Stream, AWaitBesideOthersEndsAtItsDeadline) {
  FakeStack& stack = FakeStack::get();
  pollfd one{near_, POLLIN, 0};
  for (int i = 0; i < 100; i++) {
    shim::family->waits += 10;  // of others
    ASSERT_EQ(call(SYS_poll, arg(&one), 1, 0), 0);
  }
  stack.turn_ns = 4'000'000;
  const int before = stack.polls;
  EXPECT_EQ(call(SYS_poll, arg(&one), 1, 10), 0);
  stack.turn_ns = 0;
  EXPECT_LE(stack.polls - before, 9) << "three fit, and the service looks as well";
}

// Others work behind the lock, and who dies there leaves a broken stack.
TEST_F(Stream, WhoSpinsTakesTheLockOnlyWhenThereMayBeSomething) {
  FakeStack& stack = FakeStack::get();
  const uint32_t usual_us = shim::config.spin_us;
  shim::config.spin_us = 1'000'000;
  shim::measure_spinning();
  const int begin = stack.polls;
  std::thread reader([&] {
    char byte = 0;
    EXPECT_EQ(call(SYS_read, near_, arg(&byte), 1), 1);
    EXPECT_EQ(byte, 'x');
  });
  while (stack.polls - begin < 1000) std::this_thread::yield();  // such a wire may have something at any time
  stack.rests = true;
  int before;
  {
    shim::Guard guard;
    before = stack.polls;
  }
  for (const uint64_t end_ns = base::monotonic_ns() + 20'000'000; base::monotonic_ns() < end_ns;) std::this_thread::yield();
  EXPECT_LE(stack.polls - before, 1000) << "the service's; a spin would have brought ten times as many";
  far_write(far_, "x");
  reader.join();
  stack.rests = false;
  shim::config.spin_us = usual_us;
  shim::measure_spinning();
}

TEST_F(Stream, PollAndSelectSeeBothSides) {
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  pollfd fds[3] = {{near_, POLLIN | POLLOUT, 0}, {pipes[0], POLLIN, 0}, {-1, POLLIN, 0}};
  EXPECT_EQ(call(SYS_poll, arg(fds), 3, 0), 1);
  EXPECT_EQ(fds[0].revents, POLLOUT);
  far_write(far_, "x");
  ASSERT_EQ(write(pipes[1], "y", 1), 1);
  EXPECT_EQ(call(SYS_poll, arg(fds), 3, 1000), 2);
  EXPECT_EQ(fds[0].revents, POLLIN | POLLOUT);
  EXPECT_EQ(fds[1].revents, POLLIN);
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(near_, &readable);
  FD_SET(pipes[0], &readable);
  FD_SET(listening_->fd, &readable);
  timeval second{1, 0};
  EXPECT_EQ(call(SYS_select, 1000, arg(&readable), 0, 0, arg(&second)), 2);
  EXPECT_TRUE(FD_ISSET(near_, &readable) && FD_ISSET(pipes[0], &readable) && !FD_ISSET(listening_->fd, &readable));
  int pending = 0;
  EXPECT_EQ(call(SYS_ioctl, near_, FIONREAD, arg(&pending)), 0);
  EXPECT_EQ(pending, 1);
  close(pipes[0]);
  close(pipes[1]);
}

}  // namespace
}  // namespace shim_test
