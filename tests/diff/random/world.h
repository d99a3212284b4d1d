// The world a sequence runs in: what its slots hold, and the tester's books about every connection.
// SPDX-License-Identifier: BSD-3-Clause
//
// A result is comparable when it does not depend on when frames arrive. So after each operation the world settles: it waits until every end
// of ours has seen what the other end did (bytes, FIN, reset), as the books say; and the peer's process waits the same way before it acts.
// The books come from results alone (how many bytes a call moved, whether a shutdown succeeded), never from what the tester thinks is
// right. What would block is asked first and then left out, visibly, in the trace: only `block` blocks, in a second thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/diff/random/agent.h"
#include "tests/diff/random/barrier.h"
#include "tests/diff/random/operation.h"

struct sockaddr_storage;

namespace random_sequences {

struct File;

// One end of a connection.
struct End {
  File* file = nullptr;  // ours, while a descriptor refers to it
  int agent_fd = -1;     // the peer's, while it is open
  End* other = nullptr;
  File* listener = nullptr;  // ours, that has not accepted it yet
  uint16_t local_port = 0, remote_port = 0;
  uint32_t sent = 0, read = 0;
  bool answered = true;      // somebody answers its SYN
  bool in_progress = false;  // its connect() has not told of the success yet
  bool fin = false;          // its stream has ended: shut down or closed
  bool gone = false;         // closed
  bool skips_fin_wait = false;  // and its file did
  bool by_loopback = false;  // the kernel's side
  bool shut_read = false;
  bool (*reader_is_over)() = nullptr;  // another thread reads it: says when that has what it wanted
  bool reset = false;                  // the other side has reset it, or will
};

enum class FileKind { socket, listener, stream, datagram, epoll, pipe };

// An open file description of ours.
struct File {
  FileKind kind = FileKind::socket;
  int fd = -1;  // one of its descriptors
  End* end = nullptr;
  std::vector<End*> waiting;  // a listener's: connections not accepted yet, oldest first
  int backlog = 0;
  bool (*accept_is_over)() = nullptr;  // another thread accepts: says when it has got somebody
  uint16_t port = 0;
  int family = 0;                              // a listener's, as its address says: a v6 one that takes v4 as well is AF_UNSPEC
  uint32_t address_be = 0;                     // what it is bound to, 0 for any
  int address6 = kAny6;                        // and of IPv6: a class of addresses
  uint16_t seen_port = 0;                      // the last port its name had
  bool bound_to_self = false, failed = false;  // its last connect()
  bool is_the_kernels = false;   // for good: it had to do with an address of the kernel's
  bool has_ended = false;        // shutdown() or disconnect() has ended its last attempt or connection
  bool bound = false;            // bind(), listen() or its listener have given it its port, which is still there
  bool bound_by_number = false;  // and will be
  bool may_share = false;        // SO_REUSEADDR or SO_REUSEPORT
  int shut = 0;  // what shutdown() has told before there was a connection: SHUT_RD + 1, SHUT_WR + 1
  bool linger_zero = false;
  bool skips_fin_wait = false;  // TCP_LINGER2 below 0: who is closed answers the acknowledgement of its FIN with a reset
  bool has_edges = false;  // it is, or was, in a set that is told of its edges
  bool chose_receive_buffer = false, chose_send_buffer = false;
  bool pipe_writer = false;
  bool bound_to_loop = false;
  bool has_vague_peer = false;  // of no port
};

struct PeerSlot {
  int fd = -1;
  uint16_t port = 0;  // a listener's
  std::vector<End*> waiting;
  End* end = nullptr;
  int family = 0;  // of a listener or a datagram socket
  bool datagrams = false;
  unsigned queued = 0;  // datagrams sent to it and not received, at most
};

// What may lie unread in the datagram sockets of a port.
struct Inbox {
  unsigned datagrams = 0, bytes = 0;
  bool by_kernel = false;  // whose side it came by
};

class World {
 public:
  World(Agent& agent, Barrier& barrier);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // Runs one operation and adds its line to the trace. One that lasts too long is interrupted by SIGALRM and is the world's last.
  void run(const Operation& operation);
  // Closes everything after a last look.
  void finish();
  [[nodiscard]] const std::string& trace() const { return trace_; }

  // --- what operations use ---
  Agent& agent;
  Barrier& barrier;
  PeerSlot peers[kPeerSlots];
  std::map<uint16_t, Inbox> inboxes;
  std::map<uint16_t, std::string> datagram_ports;  // what the trace calls them
  int step = 0;  // the number of the running operation: the origin of the bytes it sends

  [[nodiscard]] int fd(int slot) const { return slot >= 0 && slot < kSlots ? fds_[slot] : -1; }
  [[nodiscard]] File* file(int slot) const { return slot >= 0 && slot < kSlots ? files_[slot].get() : nullptr; }
  [[nodiscard]] const std::shared_ptr<File>& shared(int slot) const { return files_[slot]; }
  // A slot gets a new descriptor; what it held is closed first (hold) or was replaced by dup2 (replace).
  void hold(int slot, int fd, std::shared_ptr<File> file);
  void replace(int slot, std::shared_ptr<File> file);
  // A file has lost one of its descriptors: finds another one of it.
  void find_descriptor(const std::shared_ptr<File>& file);
  // Closes a slot's descriptor; the result of close().
  int close_slot(int slot);
  // The books' side of the last close.
  void released(const std::shared_ptr<File>& file, bool had_unread);
  [[nodiscard]] bool last_reference(int slot) const { return files_[slot] != nullptr && files_[slot].use_count() == 1; }

  End* new_end() { return &ends_.emplace_back(); }
  // The listener of ours that answers at an address class and port; nullptr if there is none.
  File* listener_at(int address, uint16_t port);
  // An end has sent something: the other one may answer with a reset.
  static void note_sent(End* end, unsigned moved);
  // Whether the other end of this one answers data with a reset.
  [[nodiscard]] static bool resets_data(const End& end);
  [[nodiscard]] bool port_is_listened_at(uint16_t port) const;
  [[nodiscard]] bool answers(const File& listener, int address) const;
  void forget_waiting(File* listener);
  void settle(End* end);
  void settle_all();
  // Until all that an end has sent is acknowledged, its FIN too. An acknowledgement may be delayed, and when it comes it is an edge (of a
  // FIN's), ends what a cork or Nagle's algorithm holds back, and decides what a close that resets drops: so the other end is made to
  // say now what it owes.
  void await_acknowledged(End* end);
  // The end has shut down its stream.
  void note_fin(End* end);
  [[nodiscard]] Arrival expected_at(const End& end) const;

  // A port by number. Nobody listens at one that was never claimed, and none is claimed by two worlds of the same minute: its connections
  // may be in TIME-WAIT.
  [[nodiscard]] uint16_t fixed_port(int index) const;
  uint16_t claim_fixed_port(int index);
  // The address of a class, as a socket of its family takes it; its length.
  unsigned address(int kind, uint16_t port, sockaddr_storage* out) const;
  // A word for an address that was reported; port 0 and the world's fixed ports have names too.
  std::string name_of(const sockaddr_storage& name, unsigned bytes, uint16_t expected_port) const;

  void note(const char* format, ...) __attribute__((format(printf, 2, 3)));
  // " = 3" or " = EAGAIN"; for -1 errno is told.
  void note_result(long result);
  // What is left out, and the row of docs/differences.md that says why (exclusions.h).
  void leave_out(const char* row) { note(" (row %s)", row); }
  // Until all that was sent has arrived, and what it has caused: refusals.
  void await_barrier();

 private:
  void await_reset_of_fin_wait(End* other);

  std::string trace_;
  int fds_[kSlots];
  std::shared_ptr<File> files_[kSlots];
  std::deque<End> ends_;
  uint16_t fixed_ports_[kFixedPorts] = {};
  int descriptors_before_;
  bool lost_ = false;  // something has not arrived: what follows depends on time
};

constexpr uint16_t kNobodysPort = 1999;

bool is_nonblocking(int fd);
bool is_v6(int fd);
// The machine's own addresses on the wire, and those of the kernel's side.
bool is_self(int address);
bool is_loopback(int address);
// The kernel has the stack's address as well (the wires host and af_xdp).
bool shares_address();
// The address at which a socket of one family reaches a peer of another or the same.
int address_of_peer(int fd, const PeerSlot& peer);
uint16_t port_of(const sockaddr_storage& name);
uint16_t local_port(int fd);
// poll() without waiting.
short level(int fd, short events);
extern volatile int sigpipe_count, sigalrm_count;

}  // namespace random_sequences
