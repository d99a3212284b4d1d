// Bursts of frames that are given to the kernel behind the stack's lock, by whoever has queued them.
// SPDX-License-Identifier: BSD-3-Clause
//
// A frame for a program of this machine is sent by running that program's half of TCP, and wakes it. That takes longer than all the stack
// does for it, and where the woken program takes the processor, as long as that wants to run. With the lock held, everybody waits for it.
// So a burst is made under the lock, boards a place here, departs without the lock, and its frames come back to the pool under the lock of
// whoever looks next.
//
// Order. Several may be on their way at once, but of each connection one: what is queued for a connection that is under way stays behind,
// and whoever brings in that one takes the lock again to send it (or a timer, a millisecond later).
//
// Death and stops. Between its unlock and its last store a sender may be killed or stopped, or have lost its processor to the one that it
// woke. The others find its place under way for kHelpAfterNs, and ask what has become of it: of a dead one everything is queued again, for
// a stopped one its frames are sent in its place.
// Both may send what has been sent already: to TCP a segment that it knows, to ARP the same answer, and of UDP a datagram that comes twice,
// as on any network. (After any other pause a sender goes on by itself, and each question is asked later than the one before.)
//
// Invariants: 1 `not_taken`, `cycles` and then `done` are the sender's to write, after its last look at the rest, which is written under
// the lock; 2 a place is marked in under_way_ after everything in it is written; 3 the frames of a place are nobody else's, until it is
// given back.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"
#include "netstack/wires/kernel/packet_burst.h"

namespace netstack {

struct Departure {
  bool done;            // read and written by atomic_ref: as an object of its own it would touch each place from the start
  uint16_t frames;      // how many
  uint16_t not_taken;   // so many of them, the last ones, the kernel has refused
  bool helped;
  uint32_t wait_ns;     // from `seen_ns` to the next question
  uint64_t owner;       // the sender (base/robust_lock.h)
  uint64_t connections; // a bit for each (connection_bit)
  uint64_t cycles;      // that the sender took
  uint64_t seen_ns;     // when it was first seen under way, or asked about; 0: not yet
  rte_mbuf* frame[kBurst];
  PacketBurst burst;
};

class Departures {
 public:
  static constexpr int kPlaces = 64;

  // The connection of a segment over IPv4 without options or over IPv6, as one of 64. Of anything else some bit, always the same.
  [[nodiscard]] static uint64_t connection_bit(const uint8_t* frame) noexcept;

  // All with the lock held, but for at().
  [[nodiscard]] Departure& at(int number) noexcept { return places_[number]; }
  [[nodiscard]] bool any() const noexcept { return under_way_ != 0; }
  // The number of a free place, or -1.
  [[nodiscard]] int free_place() const noexcept { return under_way_ == ~uint64_t{0} ? -1 : __builtin_ctzll(~under_way_); }
  // The connections of what is under way.
  [[nodiscard]] uint64_t connections() const noexcept;
  // What is in the place is for the calling thread to send, until it says so.
  void mark(int number) noexcept;
  // Without the lock: the kernel has all but the last `not_taken` frames, and the place is looked at no more.
  static void finish(Departure& departure, uint16_t not_taken) noexcept {
    if (not_taken != 0) departure.not_taken = not_taken;
    std::atomic_ref<bool>(departure.done).store(true, std::memory_order_seq_cst);
  }
  void unmark(int number) noexcept { under_way_ &= ~(uint64_t{1} << number); }
  // Calls `back` with each that is done, or whose sender is dead; and `help` with each whose sender is stopped.
  template <class Back, class Help>
  void look(Back back, Help help) noexcept {
    uint64_t now_ns = 0;
    for (uint64_t left = under_way_; left != 0; left &= left - 1) {
      const int number = __builtin_ctzll(left);
      Departure& departure = places_[number];
      Fate fate = Fate::back;
      if (!is_done(departure)) {
        if (now_ns == 0) now_ns = base::monotonic_ns();
        fate = fate_of(departure, now_ns);
      }
      if (fate == Fate::help) help(departure);
      if (fate != Fate::back) continue;
      back(departure);
      unmark(number);
    }
  }
  // After a death inside the lock: forgets all but those whose sender may be at it yet.
  void recover() noexcept;
  [[nodiscard]] bool holds(const rte_mbuf* frame) const noexcept;
  // All that are in places, and those of them that have come back and are not in the pool yet.
  [[nodiscard]] int frames() const noexcept;
  [[nodiscard]] int frames_back() const noexcept;

 private:
  [[nodiscard]] static bool is_done(const Departure& departure) noexcept {
    return std::atomic_ref<const bool>(departure.done).load(std::memory_order_acquire);
  }
  enum class Fate { under_way, back, help };
  static constexpr uint32_t kHelpAfterNs = 8'000'000, kLongestWaitNs = 128'000'000;

  static Fate fate_of(Departure& departure, uint64_t now_ns) noexcept;

  uint64_t under_way_ = 0;
  Departure places_[kPlaces];
};

}  // namespace netstack
