// Single-steps the victims of a family (step_member.cc) and kills each after another number of instructions; then the family must serve on.
// SPDX-License-Identifier: BSD-3-Clause
//
//   step_killer ADDRESS PORT CONTROL OPERATION STRIDE [OFFSET]
//
// The first victim runs to the end of its operation: that many instructions there are. Then one dies after every STRIDE-th (-N: so that
// there are N), from OFFSET on (random if it is not given), and each time
//   - an established connection of the survivor echoes, or is reset;
//   - a new connection echoes;
//   - the victim's peer sees an end of its connection, a while later.
// A spawned victim is the child of a vfork that executes another program, its steps are system calls, from its birth on, and its parent
// lives until the peer has seen the end.
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <netinet/in.h>
#include <poll.h>
#include <random>
#include <string>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

constexpr int kPatienceMs = 10'000;
constexpr size_t kEndsAwaited = 20;  // so many victims later their peers must have seen the end

long victim_steps = 0;
const char* operation;

[[noreturn]] void fail(const char* what) {
  printf("%s, killed after %ld steps: %s (%s)\n", operation, victim_steps, what, strerror(errno));
  exit(1);
}

int connect_to(const char* host, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const timeval limit{kPatienceMs / 1000, 0};
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host, &address.sin_addr);
  if (TEMP_FAILURE_RETRY(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address)) == 0) return fd;
  (void)close(fd);
  return -1;
}

// Whether it answers. It may also be reset, which is told in `errno`. Where a time is set a wait ends with EINTR when the process was
// stopped or frozen and goes on.
bool echoes(int fd) {
  char byte = 'e';
  errno = 0;
  return send(fd, &byte, 1, MSG_NOSIGNAL) == 1 && TEMP_FAILURE_RETRY(recv(fd, &byte, 1, 0)) == 1 && byte == 'e';
}

class Killer {
 public:
  Killer(const char* host, int port, const char* control) : host_(host), port_(port) {
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    strncpy(place.sun_path, control, sizeof place.sun_path - 1);
    control_ = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (connect(control_, reinterpret_cast<sockaddr*>(&place), sizeof place) != 0) fail("no way to the family");
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port + 2));
    const int one = 1;
    (void)setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener_, 1024) != 0) fail("cannot listen");
    reconnect();
  }

  // Kills a victim after `steps` instructions, or at the end. How many it made.
  long kill_one(long steps) {
    victim_steps = steps;
    int peer = -1;
    for (int i = 0; i < 10 && peer < 0; i++) peer = connect_to(host_, port_ + 1);  // a reset of all may hit it
    if (peer < 0) fail("no connection for the victim");
    if (strcmp(operation, "read") == 0) (void)!write(peer, "some bytes", 10);
    const auto victim = static_cast<pid_t>(std::stol(order(operation)));
    const long made = step(victim, steps);
    ends_.push_back(peer);
    if (is("spawn")) {
      await_end();
      end(victim);
    }
    (void)order("done");
    if (ends_.size() > kEndsAwaited) await_end();
    check();
    for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0;) (void)close(fd);
    return made;
  }
  void finish() {
    while (!ends_.empty()) await_end();
    (void)close(survivor_);
  }

 private:
  static bool is(const char* name) { return strcmp(operation, name) == 0; }
  static void end(pid_t process) {
    int status;
    (void)kill(process, SIGKILL);
    (void)waitpid(process, &status, __WALL);
  }
  std::string order(const char* word) const {
    char answer[64] = {};
    pollfd ready{control_, POLLIN, 0};
    if (send(control_, word, strlen(word), 0) < 0 || poll(&ready, 1, kPatienceMs) != 1) fail(word);
    if (recv(control_, answer, sizeof answer - 1, 0) <= 0) fail(word);
    return answer;
  }
  long step(pid_t victim, long most) const {
    int status = 0;
    const long birth = is("born") ? PTRACE_O_TRACEFORK : is("spawn") ? PTRACE_O_TRACEVFORK : 0;
    if (ptrace(PTRACE_SEIZE, victim, 0, PTRACE_O_TRACEEXEC | birth) != 0) fail("cannot trace");
    if (ptrace(PTRACE_INTERRUPT, victim, 0, 0) != 0 || waitpid(victim, &status, __WALL) != victim) fail("cannot interrupt");
    (void)order("go");
    pid_t stepped = victim;
    if (birth != 0) stepped = first_child(victim);
    const auto request = is("spawn") ? PTRACE_SYSCALL : PTRACE_SINGLESTEP;
    long made = 0;
    for (int signal = 0; made < most; made++) {
      if (ptrace(request, stepped, 0, signal) != 0 || waitpid(stepped, &status, __WALL) != stepped) break;
      if (!WIFSTOPPED(status)) return made;  // it has ended by itself
      if ((status >> 16 == PTRACE_EVENT_EXEC && !is("spawn")) || WSTOPSIG(status) == SIGUSR1) break;
      signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
    }
    end(stepped);
    if (stepped != victim && !is("spawn")) end(victim);
    return made;
  }
  // Lets a victim go on until it has forked; its child stands at its first instruction then. The parent goes on, that of a vfork behind it.
  static pid_t first_child(pid_t victim) {
    int status = 0;
    unsigned long child = 0;
    do {
      if (ptrace(PTRACE_CONT, victim, 0, 0) != 0 || waitpid(victim, &status, __WALL) != victim || !WIFSTOPPED(status)) fail("no child");
    } while (status >> 16 != PTRACE_EVENT_FORK && status >> 16 != PTRACE_EVENT_VFORK);
    (void)ptrace(PTRACE_GETEVENTMSG, victim, 0, &child);
    if (waitpid(static_cast<pid_t>(child), &status, __WALL) != static_cast<pid_t>(child)) fail("no child to wait for");
    (void)ptrace(is("spawn") ? PTRACE_DETACH : PTRACE_CONT, victim, 0, 0);
    return static_cast<pid_t>(child);
  }
  void reconnect() {
    survivor_ = connect_to(host_, port_);
    if (survivor_ < 0 || !echoes(survivor_)) fail("the survivor takes no connection");
  }
  void check() {
    if (!echoes(survivor_)) {
      if (errno != ECONNRESET && errno != EPIPE) fail("the survivor's connection is neither served nor reset");
      (void)close(survivor_);
      reconnect();
    }
    const int fresh = connect_to(host_, port_);
    if (fresh < 0 || !echoes(fresh)) fail("a new connection is not served");
    (void)close(fresh);
  }
  void await_end() {
    const int peer = ends_.front();
    ends_.pop_front();
    char bytes[4096];
    long got;
    while ((got = TEMP_FAILURE_RETRY(recv(peer, bytes, sizeof bytes, 0))) > 0) {
    }
    if (got < 0 && errno != ECONNRESET && errno != EPIPE) fail("the victim's connection does not end");
    (void)close(peer);
  }

  const char* const host_;
  const int port_;
  int control_ = -1, listener_ = -1, survivor_ = -1;
  std::deque<int> ends_;
};

}  // namespace

int main(int count, char** arguments) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  operation = arguments[4];
  Killer killer(arguments[1], atoi(arguments[2]), arguments[3]);
  const long all = killer.kill_one(1'000'000);
  const long wanted = atol(arguments[5]);
  const long stride = wanted > 0 ? wanted : all / -wanted + 1;
  const long offset = count > 6 ? atol(arguments[6]) : static_cast<long>(std::random_device()() % static_cast<unsigned long>(stride));
  printf("%s: %ld steps, one killed after each %ld-th from %ld on\n", operation, all, stride, offset);
  for (long steps = offset; steps <= all; steps += stride) (void)killer.kill_one(steps);
  killer.finish();
}
