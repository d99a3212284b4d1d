// Bells: a descriptor for each thread that sleeps, which the kernel makes readable when a frame has come for it.
// SPDX-License-Identifier: BSD-3-Clause
//
// A wire has one descriptor, and a frame wakes whoever sleeps on it: with a process or a thread for each connection mostly the wrong ones.
// A wire that has bells looks at each frame when it lies where receive() finds it, and rings the bell of the thread that the frame is for,
// if that sleeps. Which thread that is says the board, memory that both the threads and the wire's program in the kernel see: a home for
// each flow (a hash of ports and peer), and a state for each bell.
//
// Bell 0 is the common one: of SYNs, of flows without a home, and of those whose owner has not looked at the wire for kLateNs, because it
// is stopped, or dead, or at work with something else, or was woken and has got no processor. Several may sleep on it, and all are woken.
// Each other bell is one thread's at most. Whoever is awake takes in whatever there is, its own and others'; bells do not say who receives.
//
// A bell rings once: its descriptor stays readable until its owner arms it again. So who brings in a frame for somebody whose bell has rung
// need not wake him (has_rung).
//
// Order. A sleeper arms its bell and then looks at the wire once more; the kernel puts the frame into its place and then looks at the bell.
// Between the two there is a full barrier on each side (here; in the kernel it is wq_has_sleeper()'s, in sock_def_readable()).
//
// With the stack's lock held, all of them. Valid as zeros: no bells.
#pragma once

#include <atomic>
#include <cstdint>

#include "netstack/socket_address.h"

namespace netstack {

class WakeBells {
 public:
  static constexpr int kBells = 63;
  static constexpr int kCommon = 0;
  static constexpr uint32_t kFlowBits = 12;
  static constexpr uint32_t kHashFactor = 0x9e3779b1;
  static constexpr uint32_t kRecordBytes = 16;  // what one ring takes in the kernel's buffer: a header of eight bytes, and eight
  static constexpr uint64_t kLateNs = 1'000'000;
  enum State : uint32_t { awake, armed, rung };

  // What the program in the kernel sees and writes. Valid as zeros: nobody has a bell.
  struct Board {
    struct alignas(64) Bell {
      uint32_t state;
      uint64_t rings;      // how often it has rung
      uint64_t looked_ns;  // CLOCK_MONOTONIC: when its owner last looked, or it has rung
    };
    uint8_t home[1 << kFlowBits];
    Bell bell[kBells];
  };
  // Where the kernel reads how much of a bell's buffer has been consumed: the first word of a page. Of each process its own mapping.
  struct Page {
    uint64_t consumed;
  };

  WakeBells() noexcept = default;
  WakeBells(Board* board, Page* common) noexcept : board_(board), common_(common) {}
  // The same with their descriptors, kBells of them, which the family sees.
  [[nodiscard]] WakeBells with(const int* fds) const noexcept {
    WakeBells same = *this;
    same.fds_ = fds;
    return same;
  }

  [[nodiscard]] bool exist() const noexcept { return board_ != nullptr; }
  [[nodiscard]] int fd(int bell) const noexcept { return fds_[bell]; }
  [[nodiscard]] Page* common_page() const noexcept { return common_; }

  // It has no owner any more, or has not had one: its flows are everybody's.
  void vacate(int bell) const noexcept {
    set(bell, awake);
    std::atomic_ref<uint64_t>(board_->bell[bell].looked_ns).store(0, std::memory_order_relaxed);
  }
  // Its owner looks at the wire. The kernel's processors share the line: it is not written each time.
  void note_look(int bell, uint64_t now_ns) const noexcept {
    const std::atomic_ref<uint64_t> looked_ns(board_->bell[bell].looked_ns);
    if (now_ns - looked_ns.load(std::memory_order_relaxed) > kLateNs / 4) looked_ns.store(now_ns, std::memory_order_relaxed);
  }
  // Its owner is about to sleep, and looks at the wire once more now.
  void arm(int bell, Page* page) const noexcept {
    std::atomic_ref<uint64_t>(page->consumed).store(rings(bell) * kRecordBytes, std::memory_order_release);
    std::atomic_ref<uint32_t>(board_->bell[bell].state).exchange(armed, std::memory_order_seq_cst);
  }
  void disarm(int bell) const noexcept { set(bell, awake); }
  [[nodiscard]] bool has_rung(int bell) const noexcept {
    return std::atomic_ref<uint32_t>(board_->bell[bell].state).load(std::memory_order_acquire) == rung;
  }
  [[nodiscard]] uint64_t rings(int bell) const noexcept {
    return std::atomic_ref<uint64_t>(board_->bell[bell].rings).load(std::memory_order_acquire);
  }

  // From now on frames from `peer` to `local` ring this bell.
  void bring_home(const SocketAddress& local, const SocketAddress& peer, int bell) const noexcept {
    std::atomic_ref<uint8_t>(board_->home[flow_of(local, peer)]).store(static_cast<uint8_t>(bell), std::memory_order_relaxed);
  }
  // If it has been so: from now on they ring the common one.
  void leave_home(const SocketAddress& local, const SocketAddress& peer, int bell) const noexcept {
    const std::atomic_ref<uint8_t> home(board_->home[flow_of(local, peer)]);
    if (home.load(std::memory_order_relaxed) == bell) home.store(kCommon, std::memory_order_relaxed);
  }
  // As the program in the kernel reckons it: of an IPv6 address the last word counts.
  [[nodiscard]] static uint32_t flow_of(const SocketAddress& local, const SocketAddress& peer) noexcept {
    const uint32_t ports_be = static_cast<uint32_t>(local.port_be) << 16 | peer.port_be;
    return __builtin_bswap32(peer.address.words_be[3] ^ ports_be) * kHashFactor >> (32 - kFlowBits);
  }

 private:
  void set(int bell, State state) const noexcept {
    std::atomic_ref<uint32_t>(board_->bell[bell].state).store(state, std::memory_order_release);
  }

  Board* board_ = nullptr;
  Page* common_ = nullptr;
  const int* fds_ = nullptr;
};

}  // namespace netstack
