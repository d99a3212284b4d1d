// The agent's loop, and the call into it.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/diff/random/agent.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <vector>

namespace random_sequences {
namespace {

constexpr uint64_t kPatienceUs = 3'000'000;
constexpr int kMostBytes = 65536;
constexpr short kAllEvents = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM;

std::set<int> opened;
std::vector<char> buffer(kMostBytes);

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(3);
}

// A listener that nobody connects to, out of the way of other descriptors.
int somewhere_on_the_wire() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || listen(fd, 1) != 0) fail("listen");
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, 701);
  close(fd);
  return high;
}

// recv(), but who waits in it looks after the wire as well: a stack whose process sleeps over kernel descriptors alone is driven by
// timers only, and the other side waits for its answers.
ssize_t receive_attentively(int control, void* data, size_t bytes) {
  static const int wire = somewhere_on_the_wire();
  pollfd both[] = {{control, POLLIN, 0}, {wire, POLLIN, 0}};
  while (poll(both, 2, -1) < 0 && errno == EINTR) {
  }
  ssize_t got;
  do got = recv(control, data, bytes, 0);
  while (got < 0 && errno == EINTR);
  return got;
}

uint32_t local_port(int fd) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;  // a port is at the same place in both families
  return getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes) == 0 ? ntohs(reinterpret_cast<sockaddr_in&>(name).sin_port) : 0;
}

bool await(int fd, const Arrival& before) {
  Patience patience(kPatienceUs);
  while (!has_arrived(fd, before)) {
    pollfd one{fd, 0, 0};
    (void)poll(&one, 1, 0);
    if (!patience.goes_on()) return false;
  }
  return true;
}

sockaddr_storage of_self(int family, uint32_t port) { return address_of(family == AF_INET6 ? "ZPS_TEST_SELF6" : "ZPS_TEST_SELF", port); }
sockaddr_storage of_peer(int family) { return address_of(family == AF_INET6 ? "ZPS_TEST_PEER6" : "ZPS_TEST_PEER", 0); }
socklen_t bytes_of(const sockaddr_storage& name) { return name.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in); }

int new_socket(int family) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket");
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  opened.insert(fd);
  return fd;
}

int do_listen(int family, AgentReply* reply) {
  const int fd = new_socket(family);
  sockaddr_storage any = of_peer(family);
  if (bind(fd, reinterpret_cast<sockaddr*>(&any), bytes_of(any)) != 0 || listen(fd, 16) != 0) fail("listen");
  reply->port = local_port(fd);
  return fd;
}

int do_datagram(int family, AgentReply* reply) {
  const int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_storage any = of_peer(family);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&any), bytes_of(any)) != 0) fail("bind");
  opened.insert(fd);
  reply->port = local_port(fd);
  return fd;
}

int do_send_to(const AgentRequest& request) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  (void)getsockname(request.fd, reinterpret_cast<sockaddr*>(&name), &bytes);
  const sockaddr_storage to = of_self(name.ss_family, static_cast<uint32_t>(request.a));
  fill(buffer.data(), static_cast<unsigned>(request.b), static_cast<unsigned>(request.c));
  return static_cast<int>(
      sendto(request.fd, buffer.data(), static_cast<size_t>(request.b), 0, reinterpret_cast<const sockaddr*>(&to), bytes_of(to)));
}

int do_keep(const AgentRequest& request) {
  const sockaddr_storage to = of_self(request.b, static_cast<uint32_t>(request.a));
  opened.erase(request.fd);
  return connect(request.fd, reinterpret_cast<const sockaddr*>(&to), bytes_of(to));
}

int do_turn(int fd, uint32_t turn) {
  if (!await_turn(fd, turn)) return 0;
  return send(fd, &turn, sizeof turn, 0) == static_cast<ssize_t>(sizeof turn) ? 1 : -1;
}

int do_connect(int family, uint32_t port, AgentReply* reply) {
  const int fd = new_socket(family);
  const sockaddr_storage to = of_self(family, port);
  const int result = connect(fd, reinterpret_cast<const sockaddr*>(&to), bytes_of(to));
  reply->error = result == 0 ? 0 : errno;
  reply->port = local_port(fd);
  return fd;
}

int do_accept(int listener, AgentReply* reply) {
  sockaddr_storage who{};
  socklen_t bytes = sizeof who;
  pollfd one{listener, POLLIN, 0};
  (void)poll(&one, 1, static_cast<int>(kPatienceUs / 1000));  // the tester asks when somebody is there
  const int fd = accept4(listener, reinterpret_cast<sockaddr*>(&who), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return fd;
  const int on = 1;
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  opened.insert(fd);
  reply->port = ntohs(reinterpret_cast<sockaddr_in&>(who).sin_port);
  return fd;
}

int do_send(const AgentRequest& request) {
  const unsigned bytes = static_cast<unsigned>(std::min(request.a, kMostBytes));
  fill(buffer.data(), bytes, static_cast<unsigned>(request.b));
  return static_cast<int>(send(request.fd, buffer.data(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT));
}

int do_receive(const AgentRequest& request, AgentReply* reply) {
  const ssize_t got = recv(request.fd, buffer.data(), static_cast<size_t>(std::min(request.a, kMostBytes)), MSG_DONTWAIT);
  if (got > 0) reply->digest = digest(buffer.data(), static_cast<unsigned>(got));
  return static_cast<int>(got);
}

int do_close(int fd, bool reset) {
  linger now{1, 0};
  if (reset) (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  opened.erase(fd);
  return close(fd);
}

int do_forget() {
  while (!opened.empty()) (void)do_close(*opened.begin(), true);
  return 0;
}

void run(const AgentRequest& request, AgentReply* reply) {
  errno = 0;
  switch (request.call) {
    case AgentCall::listen: reply->result = do_listen(request.a, reply); return;
    case AgentCall::connect: reply->result = do_connect(request.b, static_cast<uint32_t>(request.a), reply); return;
    case AgentCall::accept: reply->result = do_accept(request.fd, reply); break;
    case AgentCall::send: reply->result = do_send(request); break;
    case AgentCall::receive: reply->result = do_receive(request, reply); break;
    case AgentCall::shutdown: reply->result = shutdown(request.fd, request.a); break;
    case AgentCall::close: reply->result = do_close(request.fd, false); break;
    case AgentCall::reset: reply->result = do_close(request.fd, true); break;
    case AgentCall::look: reply->result = 0; break;
    case AgentCall::acknowledge: acknowledge_now(request.fd); break;
    case AgentCall::drain: reply->result = drain(request.fd, static_cast<uint32_t>(request.a), static_cast<uint32_t>(request.b)); break;
    case AgentCall::datagram: reply->result = do_datagram(request.a, reply); return;
    case AgentCall::send_to: reply->result = do_send_to(request); break;
    case AgentCall::keep: reply->result = do_keep(request); break;
    case AgentCall::turn: reply->result = do_turn(request.fd, static_cast<uint32_t>(request.a)); break;
    case AgentCall::forget: reply->result = do_forget(); break;
  }
  reply->error = reply->result < 0 ? errno : 0;
}

void serve(int control) {
  AgentRequest request;
  while (receive_attentively(control, &request, sizeof request) == static_cast<ssize_t>(sizeof request)) {
    AgentReply reply{};
    reply.arrived = request.fd < 0 || await(request.fd, request.before);
    if (request.fd >= 0) {
      pollfd one{request.fd, kAllEvents, 0};
      (void)poll(&one, 1, 0);
      reply.revents = one.revents;
      reply.unread = unread_bytes(request.fd);
    }
    run(request, &reply);
    if (send(control, &reply, sizeof reply, MSG_NOSIGNAL) < 0) break;
  }
  (void)do_forget();
  close(control);
}

}  // namespace

sockaddr_storage address_of(const char* variable, uint32_t port) {
  sockaddr_storage made{};
  auto* const v4 = reinterpret_cast<sockaddr_in*>(&made);
  auto* const v6 = reinterpret_cast<sockaddr_in6*>(&made);
  const char* text = getenv(variable);
  if (text == nullptr) fail(variable);
  if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
    made.ss_family = AF_INET6;
  } else {
    made = {};
    made.ss_family = AF_INET;
    if (inet_pton(AF_INET, text, &v4->sin_addr) != 1) fail(variable);
  }
  v4->sin_port = htons(static_cast<uint16_t>(port));  // the same place for both families
  return made;
}

Agent::Agent(const char* control) : control_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "%s", control);
  if (control_ < 0 || connect(control_, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) fail(control);
}

AgentReply Agent::call(AgentCall call, int fd, int a, int b, const Arrival& before, int c) {
  const AgentRequest request{call, fd, a, b, c, before};
  AgentReply reply{};
  if (send(control_, &request, sizeof request, MSG_NOSIGNAL) < 0) fail("agent");
  if (receive_attentively(control_, &reply, sizeof reply) != static_cast<ssize_t>(sizeof reply)) fail("agent");
  return reply;
}

void serve_as_agent(const char* control) {
  signal(SIGPIPE, SIG_IGN);
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "%s.new", control);
  // Who waits for the name may connect as soon as it is there.
  if (bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 || listen(listener, 1) != 0 ||
      rename(name.sun_path, control) != 0)
    fail(control);
  while (true) serve(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
}

}  // namespace random_sequences
