// A wire: where a stack's Ethernet frames come from and go to (one DPDK port and queue), without a DPDK type.
// SPDX-License-Identifier: BSD-3-Clause
//
// A wire is driven by any process of the fork family that made it, one at a time: every method here is called
// with the stack's lock held, except sleep_fd() and depart(). Its object and everything it changes lie in memory the family
// shares. Frames received are lent: the stack keeps the memory (zero copy) until it releases the handle.
#pragma once

#include <cstddef>
#include <cstdint>

#include "netstack/port_steering.h"
#include "netstack/socket_address.h"
#include "netstack/wake_bells.h"

namespace netstack {

// Bytes of caller-owned memory in front of every received frame, for the stack's own bookkeeping (its pbuf).
inline constexpr size_t kFramePrivateBytes = 64;
// Received and sent frames are at most this long per piece.
inline constexpr int kBurst = 64;

// One received frame, or a piece of one: `length` bytes at `data`, `handle` to give back, `scratch` 64-byte aligned private memory
// that lives as long as the frame is held.
struct RxFrame {
  uint8_t* data;
  uint32_t length;
  void* handle;
  void* scratch;
  bool checksum_verified = false;  // CHECKSUM_UNNECESSARY: the device has looked at TCP's or UDP's, or the frame has not left the machine
  bool continues = false;  // the next piece of the frame before it; all pieces of a frame come in one receive()
};

// One frame to be filled: `capacity` bytes at `data`.
struct TxFrame {
  uint8_t* data;
  uint32_t capacity;
  void* handle;
};

// Bytes that stay where they are.
struct Piece {
  const void* data;
  uint32_t bytes;
};
// So many of them may follow a frame's headers.
inline constexpr int kMostPieces = 4;

// Offloads bear the kernel's names (struct net_device): checksums, GRO for what comes, GSO for what goes.
struct WireFacts {
  char name[16];             // "veth", "memif", "tap" ...
  uint8_t mac[6];            // the stack's own address on this wire
  uint16_t mtu;              // IP bytes in a frame
  bool memory;               // frames do not leave memory that the peer shares
  // Software must fill and verify checksums. On a wire of `memory` it is for the peer to say, and may change when another one comes or it
  // goes (`peers`, run_control()).
  bool link_needs_checksum;
  // The wire fills in TCP checksums (NETIF_F_IP_CSUM), but not those of what goes through send_tcp(), nor the sum over its IP header.
  bool tcp_checksum_offload = false;
  // The largest receive segment: IP bytes in a frame that comes, if that may be more than in one that goes; else 0. Only where no software
  // fills TCP checksums. It and the next one may change when another peer comes (`peers`).
  uint16_t gro_max_size = 0;
  // The largest transmit segment: IP bytes in a TCP segment that is sent, if that may be more than mtu (send_tcp_with() then takes it);
  // else 0.
  uint16_t gso_max_size = 0;
  // The kernel's address at the other end, on a wire that leads to one on this machine: it takes frames of gro_max_size bytes.
  uint32_t host_be = 0;
  int name_fd = -1;        // as long as it is open in any process the link's name is taken (hold_link_name()); -1: nothing holds it
  bool ends_here = false;  // at this machine's kernel
  bool survives_exec = false;  // all of it lies in memory and descriptors that the next program can have
  // The stack's addresses are the kernel's as well, which keeps the neighbours and routes what is sent: it takes every frame, to whatever
  // station, and answers none that asks for one.
  bool shared = false;
  uint32_t address_be = 0;  // of a shared wire: the IPv4 address of both, which may become another one (run_control())
  int interface = 1;  // what the kernel calls it, or its own end; on a wire that has none, the one that every namespace has (loopback)
  uint32_t peers = 0;      // how many came so far, on wires that know: each may be a new one, without a memory of connections
};

// What it has cost to give messages to the kernel behind the stack's lock: cycles of the time-stamp counter.
struct SendCost {
  uint64_t messages, cycles;
};

class Wire {
 public:
  [[nodiscard]] virtual const WireFacts& facts() const noexcept = 0;

  // Takes up to `capacity` (at most kBurst) frames off the wire; returns how many. Never sleeps. Makes no
  // kernel call where frames lie in shared memory: a wire that is connected, not armed, and frames that fit its ring.
  [[nodiscard]] virtual int receive(RxFrame* out, int capacity) noexcept = 0;
  // Nothing has come that receive() would take, and nothing waits to be sent. Without the lock, and it may be told wrongly while somebody
  // has it; false where that cannot be told.
  [[nodiscard]] virtual bool rests() const noexcept { return false; }
  // So many frames wait that more would soon be lost.
  [[nodiscard]] virtual bool crowded() const noexcept { return false; }
  // Gives a received frame's memory back.
  virtual void release(void* handle) noexcept = 0;

  // A frame to write into, or false when the pool is empty (the caller keeps its data and tries later). It is sent before the next
  // one is allocated.
  [[nodiscard]] virtual bool allocate(TxFrame* out) noexcept = 0;
  // Queues an allocated frame of `length` bytes; it is the wire's from here on. Frames leave in order, at
  // flush() or when the next frame finds a full burst: never before their sender has noted that they are sent, so that recover() knows. A
  // full ring is never a reason to drop on a memory wire: the frame waits in a software queue that the next flush() drains.
  virtual void send(void* handle, uint32_t length) noexcept = 0;
  // The same for a TCP segment over IPv4 without options, which the wire may join with others of its connection. If
  // facts().tcp_checksum_offload, its TCP checksum is the wire's business.
  virtual void send_tcp(void* handle, uint32_t length) noexcept { send(handle, length); }
  // The same for a frame that holds the first `length` bytes, the headers. What follows is in `count` pieces (1 to kMostPieces), which stay
  // as they are until the next flush() has returned; a wire of facts().memory has copied them when this returns. Only if
  // facts().tcp_checksum_offload, or for a segment that is longer than a frame.
  virtual void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
    (void)handle, (void)length, (void)pieces, (void)count;
    __builtin_trap();
  }
  virtual void flush() noexcept = 0;

  // A wire on which sending takes long may do it without the stack's lock, if its user allows it once and for all. Whoever leaves the lock
  // then asks departs(); takes, with the lock still held, what is to depart; and has it depart when the lock is free.
  virtual void allow_departures() noexcept {}
  [[nodiscard]] bool departs() const noexcept { return departs_; }
  // A number for depart(), or -1 if nothing is left to do.
  [[nodiscard]] virtual int take_departure() noexcept { return -1; }
  // Without the lock. False: the stack is to be flushed again.
  [[nodiscard]] virtual bool depart(int number) noexcept {
    (void)number;
    return true;
  }

  // Since the wire was made; of some wires only. Without the lock.
  [[nodiscard]] virtual SendCost send_cost() const noexcept { return {}; }

  // Frames that wait in the software queue: the stack stops producing when this grows past a few bursts.
  [[nodiscard]] virtual int backlog() const noexcept = 0;
  // Whoever is at the other end has all that was sent, or holds memory that outlives this process. Without anybody there: true.
  [[nodiscard]] virtual bool delivered() const noexcept { return backlog() == 0; }
  // Frames wait that the device has refused, and nothing will tell when it takes them: flush() is to be tried again soon.
  [[nodiscard]] virtual bool refused() const noexcept { return false; }

  // A descriptor whose POLLIN says that frames may be there, or -1 if this wire cannot wake a sleeper now. The number is
  // the same in each member of the family and may change over time (a memif peer that comes or goes): ask before each sleep.
  [[nodiscard]] virtual int sleep_fd() noexcept = 0;
  // Before sleeping on sleep_fd(): asks the device for a wake-up. After it, receive() must be tried once
  // more (a frame may have come before). disarm() when awake again; both are cheap when there is nothing to do.
  virtual void arm() noexcept = 0;
  virtual void disarm() noexcept = 0;

  // Where it can wake the one whom a frame is for: who sleeps on bells needs no sleep_fd(). They are the same for the wire's life.
  [[nodiscard]] virtual const WakeBells& bells() const noexcept {
    static constinit const WakeBells none;
    return none;
  }
  // They ring from now on, which costs each frame something. False if the kernel refuses. It may be called again.
  [[nodiscard]] virtual bool hang_bells() noexcept { return false; }

  // Runs the wire's own control events (a memif peer that connects or dies). Called by whoever is on service
  // duty when control_fd() is readable; control_fd() is -1 if there are none, and one number for the wire's
  // life. Takes the lock's absence for granted neither: the caller holds the stack's lock.
  [[nodiscard]] virtual int control_fd() noexcept = 0;
  virtual void run_control() noexcept = 0;

  // So many were dropped because they were of another VLAN.
  [[nodiscard]] virtual uint64_t foreign_frames() const noexcept { return 0; }

  // Where the stack says which ports are its own, on a wire whose addresses are shared; else nullptr.
  [[nodiscard]] virtual PortSteering* steering() const noexcept { return nullptr; }
  // Whether what is sent to `address` can go this way; on a wire whose addresses are shared the kernel's routes say so.
  [[nodiscard]] virtual bool leads_to(const IpAddress& address) const noexcept {
    (void)address;
    return true;
  }
  // The family is dead but for who sends what is left: whoever comes next may have the wire's place.
  virtual void leave_name() noexcept {}

  // Free frames now, and in a wire at rest: equal again when nothing leaks.
  [[nodiscard]] virtual int free_frames() const noexcept = 0;
  [[nodiscard]] virtual int total_frames() const noexcept = 0;

  // After a member died inside the stack's lock: takes every frame back into the pool and forgets what was queued.
  virtual void recover() noexcept = 0;

 protected:
  ~Wire() = default;

  bool departs_ = false;  // something was flushed that takes the lock's owner to send
};

}  // namespace netstack
