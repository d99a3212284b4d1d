// What a test says to its peer process over a unix SEQPACKET socket: one request, one reply, both one packet.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace testing_lib {

enum class PeerOp : uint32_t {
  socket,         // a: type flags, b: the type if it is not SOCK_STREAM -> fd
  bind,           // fd, a: address_be, b: port_be
  listen,         // fd, a: backlog
  accept,         // fd -> fd, address and port of who came
  connect,        // fd, a: address_be, b: port_be, c: 1: by IPv4, whatever the run's family
  send,           // fd, a: flags, payload
  recv,           // fd, a: most bytes, b: flags -> payload
  send_pattern,   // fd, a: seed, b: total, c: most bytes per write -> total
  check_pattern,  // fd, a: seed, b: total, c: most bytes per read -> total, or -1 and the offset of the first wrong byte as error
  echo,           // fd, a: total: reads and writes back that many bytes (0: until end of stream) -> bytes echoed
  drain,          // fd: reads to the end of the stream -> bytes seen
  shutdown,       // fd, a: how
  close,          // fd
  reset,          // fd: close with linger 0
  set_option,     // fd, a: level, b: option, c: value
  get_option,     // fd, a: level, b: option -> value
  local_name,     // fd -> address, port
  peer_name,      // fd -> address, port
  send_to,        // fd, a: address_be, b: port_be, c: flags, payload
  recv_from,      // fd, a: most bytes, b: flags -> payload, address and port of who sent it
  join_group,     // fd, a: address_be
  group_interface, // fd: what it sends to groups goes to the other side
  poll,           // fd, a: events, b: timeout in ms -> revents
  finish,         // a: job -> that job's reply
  forget_all,     // closes every descriptor the requests opened
};

constexpr uint32_t kMaxPayload = 64 * 1024;

struct PeerRequest {
  PeerOp op;
  int32_t fd;
  int64_t a, b, c;
  uint32_t in_background;  // the reply carries a job number, to be given to `finish`
  uint32_t length;         // of the payload that follows
};

struct PeerReply {
  int64_t result;
  int32_t error;  // errno if result is -1
  uint32_t address_be;
  uint32_t port_be;
  uint32_t length;
};

}  // namespace testing_lib
