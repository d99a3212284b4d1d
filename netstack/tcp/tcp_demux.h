// Which connection a segment belongs to, in O(1), and which connections need the timer.
// SPDX-License-Identifier: BSD-3-Clause
//
// lwIP finds a PCB by walking lists; with n connections every segment and every close costs O(n), and its timers
// look at all of them. Here every PCB that is not a listener is in one hash table by its four-tuple, and in at most one
// of three lists:
//   armed      something is pending (unacknowledged data, a delayed ACK, a state that times out): the tick visits it
//   waiting    TIME-WAIT, oldest first: only the head can expire
//   parked     idle, but keepalive is on: looked at when the earliest deadline passes
// An idle established connection is in none and costs nothing.
//
// Links lie in the PCB's ext-args, which lwIP reserves for its users and never reads:
//   [0] callbacks and the PCB itself   [1] next in the hash chain   [2] previous, [3] next in the list   [4] marks, how its
// port is shared, and in the upper half when a segment was last rejected (tcp_repairs.cc)   [5] timestamps (tcp_timestamps.h)
//
// Invariants: 1 a PCB is in the hash table exactly while kHashed is set, under its current addresses; 2 `next` of a
// PCB is null except while a tick runs; 3 lwIP's own list heads are null outside a tick.
// Sources: RFC 9293 (sequence checks), RFC 6191 in spirit (a new SYN may reuse TIME-WAIT).
#pragma once

#include <cstdint>

#include "base/heap.h"
#include "lwip/priv/tcp_priv.h"
#include "netstack/stack.h"
#include "netstack/tcp/port_table.h"
#include "netstack/tcp/four_tuple.h"

namespace netstack {

// A doubly linked list through the PCBs' ext-args.
class PcbList {
 public:
  [[nodiscard]] tcp_pcb* front() const noexcept { return head_; }
  [[nodiscard]] tcp_pcb* back() const noexcept { return tail_; }
  [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }
  [[nodiscard]] static tcp_pcb* after(const tcp_pcb* pcb) noexcept { return static_cast<tcp_pcb*>(pcb->ext_args[3].data); }
  [[nodiscard]] static tcp_pcb* before(const tcp_pcb* pcb) noexcept { return static_cast<tcp_pcb*>(pcb->ext_args[2].data); }
  void push_back(tcp_pcb* pcb) noexcept;
  void remove(tcp_pcb* pcb) noexcept;
  void clear() noexcept { head_ = tail_ = nullptr; }

 private:
  tcp_pcb* head_;
  tcp_pcb* tail_;
};

class TcpDemux {
 public:
  // Called once on zero-filled memory, which is an empty table (and stays untouched here).
  void start(const uint64_t seed[2]) noexcept;
  // Empties the table without looking at what it held: by recover().
  void reset() noexcept;
  // The connections of a table that its owner may have died in: `visit` gets what lies in `arena`, and each may be half changed.
  template <class Visit>
  void for_each_left(const base::Heap& arena, Visit visit) const noexcept {
    for (const tcp_pcb* pcb : buckets_) {
      for (int hops = 0; hops < kBuckets && arena.contains(pcb, sizeof *pcb);
           hops++, pcb = static_cast<const tcp_pcb*>(pcb->ext_args[1].data))
        visit(*pcb);
    }
  }

  // Files a PCB by its state: any synchronising or synchronised state is armed, TIME-WAIT waits.
  void add(tcp_pcb* pcb) noexcept;
  // Takes a PCB out of table and lists; false if it is in none.
  bool remove(tcp_pcb* pcb) noexcept;
  [[nodiscard]] tcp_pcb* find(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept;
  [[nodiscard]] tcp_pcb* find(const FourTuple& tuple) const noexcept;
  // Where the same lookup will start, for who wants the likely PCB there in the cache before it is read; the place itself is asked for
  // here.
  [[nodiscard]] const void* const* locate(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept;
  [[nodiscard]] const void* const* locate(const FourTuple& tuple) const noexcept;

  // Of the same kind as the table's: nobody else can choose it.
  [[nodiscard]] uint32_t hash(const FourTuple& tuple) const noexcept { return bucket_of(tuple); }

  // Moves a connection to the armed list, or from it to the parked list or to none.
  void arm(tcp_pcb* pcb) noexcept {
    if ((marks(pcb) & kArmed) == 0) [[unlikely]] arm_slowly(pcb);
  }
  void disarm(tcp_pcb* pcb, bool keepalive) noexcept;

  [[nodiscard]] const PcbList& armed() const noexcept { return armed_; }
  [[nodiscard]] const PcbList& waiting() const noexcept { return waiting_; }
  [[nodiscard]] const PcbList& parked() const noexcept { return parked_; }
  // Milliseconds of some clock, for TcpRepairs; 0: none were noted.
  [[nodiscard]] static uint32_t rejected_ms(const tcp_pcb& pcb) noexcept { return static_cast<uint32_t>(word(&pcb) >> 32); }
  static void note_rejected(tcp_pcb& pcb, uint32_t ms) noexcept { set_word(&pcb, uint64_t{ms} << 32 | static_cast<uint32_t>(word(&pcb))); }
  // TIME-WAIT saw another FIN: it starts anew.
  void requeue_waiting(tcp_pcb* pcb) noexcept;
  [[nodiscard]] int connections() const noexcept { return hashed_; }
  // Whether is(const tcp_pcb&) holds for one of the `count` connections that there are at a port. Looks at all until it knows.
  template <class Is>
  [[nodiscard]] bool any_at(uint16_t port, uint32_t count, Is is) const noexcept {
    for (int i = 0; i < kBuckets && count > 0; i++) {
      for (const tcp_pcb* pcb = buckets_[i]; pcb != nullptr; pcb = static_cast<const tcp_pcb*>(pcb->ext_args[1].data)) {
        if (pcb->local_port != port) continue;
        if (is(*pcb)) return true;
        count--;
      }
    }
    return false;
  }

  // How a connection has its port; what lasts when its stream has left it.
  static void note_sharing(tcp_pcb* pcb, const PortSharing& sharing) noexcept {
    const uint64_t flags = uint64_t{sharing.reuse_address} * kReuseAddress | uint64_t{sharing.reuse_port} * kReusePort;
    set_word(pcb, (word(pcb) & ~uint64_t{kReuseAddress | kReusePort}) | flags);
  }
  [[nodiscard]] static PortSharing sharing(const tcp_pcb& pcb) noexcept {
    return {(word(&pcb) & kReuseAddress) != 0, (word(&pcb) & kReusePort) != 0};
  }
  // IP_MINTTL, looked at where ZPS_TF_MIN_TTL is set.
  static void note_min_ttl(tcp_pcb* pcb, uint8_t ttl) noexcept { set_word(pcb, (word(pcb) & ~kMinTtl) | uint64_t{ttl} << kMinTtlShift); }
  [[nodiscard]] static uint8_t min_ttl(const tcp_pcb& pcb) noexcept { return static_cast<uint8_t>((word(&pcb) & kMinTtl) >> kMinTtlShift); }
  static void note_by_connect(tcp_pcb* pcb) noexcept { set_word(pcb, word(pcb) | kByConnect); }
  [[nodiscard]] static PortUse port_use(const tcp_pcb* pcb) noexcept {
    return (word(pcb) & kByConnect) != 0 ? PortUse::by_connect : PortUse::given;
  }
  [[nodiscard]] int waiting_count() const noexcept { return waiting_count_; }

 private:
  enum Mark : uint32_t {
    kHashed = 1,
    kArmed = 2,
    kWaiting = 4,
    kParked = 8,
    kListMarks = 15,
    kByConnect = 16,
    kReuseAddress = 32,
    kReusePort = 64
  };
  static constexpr int kMinTtlShift = 8;
  static constexpr uint64_t kMinTtl = uint64_t{0xff} << kMinTtlShift;
  static constexpr int kBuckets = 1 << 16;

  [[nodiscard]] static uint64_t word(const tcp_pcb* pcb) noexcept { return reinterpret_cast<uint64_t>(pcb->ext_args[4].data); }
  static void set_word(tcp_pcb* pcb, uint64_t value) noexcept { pcb->ext_args[4].data = reinterpret_cast<void*>(value); }
  [[nodiscard]] static uint32_t marks(const tcp_pcb* pcb) noexcept { return static_cast<uint32_t>(word(pcb)) & kListMarks; }
  static void set_marks(tcp_pcb* pcb, uint32_t value) noexcept { set_word(pcb, (word(pcb) & ~uint64_t{kListMarks}) | value); }
  [[nodiscard]] uint32_t bucket_of(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept;
  [[nodiscard]] uint32_t bucket_of(const FourTuple& tuple) const noexcept;
  [[nodiscard]] uint32_t bucket_of(const tcp_pcb* pcb) const noexcept;
  void arm_slowly(tcp_pcb* pcb) noexcept;
  void unlist(tcp_pcb* pcb) noexcept;

  uint64_t secret_[2];
  PcbList armed_;
  PcbList waiting_;
  PcbList parked_;
  int hashed_;
  int waiting_count_;
  tcp_pcb* buckets_[kBuckets];
};

}  // namespace netstack
