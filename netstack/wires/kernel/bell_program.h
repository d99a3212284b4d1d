// What bells of a packet wire consist of in the kernel: ring buffers, the board, and a socket whose filter rings.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. A packet socket wakes everybody who sleeps on it, whatever the frame is. To have the kernel choose, each sleeper needs a
// descriptor of its own that the kernel makes readable, without a delivery of the frame to it, and without a system call to empty it.
//
// How. Each bell is a BPF ring buffer (Linux 5.8): a sleeper polls it, a program writes into it, and it is emptied by a store to a mapped
// page. The program is the filter of packet sockets of its own, which take no frame. It has to run when the frame lies in the receiving
// socket's ring, or the woken one would find nothing. On a link of our own they are bound to IPv4, IPv6 and ARP, which the kernel serves
// after whoever wants everything, and only when somebody sleeps on a bell: it costs each frame some 2 % of what a small request takes. On
// other links a bridge or a queueing discipline may take the frame away between the two; there one socket wants everything as well, and is
// bound before the receiving one, for the kernel serves those newest first. A ring buffer wakes from an interrupt that the processor sends
// itself (irq_work).
//
// Rejected: a fan-out group of packet sockets with a ring each, of which each thread sleeps on one. It wakes as well and no worse, but
// each socket costs start and end of a program two to three RCU grace periods: with 16 of them 230 and 450 ms in place of 15 and 45.
//
// Takes CAP_BPF or CAP_SYS_ADMIN, and Linux 5.12 (compare and exchange). There are none either behind a seccomp filter that is older than
// this program, which may answer bpf(2) with death (systemd's SystemCallFilter=@system-service), nor where descriptors are few.
//
// Sources: kernel/bpf/ringbuf.c, net/packet/af_packet.c, net/core/dev.c (ptype_all, ptype_specific) of Linux.
#pragma once

#include <cstdint>

#include "netstack/wake_bells.h"

namespace netstack {

// Descriptors out of the program's sight; all of them, or `board` was never there and none.
struct BellFds {
  static constexpr int kSockets = 3;
  static constexpr int kCount = kSockets + 1 + WakeBells::kBells;

  int socket[kSockets] = {-1, -1, -1};  // neither bound nor taking anything
  int board = -1;
  int bell[WakeBells::kBells] = {};

  [[nodiscard]] bool exist() const noexcept { return socket[0] >= 0; }
  // The n-th of kCount.
  [[nodiscard]] int& at(int n) noexcept { return n < kSockets ? socket[n] : n == kSockets ? board : bell[n - kSockets - 1]; }
};

// Whether this process may have so many descriptors beside the program's.
[[nodiscard]] bool has_room_for_bells() noexcept;
// In the calling thread's network namespace.
[[nodiscard]] BellFds make_bell_fds() noexcept;
void close_bell_fds(BellFds& fds) noexcept;
// Maps the board. No bells if that is refused: then the descriptors are closed.
[[nodiscard]] WakeBells map_bells(BellFds& fds) noexcept;
// Has them ring for what comes from the link of this index: any link, before the receiving socket is bound,
// or one of our own, at any time and as often as one likes. False if the kernel refuses.
[[nodiscard]] bool hang_bells_before(const int* sockets, int interface) noexcept;
[[nodiscard]] bool hang_bells_late(const int* sockets, int interface) noexcept;

}  // namespace netstack
