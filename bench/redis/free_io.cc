// Preloaded into redis-server: from the last of FREE_IO_CONNECTIONS accepted connections on, reads, writes and epoll_wait cost nothing.
// SPDX-License-Identifier: BSD-3-Clause
//
// What a network stack that takes no time would make of Redis: every read brings FREE_IO_PIPELINE requests (the text FREE_IO_REQUEST),
// which lie in the cache, every write is taken at once, every epoll_wait reports all connections. After FREE_IO_COUNT requests the program
// prints {"requests_per_second": ...} on stderr and ends. One thread, as Redis has by default.
#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

long setting(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? atol(value) : 0;
}

std::string repeated(const char* text, long times) {
  std::string all;
  for (long i = 0; i < times; i++) all += text;
  return all;
}

struct FreeIo {
  const size_t connections = static_cast<size_t>(setting("FREE_IO_CONNECTIONS"));
  const long pipeline = setting("FREE_IO_PIPELINE");
  const long wanted = setting("FREE_IO_COUNT");
  const char* const request = getenv("FREE_IO_REQUEST");
  const std::string requests = repeated(request != nullptr ? request : "", pipeline);
  std::vector<bool> is_accepted = std::vector<bool>(65536);
  std::vector<int> accepted;
  long answered = 0;
  std::chrono::steady_clock::time_point start;

  [[nodiscard]] bool begun() const { return accepted.size() == connections && connections != 0; }
  [[nodiscard]] bool serves(int fd) const { return begun() && fd >= 0 && is_accepted[static_cast<size_t>(fd)]; }

  int take(int fd) {
    if (fd < 0 || begun()) return fd;
    is_accepted[static_cast<size_t>(fd)] = true;
    accepted.push_back(fd);
    start = std::chrono::steady_clock::now();
    return fd;
  }

  void end() const {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    dprintf(STDERR_FILENO, "{\"requests_per_second\": %.0f}\n", static_cast<double>(answered) / seconds.count());
    _exit(0);
  }
};

FreeIo& io() {
  static FreeIo one;
  return one;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

[[gnu::visibility("default")]] int accept4(int fd, sockaddr* address, socklen_t* bytes, int flags) {
  static auto* const real = next<decltype(accept4)>("accept4");
  return io().take(real(fd, address, bytes, flags));
}

[[gnu::visibility("default")]] int accept(int fd, sockaddr* address, socklen_t* bytes) {
  static auto* const real = next<decltype(accept)>("accept");
  return io().take(real(fd, address, bytes));
}

[[gnu::visibility("default")]] ssize_t read(int fd, void* buffer, size_t bytes) {
  static auto* const real = next<decltype(read)>("read");
  if (!io().serves(fd)) return real(fd, buffer, bytes);
  const std::string& requests = io().requests;
  std::copy(requests.begin(), requests.end(), static_cast<char*>(buffer));  // Redis asks for 16 KB and more
  return static_cast<ssize_t>(requests.size());
}

[[gnu::visibility("default")]] ssize_t write(int fd, const void* buffer, size_t bytes) {
  static auto* const real = next<decltype(write)>("write");
  if (!io().serves(fd)) return real(fd, buffer, bytes);
  io().answered += io().pipeline;
  return static_cast<ssize_t>(bytes);
}

[[gnu::visibility("default")]] int epoll_wait(int set, epoll_event* events, int room, int timeout) {
  static auto* const real = next<decltype(epoll_wait)>("epoll_wait");
  const FreeIo& one = io();
  if (!one.begun() || room < static_cast<int>(one.connections)) return real(set, events, room, timeout);
  if (one.answered >= one.wanted) one.end();
  for (size_t i = 0; i < one.connections; i++) {
    events[i].events = EPOLLIN;
    events[i].data.u64 = static_cast<uint64_t>(one.accepted[i]);
  }
  return static_cast<int>(one.connections);
}

}  // extern "C"
