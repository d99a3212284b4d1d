// Urgent data: MSG_OOB both ways, the mark, SO_OOBINLINE, SIGURG, and how waits tell of it.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

// What one recv() says: the bytes, or the error's name.
std::string take(int fd, int flags = 0, size_t most = 100) {
  char buffer[100];
  const ssize_t n = recv(fd, buffer, most, flags);
  return n >= 0 ? std::string(buffer, static_cast<size_t>(n)) : strerrorname_np(errno);
}

int figure(int fd, unsigned long request) {
  int value = -1;
  EXPECT_EQ(ioctl(fd, request, &value), 0) << strerror(errno);
  return value;
}

// A signal that is blocked, and waited for.
class Awaited {
 public:
  explicit Awaited(int number) {
    sigemptyset(&set_);
    sigaddset(&set_, number);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  bool comes() {
    const timespec most{10, 0};
    siginfo_t info;
    return sigtimedwait(&set_, &info, &most) > 0;
  }
  bool is_pending() {
    const timespec none{0, 0};
    siginfo_t info;
    return sigtimedwait(&set_, &info, &none) > 0;
  }

 private:
  sigset_t set_;
};

class Urgent : public BothWays {
 protected:
  // The peer sends "abc", the urgent "X" and "def", and all of it is here.
  Connection with_mark() {
    Connection c = connect_pair();
    send_from_peer(c, "abc", 0);
    send_from_peer(c, "X", MSG_OOB);
    EXPECT_EQ(wait_for(c.mine, POLLPRI), POLLPRI);
    send_from_peer(c, "def", 0);
    return c;
  }
  void send_from_peer(const Connection& c, const std::string& text, int flags) {
    EXPECT_EQ(peer.send(c.theirs, text, flags).result, static_cast<int64_t>(text.size()));
  }
  void end(const Connection& c) {
    close(c.mine);
    peer.close(c.theirs);
  }
};
ZPS_BOTH_WAYS(Urgent);

TEST_P(Urgent, TheByteIsNotInTheStream) {
  Connection c = with_mark();
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 0);
  EXPECT_EQ(figure(c.mine, FIONREAD), 3);
  EXPECT_EQ(take(c.mine), "abc");
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 1);
  EXPECT_EQ(figure(c.mine, FIONREAD), 0);
  EXPECT_EQ(take(c.mine, MSG_OOB | MSG_PEEK), "X");
  EXPECT_EQ(take(c.mine, MSG_OOB), "X");
  EXPECT_EQ(take(c.mine, MSG_OOB), "EINVAL");
  EXPECT_EQ(wait_for(c.mine, POLLIN | POLLPRI), POLLIN);
  EXPECT_EQ(read_all(c.mine, 3), "def");
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 0);
  end(c);
}

TEST_P(Urgent, WhoReadsOnLosesIt) {
  Connection c = with_mark();
  EXPECT_EQ(take(c.mine), "abc");
  EXPECT_EQ(read_all(c.mine, 3), "def");
  EXPECT_EQ(take(c.mine, MSG_OOB), "EINVAL");
  EXPECT_EQ(take(c.mine, MSG_DONTWAIT), "EAGAIN");
  end(c);
}

TEST_P(Urgent, NoReadCrossesTheMark) {
  Connection c = with_mark();
  EXPECT_EQ(take(c.mine, MSG_PEEK), "abc");
  EXPECT_EQ(take(c.mine, MSG_PEEK | MSG_WAITALL), "abc");
  EXPECT_EQ(take(c.mine, MSG_WAITALL, 6), "abc");
  EXPECT_EQ(wait_for(c.mine, POLLIN), POLLIN);
  EXPECT_EQ(take(c.mine, MSG_PEEK, 2), "de");
  EXPECT_EQ(take(c.mine, MSG_WAITALL, 3), "def");
  end(c);
}

TEST_P(Urgent, Inline) {
  Connection c = connect_pair();
  const int on = 1;
  EXPECT_EQ(setsockopt(c.mine, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on), 0);
  send_from_peer(c, "abc", 0);
  send_from_peer(c, "X", MSG_OOB);
  EXPECT_EQ(wait_for(c.mine, POLLPRI), POLLPRI);
  send_from_peer(c, "def", 0);
  EXPECT_EQ(read_all(c.mine, 3), "abc");
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 1);
  EXPECT_EQ(take(c.mine, MSG_OOB), "EINVAL");
  EXPECT_EQ(read_all(c.mine, 4), "Xdef");
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 0);
  end(c);
}

TEST_P(Urgent, AnInheritedInline) {
  sockaddr_in at{};
  const int listener = listen_here(&at);
  const int on = 1;
  EXPECT_EQ(setsockopt(listener, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on), 0);
  const int theirs = peer.socket();
  EXPECT_EQ(peer.connect(theirs, at).result, 0);
  const int mine = accept(listener, nullptr, nullptr);
  EXPECT_EQ(peer.send(theirs, "abc", MSG_OOB).result, 3);
  EXPECT_EQ(read_all(mine, 3), "abc");
  close(mine);
  close(listener);
  peer.close(theirs);
}

TEST_P(Urgent, SigurgGoesToTheOwner) {
  Awaited urgent(SIGURG);
  Connection c = connect_pair();
  send_from_peer(c, "X", MSG_OOB);
  EXPECT_EQ(wait_for(c.mine, POLLPRI), POLLPRI);
  EXPECT_FALSE(urgent.is_pending()) << "nobody owns it";
  EXPECT_EQ(fcntl(c.mine, F_SETOWN, getpid()), 0);
  send_from_peer(c, "Y", MSG_OOB);
  EXPECT_TRUE(urgent.comes());
  EXPECT_EQ(fcntl(c.mine, F_SETOWN, 0), 0);
  send_from_peer(c, "Z", MSG_OOB);
  while (take(c.mine, MSG_OOB) != "Z") wait_for(c.mine, POLLPRI, 100);
  EXPECT_FALSE(urgent.is_pending());
  end(c);
}

TEST_P(Urgent, Waits) {
  Connection c = connect_pair();
  const int set = epoll_create1(0);
  epoll_event event{EPOLLPRI | EPOLLET, {.fd = c.mine}};
  EXPECT_EQ(epoll_ctl(set, EPOLL_CTL_ADD, c.mine, &event), 0);
  EXPECT_EQ(epoll_wait(set, &event, 1, 0), 0);
  send_from_peer(c, "X", MSG_OOB);
  EXPECT_EQ(epoll_wait(set, &event, 1, 30000), 1);
  EXPECT_EQ(event.events, static_cast<uint32_t>(EPOLLPRI));
  fd_set readable, exceptional;
  FD_ZERO(&readable);
  FD_ZERO(&exceptional);
  FD_SET(c.mine, &readable);
  FD_SET(c.mine, &exceptional);
  timeval most{10, 0};
  EXPECT_EQ(select(c.mine + 1, &readable, nullptr, &exceptional, &most), 1);
  EXPECT_TRUE(FD_ISSET(c.mine, &exceptional));
  EXPECT_FALSE(FD_ISSET(c.mine, &readable)) << "it is all there is";
  pollfd one{c.mine, POLLIN | POLLPRI, 0};
  EXPECT_EQ(poll(&one, 1, 0), 1);
  EXPECT_EQ(one.revents, POLLPRI);
  EXPECT_EQ(take(c.mine, MSG_OOB), "X");
  EXPECT_EQ(poll(&one, 1, 0), 0);
  close(set);
  end(c);
}

TEST_P(Urgent, Messages) {
  Connection c = with_mark();
  char byte = 0;
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  EXPECT_EQ(recvmsg(c.mine, &message, MSG_OOB | MSG_PEEK), 1);
  EXPECT_EQ(message.msg_flags, MSG_OOB);
  EXPECT_EQ(byte, 'X');
  message.msg_iovlen = 0;
  EXPECT_EQ(recvmsg(c.mine, &message, MSG_OOB), 0);
  EXPECT_EQ(message.msg_flags, MSG_OOB | MSG_TRUNC);
  EXPECT_EQ(take(c.mine, MSG_OOB), "EINVAL");
  end(c);
}

TEST_P(Urgent, Sent) {
  Connection c = connect_pair();
  EXPECT_EQ(send(c.mine, "abc", 3, 0), 3);
  EXPECT_EQ(send(c.mine, "..X", 3, MSG_OOB), 3);
  EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLPRI, 30000).result, POLLPRI);
  EXPECT_EQ(send(c.mine, "def", 3, 0), 3);
  EXPECT_EQ(peer.recv_all(c.theirs, 5), "abc..");
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_OOB).payload, "X");
  EXPECT_EQ(peer.recv_all(c.theirs, 3), "def");
  end(c);
}

TEST_P(Urgent, SentInSpiteOfACork) {
  expect_within(190, [&] {  // a cork holds for 200 ms
    Connection c = connect_pair();
    const int on = 1;
    EXPECT_EQ(setsockopt(c.mine, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
    EXPECT_EQ(send(c.mine, "abc", 3, 0), 3);
    EXPECT_EQ(send(c.mine, "X", 1, MSG_OOB), 1);
    EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLPRI, 30000).result, POLLPRI);
    EXPECT_EQ(peer.recv_all(c.theirs, 3), "abc");
    end(c);
  });
}

// Behind much that the peer does not read: the mark is where it was set.
TEST_P(Urgent, SentFarAhead) {
  Connection c = connect_pair();
  const std::string much(300'000, 'm');
  size_t sent = 0;
  while (sent < much.size()) {
    const ssize_t n = send(c.mine, much.data() + sent, much.size() - sent, MSG_DONTWAIT);
    if (n < 0) break;
    sent += static_cast<size_t>(n);
  }
  const int job = peer.start(PeerOp::recv, c.theirs, 1, MSG_PEEK);
  EXPECT_EQ(send(c.mine, "X", 1, MSG_OOB), 1);
  EXPECT_EQ(send(c.mine, "end", 3, 0), 3);
  EXPECT_EQ(peer.finish(job).result, 1);
  size_t seen = 0;
  while (seen < sent) {
    const Reply part = peer.recv(c.theirs, std::min<size_t>(sent - seen, 60'000));
    ASSERT_GT(part.result, 0) << seen;
    seen += static_cast<size_t>(part.result);
  }
  EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLPRI, 30000).result, POLLPRI);
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_OOB).payload, "X");
  EXPECT_EQ(peer.recv_all(c.theirs, 3), "end");
  end(c);
}

TEST_P(Urgent, ThenTheEnd) {
  Connection c = connect_pair();
  EXPECT_EQ(send(c.mine, "abcX", 4, MSG_OOB), 4);
  close(c.mine);
  EXPECT_EQ(peer.call(PeerOp::poll, c.theirs, POLLPRI, 30000).result, POLLPRI);
  EXPECT_EQ(peer.recv_all(c.theirs, 3), "abc");
  EXPECT_EQ(peer.recv(c.theirs, 1, MSG_OOB).payload, "X");
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  peer.close(c.theirs);
}

TEST_P(Urgent, NothingIsUrgent) {
  Connection c = connect_pair();
  EXPECT_EQ(take(c.mine, MSG_OOB), "EINVAL");
  EXPECT_EQ(figure(c.mine, SIOCATMARK), 0);
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(send(c.mine, "X", 1, MSG_OOB | MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  end(c);
}

class UrgentElsewhere : public DiffTest {};

TEST_F(UrgentElsewhere, WithoutAConnection) {
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(take(fresh, MSG_OOB), "EINVAL");
  EXPECT_EQ(send(fresh, "X", 1, MSG_OOB | MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  sockaddr_in at{};
  const int listener = listen_here(&at);
  EXPECT_EQ(take(listener, MSG_OOB), "ENOTCONN");
  close(listener);
  close(fresh);
}

TEST_F(UrgentElsewhere, OnAConnectionOfTheKernels) {
  const int listener = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 at{};
  at.sin6_family = AF_INET6;
  at.sin6_addr = in6addr_loopback;
  socklen_t bytes = sizeof at;
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at), 0) << strerror(errno);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &bytes), 0);
  const int client = socket(AF_INET6, SOCK_STREAM, 0);
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
  const int server = accept(listener, nullptr, nullptr);
  EXPECT_EQ(send(client, "abc", 3, 0), 3);
  EXPECT_EQ(send(client, "X", 1, MSG_OOB), 1);
  EXPECT_EQ(take(server), "abc");
  EXPECT_EQ(take(server, MSG_OOB), "X");
  for (const int fd : {listener, client, server}) close(fd);
}

}  // namespace
