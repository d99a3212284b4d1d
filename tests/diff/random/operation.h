// One operation of a random sequence: its kind, its arguments, and the text both are written as.
// SPDX-License-Identifier: BSD-3-Clause
//
// An operation names sockets by slots and not by descriptors, so that a sequence stays meaningful when some of its operations are taken
// out: an operation on an empty slot is one on a bad descriptor, and that has a result as well.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace random_sequences {

class World;

constexpr int kSlots = 12;      // of the program under test
constexpr int kPeerSlots = 6;   // of the process at the other end of the wire
constexpr int kFixedPorts = 4;  // ports a world may ask for by number
constexpr int kMostArguments = 6;

enum class Kind : uint8_t {
  socket,
  bind,
  bind_used,
  listen,
  connect,
  connect_peer,
  connect_port,
  disconnect,
  accept,
  receive,
  send,
  corked,
  sendfile,
  splice,
  fill,
  shutdown,
  close,
  dup,
  dup2,
  dup3,
  dup_from,
  fork,
  get_flags,
  set_flags,
  fd_flags,
  nonblocking,
  unread,
  unsent,
  at_mark,
  set_option,
  get_option,
  local_name,
  peer_name,
  status,
  seek,
  epoll,
  epoll_ctl,
  epoll_wait,
  poll,
  select,
  pipe,
  look,
  block,
  peer_listen,
  peer_connect,
  peer_accept,
  peer_send,
  peer_receive,
  peer_shutdown,
  peer_close,
  peer_reset,
  peer_look,
  datagram,
  send_to,
  send_to_peer,
  peer_datagram,
  peer_send_to,
  count
};

struct Operation {
  Kind kind;
  int args[kMostArguments];
};

// A row per kind. The letters of `signature` say what the arguments are: s slot, p slot of the peer's, and for the others see operation.cc.
struct KindRow {
  Kind kind;
  const char* name;
  const char* signature;
  void (*run)(World& world, const int* args);
};

const KindRow& row_of(Kind kind);
int argument_count(Kind kind);

std::string to_text(const Operation& operation);
// False if `line` is not what to_text() writes.
bool from_text(std::string_view line, Operation* operation);

// Address classes; what they are depends on the mode.
enum Address {
  kAny,
  kSelf,
  kPeer,
  kLoop,
  kNobody,
  kForeign,
  kAny6,
  kLoop6,
  kSelfMapped,
  kLoopMapped,
  kSelf6,
  kPeer6,
  kPeerMapped,
  kAddresses
};

struct Option {
  const char* name;
  int level, number;
  const char* excluded;  // what is not asked for because of a row of docs/differences.md, else nullptr
};
extern const Option kOptions[];
extern const int kOptionCount;

enum ReceiveCall { kRead, kRecv, kRecvfrom, kRecvmsg, kReadv, kRecvmmsg, kReceiveCalls };
enum SendCall { kWrite, kSend, kSendto, kSendmsg, kWritev, kSendmmsg, kSendCalls };
enum Cork { kMoreThenSend, kOptionOnOff, kMoreThenNodelay, kMoreThenShutdown, kCorks };
// What a second thread blocks in, and what ends it.
enum BlockingCall {
  kBlockRead,
  kBlockAccept,
  kBlockPoll,
  kBlockEpoll,
  kBlockSelect,
  kBlockWaitall,
  kBlockPeek,
  kBlockConnect,
  kBlockingCalls
};
enum Wakening {
  kBySend,
  kByShutdownRead,
  kByShutdownWrite,
  kByShutdownBoth,
  kByPeerClose,
  kByPeerReset,
  kByClose,
  kByDup2,
  kBySignal,
  kByRestartingSignal,
  kBySignalAfterShutdown,
  kByConnect,
  kWakenings
};

}  // namespace random_sequences
