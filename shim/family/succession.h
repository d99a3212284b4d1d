// A process whose code lies where a family's does not: a copy of the code, where it has to be, takes the process over.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. What a family shares has addresses of its code in it. Programs that one of its members executes are told where the code
// lies (exec.h), and those of a network agree on it (network.h). A program that was started from elsewhere, and is passed a socket, has
// it where ld.so had room: haproxy that takes over the listeners of the one before it (-x).
//
// How. The library maps itself a second time (second_copy.h), at the family's place, and hands the process over to the copy: settings,
// hidden descriptors, the private family with its table. The engine calls the copy from then on. What follows, from opening the envelope
// on, is what happens in any process that joins, and if it fails the copy serves on as the first one would have.
//
// Who is not taken over: a process with threads, since each of them might be in the old code; one whose calls have been interrupted by the
// handler that this call comes from, likewise; one with locked memory, kept rights, or a hard limit of descriptors that is kept for it,
// which the old code knows of; and a vfork's child.
//
// Invariants: 1 after the exchange the old code does nothing but return; 2 an object of the private family is the copy's from then on.
// Known limits: the old code stays mapped (3.5 MB, of which 0.3 are its own); a handler that leaves a wait by siglongjmp() leaves a thread
// that counts as interrupted; the ledger begins anew.
#pragma once

#include "base/high_fd.h"
#include "shim/family/family.h"
#include "shim/family/own_memory.h"

namespace shim {

// What the copy is told. Addresses are the old one's.
struct Legacy {
  const zps_engine* engine;
  zps_hook* hook;  // to be filled
  const base::Config* config;
  const base::Origin* origins;
  Family* family;
  ProcessSlot* slot;
  const void* thread_locals;     // as base/own_thread.h has them
  const char* image_file;        // as netstack/make_stack.h has it
  std::span<const Range> memory;  // as own_memory.h has it
  int first_fd, fd_count;        // the hidden range
  uint64_t hidden[base::kHighFdWords];
};

using TakeOver = bool (*)(const Legacy& legacy) noexcept;
// By whoever knows how: the copy's own is called.
void prepare_succession(TakeOver function) noexcept;

// nullptr: the copy at `place` has taken over. Or why it could not. Without the lock, in a call that keeps everything.
[[nodiscard]] const char* succeed(uintptr_t place) noexcept;
// From this library to the copy that has taken over; 0: none has.
[[nodiscard]] uintptr_t distance_to_successor() noexcept;

// In the copy: what the old one has in the table of this process is its own from now on.
void adopt_own_files() noexcept;

}  // namespace shim
