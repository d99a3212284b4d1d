// The test's side of its peer process: packs requests, makes connections.
// SPDX-License-Identifier: BSD-3-Clause

#include "tests/lib/peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <vector>

#include "tests/lib/family.h"

namespace testing_lib {
namespace {

std::string variable(const char* name) {
  const char* value = getenv(name);
  if (value == nullptr) {
    fprintf(stderr, "%s is not set: run through tests/lib/harness.py\n", name);
    exit(2);
  }
  return value;
}

sockaddr_in address_from(const char* name, uint16_t port_be) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = port_be;
  inet_pton(AF_INET, variable(name).c_str(), &address.sin_addr);
  return address;
}

}  // namespace

bool on_host_wire() { return variable("ZPS_TEST_MODE") == "zpstack-host" || variable("ZPS_TEST_MODE") == "zpstack-afxdp"; }
bool on_stack() { return variable("ZPS_TEST_MODE") != "kernel"; }
sockaddr_in self_address(uint16_t port_be) { return address_from("ZPS_TEST_SELF", port_be); }
sockaddr_in peer_address(uint16_t port_be) { return address_from("ZPS_TEST_PEER", port_be); }
std::string scratch_file(const char* name) { return variable("ZPS_TEST_SCRATCH") + "/" + name; }

std::string to_text(const sockaddr_in& address) {
  char text[INET_ADDRSTRLEN];
  inet_ntop(AF_INET, &address.sin_addr, text, sizeof text);
  return std::string(text) + ":" + std::to_string(ntohs(address.sin_port));
}

uint64_t now_ms() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1000000;
}

Peer::Peer() : control_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "%s", variable("ZPS_TEST_CONTROL").c_str());
  if (::connect(control_, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) {
    perror(name.sun_path);
    exit(2);
  }
  // Out of the way of tests that look at the lowest free number.
  int high = fcntl(control_, F_DUPFD_CLOEXEC, 900);
  ::close(control_);
  control_ = high;
}

Peer::~Peer() {
  call(PeerOp::forget_all, -1);
  ::close(control_);
}

Reply Peer::exchange(const PeerRequest& request, std::string_view payload) {
  std::string packet(reinterpret_cast<const char*>(&request), sizeof request);
  packet += payload;
  Reply made;
  if (::send(control_, packet.data(), packet.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(packet.size())) {
    ADD_FAILURE() << "control connection: " << strerror(errno);
    return made;
  }
  std::string answer(sizeof(PeerReply) + kMaxPayload, '\0');
  ssize_t size;
  do size = ::recv(control_, answer.data(), answer.size(), 0);
  while (size < 0 && errno == EINTR);
  if (size < static_cast<ssize_t>(sizeof(PeerReply))) {
    ADD_FAILURE() << "control connection: no reply";
    return made;
  }
  PeerReply head;
  memcpy(&head, answer.data(), sizeof head);
  made.result = head.result;
  made.error = head.error;
  made.name.sin_family = AF_INET;
  made.name.sin_addr.s_addr = head.address_be;
  made.name.sin_port = static_cast<uint16_t>(head.port_be);
  made.payload = answer.substr(sizeof head, head.length);
  return made;
}

Reply Peer::call(PeerOp op, int fd, int64_t a, int64_t b, int64_t c, std::string_view payload) {
  return exchange({op, fd, a, b, c, 0, static_cast<uint32_t>(payload.size())}, payload);
}

int Peer::start(PeerOp op, int fd, int64_t a, int64_t b, int64_t c, std::string_view payload) {
  return static_cast<int>(exchange({op, fd, a, b, c, 1, static_cast<uint32_t>(payload.size())}, payload).result);
}

Reply Peer::finish(int job) { return call(PeerOp::finish, -1, job); }

int Peer::listen(sockaddr_in* at, int backlog) {
  int fd = socket();
  EXPECT_EQ(call(PeerOp::bind, fd, INADDR_ANY, 0).result, 0);
  EXPECT_EQ(call(PeerOp::listen, fd, backlog).result, 0);
  *at = peer_address(call(PeerOp::local_name, fd).name.sin_port);
  return fd;
}

int Peer::datagram_socket(sockaddr_in* at) {
  const int fd = socket_of(SOCK_DGRAM);
  EXPECT_EQ(call(PeerOp::bind, fd, INADDR_ANY, 0).result, 0);
  *at = peer_address(call(PeerOp::local_name, fd).name.sin_port);
  return fd;
}

Reply Peer::send_to(int fd, const sockaddr_in& to, std::string_view data) {
  return call(PeerOp::send_to, fd, to.sin_addr.s_addr, to.sin_port, 0, data);
}

Reply Peer::connect(int fd, const sockaddr_in& to) { return call(PeerOp::connect, fd, to.sin_addr.s_addr, to.sin_port); }
int Peer::start_connect(int fd, const sockaddr_in& to) { return start(PeerOp::connect, fd, to.sin_addr.s_addr, to.sin_port); }

std::string Peer::recv_all(int fd, size_t count) {
  std::string all;
  while (all.size() < count) {
    Reply part = recv(fd, count - all.size());
    if (part.result <= 0) break;
    all += part.payload;
  }
  return all;
}

int listen_here(sockaddr_in* at, int backlog, int type_flags) {
  int fd = socket(domain(), SOCK_STREAM | type_flags, 0);
  EXPECT_GE(fd, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  Name name = in_family(any);
  EXPECT_EQ(bind(fd, name.get(), name.bytes), 0) << strerror(errno);
  EXPECT_EQ(::listen(fd, backlog), 0) << strerror(errno);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name.address), &name.bytes), 0) << strerror(errno);
  EXPECT_NE(name.address.sin6_port, 0);
  *at = self_address(name.address.sin6_port);
  return fd;
}

Connection DiffTest::connect_pair(Way way) {
  Connection made;
  sockaddr_in at{};
  sockaddr_in6 who{};
  socklen_t size = sizeof who;
  if (way == Way::accepted) {
    int listener = listen_here(&at);
    made.theirs = peer.socket();
    int job = peer.start_connect(made.theirs, at);
    made.mine = accept(listener, reinterpret_cast<sockaddr*>(&who), &size);
    EXPECT_GE(made.mine, 0) << strerror(errno);
    EXPECT_EQ(peer.finish(job).result, 0);
    EXPECT_EQ(close(listener), 0);
    return made;
  }
  int listener = peer.listen(&at);
  made.mine = socket(domain(), SOCK_STREAM, 0);
  const Name name = in_family(at);
  EXPECT_EQ(connect(made.mine, name.get(), name.bytes), 0) << strerror(errno);
  Reply accepted = peer.accept(listener);
  made.theirs = static_cast<int>(accepted.result);
  EXPECT_GE(made.theirs, 0);
  // Through the stack and not through the kernel beside it.
  EXPECT_EQ(accepted.name.sin_addr.s_addr, self_address().sin_addr.s_addr) << to_text(accepted.name);
  peer.close(listener);
  return made;
}

short DiffTest::wait_for(int fd, short events, int timeout_ms) {
  pollfd one{fd, events, 0};
  return poll(&one, 1, timeout_ms) > 0 ? one.revents : short{0};
}

std::string DiffTest::read_all(int fd, size_t count) {
  std::vector<char> buffer(65536);
  std::string all;
  while (all.size() < count) {
    ssize_t got = read(fd, buffer.data(), std::min(buffer.size(), count - all.size()));
    if (got <= 0) break;
    all.append(buffer.data(), static_cast<size_t>(got));
  }
  return all;
}

}  // namespace testing_lib
