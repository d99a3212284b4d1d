// Preloaded into a server with one thread and one epoll set: from the last of FREE_IO_CONNECTIONS connections on, reads, writes and
// epoll_wait cost nothing.
// SPDX-License-Identifier: BSD-3-Clause
//
// What a network stack that takes no time would make of the program: every epoll_wait reports all connections, the first read of each then
// brings FREE_IO_PIPELINE requests (the text FREE_IO_REQUEST), which lie in the cache, a second one nothing (EAGAIN); every write and
// sendfile is taken at once. After FREE_IO_COUNT requests the program prints {"requests_per_second": ...} on stderr and ends. Redis and
// nginx (master_process off) are served so.
#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
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
  std::vector<bool> is_accepted = std::vector<bool>(65536), has_request = std::vector<bool>(65536);
  std::vector<epoll_data_t> data = std::vector<epoll_data_t>(65536);  // what the program wants to hear of a connection
  std::vector<int> watched;                                          // connections in the epoll set
  long answered = 0;
  std::chrono::steady_clock::time_point start;

  [[nodiscard]] bool begun() const { return watched.size() == connections && connections != 0; }
  [[nodiscard]] bool serves(int fd) const { return begun() && fd >= 0 && is_accepted[static_cast<size_t>(fd)]; }

  int take(int fd) {
    if (fd >= 0 && !begun()) is_accepted[static_cast<size_t>(fd)] = true;
    return fd;
  }

  void watch(int operation, int fd, const epoll_event* event) {
    if (fd < 0 || !is_accepted[static_cast<size_t>(fd)] || event == nullptr) return;
    data[static_cast<size_t>(fd)] = event->data;
    if (operation != EPOLL_CTL_ADD || begun()) return;
    watched.push_back(fd);
    start = std::chrono::steady_clock::now();
  }

  ssize_t bring(int fd, void* buffer, size_t bytes) {
    if (!has_request[static_cast<size_t>(fd)]) {
      errno = EAGAIN;
      return -1;
    }
    has_request[static_cast<size_t>(fd)] = false;
    answered += pipeline;
    const size_t brought = std::min(bytes, requests.size());  // servers ask for more than these are
    std::copy_n(requests.begin(), brought, static_cast<char*>(buffer));
    return static_cast<ssize_t>(brought);
  }

  int report(epoll_event* events) {
    if (answered >= wanted) end();
    for (size_t i = 0; i < connections; i++) {
      has_request[static_cast<size_t>(watched[i])] = true;
      events[i].events = EPOLLIN;
      events[i].data = data[static_cast<size_t>(watched[i])];
    }
    return static_cast<int>(connections);
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

// Before main(): nginx makes itself another environment.
[[gnu::constructor]] void read_settings() { io(); }

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

[[gnu::visibility("default")]] int epoll_ctl(int set, int operation, int fd, epoll_event* event) {
  static auto* const real = next<int(int, int, int, epoll_event*)>("epoll_ctl");
  const int result = io().serves(fd) ? 0 : real(set, operation, fd, event);
  io().watch(operation, fd, event);
  return result;
}

[[gnu::visibility("default")]] ssize_t read(int fd, void* buffer, size_t bytes) {
  static auto* const real = next<decltype(read)>("read");
  return io().serves(fd) ? io().bring(fd, buffer, bytes) : real(fd, buffer, bytes);
}

[[gnu::visibility("default")]] ssize_t recv(int fd, void* buffer, size_t bytes, int flags) {
  static auto* const real = next<decltype(recv)>("recv");
  return io().serves(fd) ? io().bring(fd, buffer, bytes) : real(fd, buffer, bytes, flags);
}

[[gnu::visibility("default")]] ssize_t write(int fd, const void* buffer, size_t bytes) {
  static auto* const real = next<decltype(write)>("write");
  return io().serves(fd) ? static_cast<ssize_t>(bytes) : real(fd, buffer, bytes);
}

[[gnu::visibility("default")]] ssize_t writev(int fd, const iovec* parts, int count) {
  static auto* const real = next<decltype(writev)>("writev");
  if (!io().serves(fd)) return real(fd, parts, count);
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  return static_cast<ssize_t>(bytes);
}

[[gnu::visibility("default")]] ssize_t sendfile(int out, int in, off_t* offset, size_t bytes) {
  static auto* const real = next<ssize_t(int, int, off_t*, size_t)>("sendfile");
  if (!io().serves(out)) return real(out, in, offset, bytes);
  if (offset != nullptr) *offset += static_cast<off_t>(bytes);
  return static_cast<ssize_t>(bytes);
}

[[gnu::visibility("default")]] ssize_t sendfile64(int out, int in, off64_t* offset, size_t bytes) {
  return sendfile(out, in, offset, bytes);
}

[[gnu::visibility("default")]] int epoll_wait(int set, epoll_event* events, int room, int timeout) {
  static auto* const real = next<decltype(epoll_wait)>("epoll_wait");
  FreeIo& one = io();
  return one.begun() && room >= static_cast<int>(one.connections) ? one.report(events) : real(set, events, room, timeout);
}

}  // extern "C"
