// Times socket calls on connections of this process with itself, by kind: {"case": "read", "ns": 33.4}; medians of batches.
// SPDX-License-Identifier: BSD-3-Clause
//
// With the library preloaded, ZPS_WIRE=memif:/tmp/x.sock,role=server and ZPS_IP=198.18.7.1/24 the connections are the stack's: no other
// process takes part, so the figures do not depend on what the machine's other cores do. Without it they are the kernel's, over 127.0.0.1
// (give that address). A batch has one call for each connection, so that caches see what a server's or a client's event loop shows them.
// Usage: bench_socket_calls ADDRESS [CASE [BATCHES]].
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

namespace {

constexpr int kPairs = 50;
constexpr size_t kBytes = 40;

double now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

void need(bool good, const char* what) {
  if (good) return;
  perror(what);
  exit(1);
}

const char* only = nullptr;
size_t batch_count = 1001;
int set = -1;
int near[kPairs], far[kPairs];
char buffer[16384];

void make_calm(int fd) {
  const int one = 1;
  need(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "TCP_NODELAY");
  need(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "O_NONBLOCK");
}

void connect_to_self(const char* address) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  need(inet_pton(AF_INET, address, &at.sin_addr) == 1, "address");
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  need(bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0, "bind");
  need(listen(listener, kPairs) == 0, "listen");
  socklen_t size = sizeof at;
  need(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size) == 0, "getsockname");
  for (int i = 0; i < kPairs; i++) {
    near[i] = socket(AF_INET, SOCK_STREAM, 0);
    need(connect(near[i], reinterpret_cast<sockaddr*>(&at), sizeof at) == 0, "connect");
    far[i] = accept(listener, nullptr, nullptr);
    need(far[i] >= 0, "accept");
    make_calm(near[i]);
    make_calm(far[i]);
  }
  close(listener);
  set = epoll_create1(0);
}

void control(int operation, int fd, uint32_t events) {
  epoll_event event;
  event.events = events;
  event.data.u64 = 0;
  event.data.fd = fd;
  need(epoll_ctl(set, operation, fd, &event) == 0, "epoll_ctl");
}

int wait_now(epoll_event* events, int most) {
  const int count = epoll_wait(set, events, most, 0);
  need(count >= 0, "epoll_wait");
  return count;
}

void write_some(int fd) { need(write(fd, buffer, kBytes) == static_cast<ssize_t>(kBytes), "write"); }

// Waits until `fd` has what the other end wrote.
void settle(int fd) {
  epoll_event event;
  char byte;
  while (recv(fd, &byte, 1, MSG_PEEK) != 1) wait_now(&event, 1);
}

void drain(int fd) {
  settle(fd);
  need(read(fd, buffer, sizeof buffer) == static_cast<ssize_t>(kBytes), "read");
}

// The median over batches of prepare() (not timed) and call() for each pair.
template <class Prepare, class Call>
void measure(const char* name, int calls, Prepare prepare, Call call) {
  if (only != nullptr && strcmp(only, name) != 0) return;
  std::vector<double> batches;
  while (batches.size() < batch_count) {
    prepare();
    const double start = now_ns();
    for (int i = 0; i < kPairs; i++) call(i);
    batches.push_back((now_ns() - start) / (kPairs * calls));
  }
  std::sort(batches.begin(), batches.end());
  printf("{\"case\": \"%s\", \"ns\": %.1f, \"low\": %.1f, \"high\": %.1f}\n", name, batches[batch_count / 2], batches[batch_count / 20],
         batches[batch_count * 19 / 20]);
}

void measure_controls() {
  const auto nothing = [] {};
  for (const int fd : near) control(EPOLL_CTL_ADD, fd, EPOLLIN);
  // As event loops with one list per direction do: everything is taken out and put in again.
  measure("del, add", 2, nothing, [](int i) {
    control(EPOLL_CTL_DEL, near[i], EPOLLIN);
    control(EPOLL_CTL_ADD, near[i], EPOLLIN);
  });
  measure("del, add, writable", 2, nothing, [](int i) {
    control(EPOLL_CTL_DEL, near[i], EPOLLIN);
    control(EPOLL_CTL_ADD, near[i], EPOLLOUT);
  });
  for (const int fd : near) control(EPOLL_CTL_MOD, fd, EPOLLIN);
  measure("mod", 1, nothing, [](int i) { control(EPOLL_CTL_MOD, near[i], EPOLLIN); });
}

void measure_data() {
  const auto nothing = [] {};
  bool written = false;
  const auto drain_all = [&] {
    for (int i = 0; written && i < kPairs; i++) drain(far[i]);
    written = true;
  };
  measure("write", 1, drain_all, [](int i) { write_some(near[i]); });
  drain_all();
  measure(
      "read", 1,
      [] {
        for (const int fd : near) write_some(fd);
        for (const int fd : far) settle(fd);
      },
      [](int i) {
        if (read(far[i], buffer, sizeof buffer) != static_cast<ssize_t>(kBytes)) need(false, "read");
      });
  measure("read, nothing there", 1, nothing, [](int i) {
    if (read(far[i], buffer, sizeof buffer) >= 0) need(false, "read");
  });
  measure("epoll_wait, nothing there", 1, nothing, [](int) {
    epoll_event event;
    wait_now(&event, 1);
  });
}

// All that a client of many connections does for a request, and its server for the answer.
void measure_requests() {
  static epoll_event events[kPairs];
  measure("request and reply", 1, [] {}, [](int i) {
    if (i != 0) return;
    for (const int fd : near) {
      write_some(fd);
      control(EPOLL_CTL_DEL, fd, EPOLLIN);
      control(EPOLL_CTL_ADD, fd, EPOLLIN);
    }
    for (const int fd : far) {
      drain(fd);
      write_some(fd);
    }
    for (int answered = 0; answered < kPairs;) {
      const int count = wait_now(events, kPairs);
      for (int j = 0; j < count; j++) {
        drain(events[j].data.fd);
        control(EPOLL_CTL_DEL, events[j].data.fd, EPOLLIN);
        control(EPOLL_CTL_ADD, events[j].data.fd, EPOLLIN);
      }
      answered += count;
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    fprintf(stderr, "usage: bench_socket_calls ADDRESS [CASE [BATCHES]]\n");
    return 1;
  }
  if (argc > 2) only = argv[2];
  if (argc > 3) batch_count = std::max(1ul, strtoul(argv[3], nullptr, 10));
  connect_to_self(argv[1]);
  measure_controls();
  measure_data();
  measure_requests();
  return 0;
}
