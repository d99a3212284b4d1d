// The other end of the wire: a process that does over its own sockets what the tester asks for through a unix SEQPACKET socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// Its sockets do not block, and before it acts on one it waits until everything the program under test has done has arrived there.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "tests/diff/random/arrival.h"

namespace random_sequences {

enum class AgentCall : uint32_t {
  listen,       // a: family -> fd, port
  connect,      // a: port of the program under test, b: family -> fd, port
  accept,       // fd -> fd, port of who came
  send,         // fd, a: bytes, b: origin
  receive,      // fd, a: most bytes -> digest
  shutdown,     // fd, a: how
  close,        // fd
  reset,        // fd: close with linger 0
  look,         // fd
  acknowledge,  // fd: what it owes
  drain,        // fd, a: bytes to skip, b: bytes of the endless text behind them -> 1 if all came and are right
  datagram,     // a: family -> fd, port
  send_to,      // fd, a: port of the program under test, b: bytes, c: origin
  keep,         // fd of a datagram socket, a: port of the program under test, b: family: connects it, and it is not forgotten
  turn,         // fd, a: number of the barrier's turn: awaits it and sends it back -> 1
  forget        // closes everything else
};

struct AgentRequest {
  AgentCall call;
  int32_t fd;
  int32_t a, b, c;
  Arrival before;
};

// `result` and `error` are those of the system call; `revents` and `unread` how the socket stood before it.
struct AgentReply {
  int32_t result;
  int32_t error;
  uint32_t port;
  uint32_t digest;
  int32_t revents;
  uint32_t unread;
  bool arrived;
};

// The tester's side.
class Agent {
 public:
  explicit Agent(const char* control);
  AgentReply call(AgentCall call, int fd, int a = 0, int b = 0, const Arrival& before = {}, int c = 0);

 private:
  int control_;
};

// An address that the environment tells, with a port.
sockaddr_storage address_of(const char* variable, uint32_t port);
// Until this turn of a barrier has come; false if it does not.
bool await_turn(int fd, uint32_t turn);
// Serves one tester after the other. Does not return.
[[noreturn]] void serve_as_agent(const char* control);

}  // namespace random_sequences
