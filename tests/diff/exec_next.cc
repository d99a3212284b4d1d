// The program that exec_test executes: does one thing with the descriptors that it finds open.
// SPDX-License-Identifier: BSD-3-Clause
//
// exec_next echo FD        gives back what it reads, in pieces, until the end
// exec_next serve FD       accepts one connection, gives back one message
// exec_next listen FD SAID listens, says so with a byte, and serves
// exec_next epoll SET FD   waits in the set until FD's event comes, and says on FD which data it had
// exec_next limit FD       says on FD what RLIMIT_AS is, and whether a third of it can be mapped, and all of it
// exec_next tell FD        says on FD what it sees of it: O_NONBLOCK, TCP_NODELAY, SO_RCVTIMEO, its name and its peer's
// exec_next wait FD        reads a byte from FD, which is a pipe
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <string>

namespace {

bool write_all(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = write(fd, data, bytes);
    if (written <= 0) return false;
    data += written;
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

int echo(int fd) {
  char data[4096];
  while (true) {
    const ssize_t count = read(fd, data, sizeof data);
    if (count <= 0) return count == 0 ? 0 : 1;
    if (!write_all(fd, data, static_cast<size_t>(count))) return 2;
  }
}

int serve(int fd) {
  const int connection = accept(fd, nullptr, nullptr);
  if (connection < 0) return 1;
  char data[100];
  const ssize_t count = read(connection, data, sizeof data);
  return count > 0 && write_all(connection, data, static_cast<size_t>(count)) ? 0 : 2;
}

int listen_and_serve(int fd, int said) {
  if (listen(fd, 10) != 0) return 3;
  return write_all(said, "l", 1) ? serve(fd) : 4;
}

int wait_in_set(int set, int fd) {
  epoll_event event{};
  if (epoll_wait(set, &event, 1, 30000) != 1) return 1;
  char text[64];
  const int length = snprintf(text, sizeof text, "%llu", static_cast<unsigned long long>(event.data.u64));
  return write_all(fd, text, static_cast<size_t>(length)) ? 0 : 2;
}

std::string name_of(int (*call)(int, sockaddr*, socklen_t*), int fd) {
  sockaddr_in address{};
  socklen_t bytes = sizeof address;
  if (call(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return "none";
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(ntohs(address.sin_port));
}

int tell(int fd) {
  int nodelay = -1;
  socklen_t bytes = sizeof nodelay;
  getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &bytes);
  timeval timeout{};
  bytes = sizeof timeout;
  getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &bytes);
  const std::string text = std::to_string((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0) + " " + std::to_string(nodelay) + " " +
                           std::to_string(timeout.tv_sec) + " " + name_of(getsockname, fd) + " " + name_of(getpeername, fd);
  return write_all(fd, text.data(), text.size()) ? 0 : 1;
}

int limit(int fd) {
  rlimit now{};
  getrlimit(RLIMIT_AS, &now);
  const bool room = mmap(nullptr, now.rlim_cur / 3, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  const bool more = mmap(nullptr, now.rlim_cur, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  const std::string text = std::to_string(now.rlim_cur) + " " + std::to_string(now.rlim_max) + (room ? " room" : " no room") +
                           (more ? " and more than that" : "");
  return write_all(fd, text.data(), text.size()) ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 99;
  const std::string what = arguments[1];
  const int fd = atoi(arguments[2]);
  if (what == "echo") return echo(fd);
  if (what == "serve") return serve(fd);
  if (what == "listen") return listen_and_serve(fd, atoi(arguments[3]));
  if (what == "epoll") return wait_in_set(fd, atoi(arguments[3]));
  if (what == "tell") return tell(fd);
  if (what == "limit") return limit(fd);
  char byte;
  return what == "wait" && read(fd, &byte, 1) == 1 ? 0 : 98;
}
