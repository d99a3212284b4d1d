// Threads that the kernel alone knows: made by clone(), on memory of ours, without ld.so and libc.
// SPDX-License-Identifier: BSD-3-Clause
//
// What libc does. pthread_create() has ld.so make the thread's vector of thread-local blocks (DTV), and ld.so allocates with the malloc()
// of the program's own namespace, for a thread of ours in the second one too (docs/decisions/two-namespaces.md). So the program's
// allocator would be called in the middle of a system call of whichever thread came by, and if that is a thread of ours, keep a pointer
// into memory that ends with it. Stacks come from a cache that both libcs share, and have to hold the static TLS of everything in the
// program.
//
// Our choice. One mapping holds stack, thread-local variables, thread control block and DTV:
//
//     | guard page | stack | static TLS, as far as our modules lie in it | control block (fs:0), DTV |
//
// Untouched pages cost nothing, so a program with a megabyte of thread-local variables costs us address space only. The variables
// of our own namespace (its libc's among them) begin as a new thread's do; those of the program are zeros that nobody reads, because no
// code of the program runs here: every signal stays blocked, libc's own two too, as setuid() of a libc that does not know the thread sends
// none.
//
// Rejected: no TLS at all. errno, malloc's caches and DPDK's per-thread numbers are in it.
//
// Invariants: 1 such a thread never returns into code of the program, and is never cancelled; 2 it binds no symbol lazily and opens no
// library (the core is bound when it is loaded); 3 nobody but OwnThread frees its memory.
// Sources: ELF Handling For Thread-Local Storage (variant II), clone(2), set_tid_address(2), glibc's nptl_db (struct pthread's tid),
// sys/rseq.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace base {

// Notes where the thread-local variables of this link namespace lie, and that those of another from `word` (or nullptr) on are needed too,
// among them the calling library's own if ld.so has no place for them. Once, while there is one thread only: ld.so is asked. False if
// another module's variables have no fixed place.
[[nodiscard]] bool note_thread_locals(const void* word) noexcept;

// What was noted, for a copy of this library, which ld.so does not know.
[[nodiscard]] const void* thread_locals() noexcept;
void adopt_thread_locals(const void* of_other) noexcept;

class OwnThread {
 public:
  using Run = void (*)(void* argument) noexcept;

  // Starts run(argument) with all signals blocked. 0 or a negative errno.
  [[nodiscard]] long start(Run run, void* argument, size_t stack_bytes) noexcept;
  // Waits until it has ended and frees its memory. Does nothing if it was not started.
  void join() noexcept;
  // In the child of a fork, which has neither the thread nor its memory.
  void forget() noexcept { memory_ = nullptr; }

 private:
  void free_memory() noexcept;

  uint8_t* memory_ = nullptr;
  size_t bytes_ = 0;
  std::atomic<uint32_t>* alive_ = nullptr;  // cleared by the kernel when the thread has left its memory
};

}  // namespace base
