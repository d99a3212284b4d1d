// A family whose victims are single-stepped and killed (step_killer.cc): an echo server that forks a victim per order.
// SPDX-License-Identifier: BSD-3-Clause
//
//   step_member ADDRESS PORT CONTROL
//
// PORT is served here. PORT + 1 is for victims: the killer has a connection wait there before each order. Orders come as one word each over
// the socket CONTROL: an operation (the victim's pid is answered; it waits), "go" (it goes on), "done" (it is dead: everything of it is
// given up).
#include <arpa/inet.h>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <string>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

[[noreturn]] void fail(const char* what) {
  perror(what);
  _exit(1);
}

long must(long result, const char* what) {
  if (result < 0) fail(what);
  return result;
}

sockaddr_in address_of(const char* host, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host, &address.sin_addr);
  return address;
}

int listen_at(const char* host, int port) {
  const int fd = static_cast<int>(must(socket(AF_INET, SOCK_STREAM, 0), "socket"));
  const int one = 1;
  (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const sockaddr_in address = address_of(host, port);
  must(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
  must(listen(fd, 64), "listen");
  return fd;
}

struct Member {
  const char* host;
  int port;
  int set = -1, listener = -1, spare = -1, control = -1;
  int connection = -1;  // the victim's
  int start[2] = {-1, -1};
  pid_t victim = 0;

  void watch(int fd) const {
    epoll_event event{EPOLLIN, {.fd = fd}};
    must(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  }
  // What the victim does. All of it may end at any instruction.
  void act(const std::string& operation) const;
  void fork_victim(const std::string& operation);
  void give_up();
  void obey();
  void serve(int fd) const;
};

void Member::act(const std::string& operation) const {
  char bytes[4096] = {};
  epoll_event event{EPOLLIN | EPOLLOUT, {.fd = -1}};
  if (operation == "close") (void)close(connection);
  if (operation == "accept") (void)accept(spare, nullptr, nullptr);
  if (operation == "read") (void)!read(connection, bytes, sizeof bytes);
  if (operation == "write") (void)!write(connection, bytes, sizeof bytes);
  if (operation == "wait") (void)epoll_wait(set, &event, 1, 1);
  if (operation == "exit") _exit(0);
  if (operation == "exec") execl("/bin/true", "true", nullptr);
  if (operation == "spawn") {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, connection, 0);
    char name[] = "step_member", role[] = "spawned";
    char* const arguments[] = {name, role, nullptr};
    pid_t child;
    (void)posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments, environ);
    (void)close(connection);
    while (true) pause();
  }
  if (operation == "fork" || operation == "born") {
    if (fork() == 0 && operation == "fork") _exit(0);
  }
  if (operation == "epoll_ctl") {
    for (const int what : {EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CTL_ADD}) (void)epoll_ctl(set, what, connection, &event);
  }
  if (operation == "dup2") (void)dup2(connection, 900);
  if (operation == "connect") {
    const sockaddr_in peer = address_of("198.18.0.1", port + 2);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    (void)connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer);
  }
  if (operation == "listen") {
    const int fd = listen_at(host, port + 3);
    (void)shutdown(fd, SHUT_RDWR);
    (void)listen(fd, 5);
  }
}

void Member::fork_victim(const std::string& operation) {
  must(pipe(start), "pipe");
  if (operation != "accept") connection = static_cast<int>(must(accept(spare, nullptr, nullptr), "accept"));
  victim = fork();
  if (victim == 0) {
    char byte;
    (void)close(start[1]);
    (void)!read(start[0], &byte, 1);
    act(operation);
    (void)raise(SIGUSR1);  // the end, as the killer sees it
    _exit(0);
  }
  must(victim, "fork");
  if (connection >= 0 && (operation == "close" || operation == "exit" || operation == "exec" || operation == "spawn")) {
    (void)close(connection);
    connection = -1;
  }
}

void Member::give_up() {
  (void)waitpid(victim, nullptr, 0);
  if (connection >= 0) (void)close(connection);
  for (const int fd : start) (void)close(fd);
  connection = -1;
  // What waits still, or is made later, is not the victim's any more.
  must(fcntl(spare, F_SETFL, O_NONBLOCK), "fcntl");
  for (int fd; (fd = accept(spare, nullptr, nullptr)) >= 0;) (void)close(fd);
  must(fcntl(spare, F_SETFL, 0), "fcntl");
}

void Member::obey() {
  char word[64] = {};
  const long bytes = recv(control, word, sizeof word - 1, 0);
  if (bytes <= 0) {  // no more victims
    (void)close(control);
    control = -1;
    return;
  }
  const std::string order(word);
  std::string answer = "ok";
  if (order == "go") {
    must(write(start[1], "g", 1), "write");
  } else if (order == "done") {
    give_up();
  } else {
    fork_victim(order);
    answer = std::to_string(victim);
  }
  must(send(control, answer.c_str(), answer.size(), 0), "send");
}

void Member::serve(int fd) const {
  char bytes[4096];
  const long got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0 || send(fd, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) (void)close(fd);
}

}  // namespace

int main(int, char** arguments) {
  if (strcmp(arguments[1], "spawned") == 0) {
    char byte;
    (void)recv(0, &byte, 1, MSG_DONTWAIT);
    (void)raise(SIGUSR1);  // the end, as the killer sees it
    return 0;
  }
  Member member{arguments[1], atoi(arguments[2])};
  member.listener = listen_at(member.host, member.port);
  member.spare = listen_at(member.host, member.port + 1);
  member.set = static_cast<int>(must(epoll_create1(0), "epoll_create1"));
  sockaddr_un place{};
  place.sun_family = AF_UNIX;
  strncpy(place.sun_path, arguments[3], sizeof place.sun_path - 1);
  const int door = static_cast<int>(must(socket(AF_UNIX, SOCK_SEQPACKET, 0), "socket"));
  must(bind(door, reinterpret_cast<sockaddr*>(&place), sizeof place), "bind");
  must(listen(door, 1), "listen");
  member.control = static_cast<int>(must(accept(door, nullptr, nullptr), "accept"));
  member.watch(member.control);
  member.watch(member.listener);
  while (true) {
    epoll_event events[16];
    const int count = epoll_wait(member.set, events, 16, -1);
    for (int i = 0; i < count; i++) {
      const int fd = events[i].data.fd;
      if (fd == member.control) {
        member.obey();
      } else if (fd == member.listener) {
        const int made = accept4(fd, nullptr, nullptr, SOCK_NONBLOCK);
        if (made >= 0) member.watch(made);
      } else if (fd >= 0) {  // not what a victim has registered
        member.serve(fd);
      }
    }
  }
}
