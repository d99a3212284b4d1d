// An echo server in the three shapes that daemons take: a child per connection, children that share a listener, a daemon.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: echo_server fork|prefork|daemon PORT READY_FILE. When it listens and (daemon) has left its terminal, READY_FILE
// appears with the pid of the process to end. A connection's first reply is the pid of the process that serves it (4 bytes).

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

void tell_ready(const char* file) {
  std::string half = std::string(file) + ".tmp";
  FILE* out = fopen(half.c_str(), "w");
  if (out == nullptr) fail(file);
  fprintf(out, "%d\n", getpid());
  fclose(out);
  if (rename(half.c_str(), file) != 0) fail(file);
}

int listen_on(const char* port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(static_cast<uint16_t>(atoi(port)));
  if (bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) fail("bind");
  if (listen(fd, 511) != 0) fail("listen");
  return fd;
}

bool write_all(int fd, const char* data, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = write(fd, data + done, length - done);
    if (count < 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

bool greet(int fd) {
  int32_t pid = getpid();
  return write_all(fd, reinterpret_cast<char*>(&pid), sizeof pid);
}

// Serves one connection to its end. False if it broke.
bool echo(int fd) {
  std::vector<char> buffer(16384);
  if (!greet(fd)) return false;
  for (;;) {
    ssize_t count = read(fd, buffer.data(), buffer.size());
    if (count <= 0) return count == 0;
    if (!write_all(fd, buffer.data(), static_cast<size_t>(count))) return false;
  }
}

int accept_one(int listener) {
  int fd;
  do fd = accept(listener, nullptr, nullptr);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0) fail("accept");
  return fd;
}

[[noreturn]] void serve_forking(int listener) {
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept_one(listener);
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
      close(listener);
      _exit(echo(fd) ? 0 : 1);
    }
    close(fd);
  }
}

[[noreturn]] void serve_one_after_another(int listener) {
  for (;;) {
    int fd = accept_one(listener);
    echo(fd);
    close(fd);
  }
}

// Four children accept; the parent only waits, and replaces one that dies.
[[noreturn]] void serve_preforked(int listener, const char* ready) {
  for (int i = 0; i < 4; i++) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) serve_one_after_another(listener);
  }
  tell_ready(ready);
  for (;;) {
    int status;
    if (waitpid(-1, &status, 0) < 0) fail("waitpid");
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) serve_one_after_another(listener);
  }
}

// All connections in one process by poll(): blocking writes, so a peer must read what it is sent.
[[noreturn]] void serve_by_poll(int listener) {
  std::vector<pollfd> all{{listener, POLLIN, 0}};
  std::vector<char> buffer(16384);
  for (;;) {
    if (poll(all.data(), all.size(), -1) < 0) fail("poll");
    for (size_t i = all.size(); i-- > 1;) {
      if (all[i].revents == 0) continue;
      ssize_t count = read(all[i].fd, buffer.data(), buffer.size());
      if (count > 0 && write_all(all[i].fd, buffer.data(), static_cast<size_t>(count))) continue;
      close(all[i].fd);
      all.erase(all.begin() + static_cast<long>(i));
    }
    if (all[0].revents & POLLIN) {
      int fd = accept_one(listener);
      greet(fd);
      all.push_back({fd, POLLIN, 0});
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: %s fork|prefork|daemon PORT READY_FILE\n", argv[0]);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  std::string shape = argv[1];
  int listener = listen_on(argv[2]);
  if (shape == "prefork") serve_preforked(listener, argv[3]);
  if (shape == "daemon" && daemon(1, 1) != 0) fail("daemon");
  tell_ready(argv[3]);
  if (shape == "fork") serve_forking(listener);
  serve_by_poll(listener);
}
