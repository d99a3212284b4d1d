// The server of the measurements that no known program does alone: echo, bulk both ways, a connection for each request. One thread, epoll.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: bench_load_server PORT. What a connection wants it says first (protocol.h); each datagram goes back. Both over IPv4 and IPv6.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>

#include "bench/load/protocol.h"

namespace {

using load::kChunk;
using load::Mode;
using load::Wish;

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

std::array<char, kChunk> buffer;

struct Connection {
  int fd;
  Wish wish{};
  size_t wish_bytes = 0;  // of the wish, that have come
  uint64_t received = 0;
  std::string unsent;     // what the socket did not take
  bool closes = false;    // when unsent is empty
  bool waits_for_room = false;

  // Each returns false when the connection is over.
  bool step(uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !flush()) return false;
    if (unsent.empty() && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !take()) return false;
    if (is_source() && !pour()) return false;
    return !(closes && unsent.empty());
  }

  [[nodiscard]] bool is_source() const { return wish_bytes == sizeof wish && wish.mode == Mode::down; }
  [[nodiscard]] bool wants_room() const { return !unsent.empty() || is_source(); }

  bool take() {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return answer_end();
    const char* data = buffer.data();
    size_t length = static_cast<size_t>(got);
    const size_t missing = std::min(sizeof wish - wish_bytes, length);
    memcpy(reinterpret_cast<char*>(&wish) + wish_bytes, data, missing);
    wish_bytes += missing;
    return wish_bytes < sizeof wish || serve(data + missing, length - missing);
  }

  bool serve(const char* data, size_t length) {
    received += length;
    if (wish.mode == Mode::echo) return send_or_keep(data, length);
    if (wish.mode != Mode::once) return true;
    closes = true;
    return send_or_keep(buffer.data(), std::min<size_t>(wish.bytes, kChunk));
  }

  bool answer_end() {
    if (wish.mode != Mode::up) return false;
    closes = true;
    return send_or_keep(reinterpret_cast<const char*>(&received), sizeof received);
  }

  bool pour() {
    const ssize_t sent = write(fd, buffer.data(), buffer.size());
    return sent >= 0 || errno == EAGAIN;
  }

  bool send_or_keep(const char* data, size_t length) {
    if (length == 0) return true;
    ssize_t sent = write(fd, data, length);
    if (sent < 0 && errno != EAGAIN) return false;
    unsent.assign(data + std::max<ssize_t>(sent, 0), data + length);
    return true;
  }

  bool flush() {
    if (unsent.empty()) return true;
    const ssize_t sent = write(fd, unsent.data(), unsent.size());
    if (sent < 0) return errno == EAGAIN;
    unsent.erase(0, static_cast<size_t>(sent));
    return true;
  }
};

int bind_to(int family, int type, const char* port) {
  const int fd = socket(family, type | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  sockaddr_in6 any{};
  any.sin6_family = static_cast<sa_family_t>(family);
  any.sin6_port = htons(static_cast<uint16_t>(atoi(port)));  // where IPv4's is
  if (bind(fd, reinterpret_cast<sockaddr*>(&any), family == AF_INET ? sizeof(sockaddr_in) : sizeof any) != 0) fail("bind");
  if (type == SOCK_STREAM && listen(fd, 4096) != 0) fail("listen");
  return fd;
}

// A few of what waits, so that connections have their turn.
void return_datagrams(int fd) {
  for (int i = 0; i < 64; i++) {
    sockaddr_in6 from;
    socklen_t bytes = sizeof from;
    const ssize_t got = recvfrom(fd, buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &bytes);
    if (got < 0) return;
    (void)sendto(fd, buffer.data(), static_cast<size_t>(got), 0, reinterpret_cast<const sockaddr*>(&from), bytes);
  }
}

class Server {
 public:
  explicit Server(const char* port) : set_(epoll_create1(0)) {
    for (size_t i = 0; i < 2; i++) {
      listeners_[i] = bind_to(kFamilies[i], SOCK_STREAM, port);
      datagrams_[i] = bind_to(kFamilies[i], SOCK_DGRAM, port);
      watch(EPOLL_CTL_ADD, listeners_[i], EPOLLIN);
      watch(EPOLL_CTL_ADD, datagrams_[i], EPOLLIN);
    }
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 512> events{};
    while (true) {
      const int count = epoll_wait(set_, events.data(), static_cast<int>(events.size()), -1);
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      for (int i = 0; i < count; i++) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        const int fd = event.data.fd;
        if (fd == listeners_[0] || fd == listeners_[1]) accept_all(fd);
        else if (fd == datagrams_[0] || fd == datagrams_[1]) return_datagrams(fd);
        else serve(connections_.at(fd), event.events);
      }
    }
  }

 private:
  void watch(int operation, int fd, uint32_t wanted) const {
    epoll_event event{};
    event.events = wanted;
    event.data.fd = fd;
    if (epoll_ctl(set_, operation, fd, &event) != 0) fail("epoll_ctl");
  }

  void accept_all(int listener) {
    while (true) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK), on = 1;
      if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) return;
      if (fd < 0) fail("accept4");
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      connections_[fd] = Connection{.fd = fd, .unsent = {}};
      watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
  }

  void serve(Connection& connection, uint32_t events) {
    if (!connection.step(events)) {
      close(connection.fd);
      connections_.erase(connection.fd);
      return;
    }
    if (connection.wants_room() == connection.waits_for_room) return;
    connection.waits_for_room = connection.wants_room();
    watch(EPOLL_CTL_MOD, connection.fd, connection.waits_for_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }

  static constexpr std::array<int, 2> kFamilies{AF_INET, AF_INET6};

  int set_;
  std::array<int, 2> listeners_{}, datagrams_{};
  std::unordered_map<int, Connection> connections_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: bench_load_server PORT\n");
    return 1;
  }
  signal(SIGPIPE, SIG_IGN);
  Server(argv[1]).run();
}
