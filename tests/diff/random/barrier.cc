// The barrier's datagrams.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/diff/random/barrier.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/diff/random/agent.h"
#include "tests/diff/random/arrival.h"

namespace random_sequences {
namespace {

constexpr int kHigh = 710;
constexpr uint64_t kPatienceUs = 3'000'000;

int high_socket(const sockaddr_storage& to) {
  const int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, kHigh);
  close(fd);
  if (connect(high, reinterpret_cast<const sockaddr*>(&to), to.ss_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in)) != 0) {
    perror("barrier");
    exit(3);
  }
  return high;
}

int connected_to_itself() {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  auto* loopback = reinterpret_cast<sockaddr_in*>(&name);
  loopback->sin_family = AF_INET;
  loopback->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof *loopback) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes) != 0 || connect(fd, reinterpret_cast<sockaddr*>(&name), bytes) != 0) {
    perror("barrier");
    exit(3);
  }
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, kHigh);
  close(fd);
  return high;
}

}  // namespace

bool await_turn(int fd, uint32_t turn) {
  Patience patience(kPatienceUs);
  while (true) {
    uint32_t got = 0;
    if (recv(fd, &got, sizeof got, MSG_DONTWAIT) == static_cast<ssize_t>(sizeof got) && got == turn) return true;
    pollfd one{fd, POLLIN, 0};
    (void)poll(&one, 1, 1);
    if (!patience.goes_on()) return false;
  }
}

Barrier::Barrier(Agent& agent) : loop_(connected_to_itself()) {
  for (int i = 0; i < 2; i++) {
    const AgentReply reply = agent.call(AgentCall::datagram, -1, i == 0 ? AF_INET : AF_INET6);
    sockaddr_storage to = address_of(i == 0 ? "ZPS_TEST_PEER" : "ZPS_TEST_PEER6", reply.port);
    far_[i] = reply.result;
    near_[i] = high_socket(to);
    sockaddr_storage name{};
    socklen_t bytes = sizeof name;
    (void)getsockname(near_[i], reinterpret_cast<sockaddr*>(&name), &bytes);
    (void)agent.call(AgentCall::keep, far_[i], ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port), i == 0 ? AF_INET : AF_INET6);
  }
  for (int tries = 0; tries < 3 && !pass(agent); tries++) continue;  // neighbours are asked for
}

bool Barrier::pass(Agent& agent) {
  turn_++;
  if (send(loop_, &turn_, sizeof turn_, 0) < 0) return false;
  for (int i = 0; i < 2; i++) {
    if (send(near_[i], &turn_, sizeof turn_, 0) < 0) return false;
  }
  for (int i = 0; i < 2; i++) {
    if (agent.call(AgentCall::turn, far_[i], static_cast<int>(turn_)).result != 1 || !await_turn(near_[i], turn_)) return false;
  }
  return await_turn(loop_, turn_);
}

}  // namespace random_sequences
