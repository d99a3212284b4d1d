// The client of the measurements that no known program does alone; prints one line of JSON. One thread, epoll, as many connections as asked
// for.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: bench_load_client echo|datagrams|up|down|once|hold ADDRESS PORT CONNECTIONS BYTES SECONDS
//   echo  a message of BYTES is under way on each connection; times to its return
//   datagrams  the same by UDP; one that has not come back in time is sent again
//   up, down  bulk: gigabits a second, counted by the receiver
//   once  a connection for each request, whose answer is BYTES long; times from connect() to the end of the answer
//   hold  each connection is served once, then all are kept until this program is ended; prints "held" when they are
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
#include <ctime>
#include <string>
#include <vector>

#include "bench/load/histogram.h"
#include "bench/load/protocol.h"

namespace {

using load::kChunk;
using load::Mode;
using load::Wish;

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

struct Options {
  sockaddr_in6 server{};  // or an IPv4 one
  bool datagrams = false;
  size_t connections;
  uint32_t bytes;
  double seconds;
};

struct Connection {
  int fd = -1;
  uint64_t begun_ns = 0;
  size_t moved = 0;  // bytes of the message that is under way
};

constexpr int kLostMs = 100;

class Client {
 public:
  Client(Mode mode, const Options& options)
      : mode_(mode),
        options_(options),
        set_(epoll_create1(0)),
        connections_(options.connections),
        data_(std::max<size_t>(kChunk, options.bytes)) {}

  void run() {
    if (mode_ == Mode::once) wait_for_the_way();
    for (Connection& connection : connections_) open(connection);
    start_ns_ = now_ns();
    const uint64_t end_ns = start_ns_ + static_cast<uint64_t>(options_.seconds * 1e9);
    if (mode_ != Mode::once) for (Connection& connection : connections_) begin(connection);
    while (now_ns() < end_ns) {
      const int left_ms = static_cast<int>((end_ns - std::min(end_ns, now_ns())) / 1'000'000) + 1;
      turn(options_.datagrams ? std::min(left_ms, kLostMs) : left_ms);
      if (options_.datagrams) send_lost_again();
    }
    if (mode_ == Mode::up) collect_counts();
    seconds_ = static_cast<double>(now_ns() - start_ns_) / 1e9;
  }

  void hold() {
    for (Connection& connection : connections_) {
      open(connection);
      begin(connection);
      while (times_.total() == 0) turn(-1);
      times_ = {};
      epoll_ctl(set_, EPOLL_CTL_DEL, connection.fd, nullptr);
    }
    printf("held\n");
    fflush(stdout);
    while (true) pause();
  }

  void print() const {
    const bool is_bulk = mode_ == Mode::up || mode_ == Mode::down;
    if (done_ == 0) {
      fprintf(stderr, "nothing was done in %.3f s\n", seconds_);
      exit(1);
    }
    if (lost_ != 0) fprintf(stderr, "%lu datagrams were sent again\n", lost_);
    printf("{\"rate\": %.3f, \"latency_us\": [", static_cast<double>(done_) / seconds_ * (is_bulk ? 8e-9 : 1));
    const char* separator = "";
    for (double percent : {0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0}) {
      if (is_bulk) break;
      printf("%s[%g, %.3f]", separator, percent, static_cast<double>(times_.at_percent(percent)) / 1e3);
      separator = ", ";
    }
    printf("]}\n");
  }

 private:
  void watch(int operation, Connection& connection, uint32_t wanted) const {
    epoll_event event{};
    event.events = wanted;
    event.data.ptr = &connection;
    if (epoll_ctl(set_, operation, connection.fd, &event) != 0) fail("epoll_ctl");
  }

  // A connection that may wait: the first one makes wire and stack, and finds out where the server is.
  void wait_for_the_way() {
    mode_ = Mode::echo;
    Connection first;
    open(first);
    close(first.fd);
    mode_ = Mode::once;
  }

  // The wish of a `once` goes out when the connection is there; the others are connected before the clock starts.
  void open(Connection& connection) {
    const int flags = mode_ == Mode::once ? SOCK_NONBLOCK : 0, on = 1;
    const int type = options_.datagrams ? SOCK_DGRAM : SOCK_STREAM;
    connection = {.fd = socket(options_.server.sin6_family, type | flags, 0), .begun_ns = now_ns()};
    if (connection.fd < 0) fail("socket");
    if (!options_.datagrams) setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(connection.fd, reinterpret_cast<const sockaddr*>(&options_.server), address_bytes()) != 0 && errno != EINPROGRESS)
      fail("connect");
    watch(EPOLL_CTL_ADD, connection, mode_ == Mode::once || mode_ == Mode::up ? EPOLLOUT : EPOLLIN);
    if (mode_ == Mode::once || options_.datagrams) return;
    const Wish wish{.mode = mode_, .bytes = options_.bytes};
    if (write(connection.fd, &wish, sizeof wish) != sizeof wish) fail("write");
    const timeval patience{.tv_sec = 30, .tv_usec = 0};
    setsockopt(connection.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  }

  [[nodiscard]] socklen_t address_bytes() const {
    return options_.server.sin6_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  }

  void begin(Connection& connection) {
    if (mode_ != Mode::echo) return;
    connection.begun_ns = now_ns();
    connection.moved = 0;
    if (write(connection.fd, data_.data(), options_.bytes) != static_cast<ssize_t>(options_.bytes)) fail("write");
  }

  void turn(int timeout_ms) {
    const int count = epoll_wait(set_, events_.data(), static_cast<int>(events_.size()), timeout_ms);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < count; i++)
      step(*static_cast<Connection*>(events_[static_cast<size_t>(i)].data.ptr), events_[static_cast<size_t>(i)].events);
  }

  void step(Connection& connection, uint32_t events) {
    switch (mode_) {
      case Mode::echo: return step_echo(connection);
      case Mode::down: return step_down(connection);
      case Mode::up: return step_up(connection);
      case Mode::once: return step_once(connection, events);
    }
  }

  size_t take(Connection& connection, size_t most) {
    const ssize_t got = recv(connection.fd, data_.data(), most, MSG_DONTWAIT);
    if (got == 0 && mode_ != Mode::once) errno = ECONNRESET, fail("the server has left");
    if (got < 0 && errno != EAGAIN) fail("recv");
    return static_cast<size_t>(std::max<ssize_t>(got, 0));
  }

  void step_echo(Connection& connection) {
    connection.moved += take(connection, options_.bytes - connection.moved);
    if (connection.moved < options_.bytes) return;
    times_.add(now_ns() - connection.begun_ns);
    done_++;
    begin(connection);
  }

  void send_lost_again() {
    const uint64_t now = now_ns();
    if (now - looked_ns_ < kLostMs * 1'000'000ull) return;
    looked_ns_ = now;
    for (Connection& connection : connections_) {
      if (now - connection.begun_ns < kLostMs * 1'000'000ull) continue;
      lost_++;
      begin(connection);
    }
  }

  void step_down(Connection& connection) { done_ += take(connection, kChunk); }

  void step_up(Connection& connection) {
    if (send(connection.fd, data_.data(), kChunk, MSG_DONTWAIT) < 0 && errno != EAGAIN) fail("send");
  }

  void collect_counts() {
    for (Connection& connection : connections_) shutdown(connection.fd, SHUT_WR);
    for (Connection& connection : connections_) {
      uint64_t count;
      if (recv(connection.fd, &count, sizeof count, MSG_WAITALL) != sizeof count) fail("recv");
      done_ += count;
    }
  }

  void step_once(Connection& connection, uint32_t events) {
    if ((events & EPOLLOUT) != 0) {
      std::array<char, sizeof(Wish) + 64> request{};
      const Wish wish{.mode = mode_, .bytes = options_.bytes};
      memcpy(request.data(), &wish, sizeof wish);
      if (write(connection.fd, request.data(), request.size()) != static_cast<ssize_t>(request.size())) fail("connect, write");
      return watch(EPOLL_CTL_MOD, connection, EPOLLIN);
    }
    const ssize_t got = recv(connection.fd, data_.data(), kChunk, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) fail("recv");
    connection.moved += static_cast<size_t>(got);
    if (got > 0) return;
    if (connection.moved != options_.bytes) errno = EPROTO, fail("the answer");
    times_.add(now_ns() - connection.begun_ns);
    done_++;
    close(connection.fd);
    open(connection);
  }

  Mode mode_;
  Options options_;
  int set_;
  std::vector<Connection> connections_;
  std::vector<char> data_;
  std::array<epoll_event, 512> events_{};
  load::Histogram times_;
  uint64_t done_ = 0, start_ns_ = 0;  // messages, connections or bytes
  uint64_t lost_ = 0, looked_ns_ = 0;
  double seconds_ = 0;
};

constexpr std::array<std::pair<const char*, Mode>, 6> kModes{
    {{"echo", Mode::echo}, {"datagrams", Mode::echo}, {"up", Mode::up}, {"down", Mode::down}, {"once", Mode::once}, {"hold", Mode::echo}}};

bool read_address(const char* address, const char* port, sockaddr_in6* out) {
  auto* const v4 = reinterpret_cast<sockaddr_in*>(out);
  out->sin6_family = AF_INET6;
  out->sin6_port = htons(static_cast<uint16_t>(atoi(port)));  // where IPv4's is
  if (inet_pton(AF_INET6, address, &out->sin6_addr) == 1) return true;
  v4->sin_family = AF_INET;
  return inet_pton(AF_INET, address, &v4->sin_addr) == 1;
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  Options options{};
  for (const auto& [name, mode] : kModes) {
    if (argc != 7 || strcmp(argv[1], name) != 0 || !read_address(argv[2], argv[3], &options.server)) continue;
    options.datagrams = strcmp(name, "datagrams") == 0;
    options.connections = static_cast<size_t>(atol(argv[4]));
    options.bytes = static_cast<uint32_t>(atol(argv[5]));
    options.seconds = atof(argv[6]);
    Client client(mode, options);
    if (strcmp(name, "hold") == 0) client.hold();
    client.run();
    client.print();
    return 0;
  }
  fprintf(stderr, "usage: bench_load_client echo|datagrams|up|down|once|hold ADDRESS PORT CONNECTIONS BYTES SECONDS\n");
  return 1;
}
