// Thread control blocks of the engine's for the threads that a static program makes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace zpoline {

// At start, while there is one thread. False: this ld.so makes none.
[[nodiscard]] bool prepare_thread_blocks() noexcept;

// A block whose variables have their first values, for a thread that begins with `program_fs`; 0: no memory. It is what fs and gs have to
// be for the engine.
[[nodiscard]] uint64_t make_thread_block(uint64_t program_fs) noexcept;
// No thread has begun with it.
void free_thread_block(uint64_t block) noexcept;
// A thread of musl unmaps its own stack and ends by two system calls that need none; the engine needs it until then. True if [begin, end)
// is that, and will be unmapped.
[[nodiscard]] bool unmap_at_the_end(uint64_t begin, uint64_t end) noexcept;
// By the thread that has it, as its last act but for the exit itself.
void leave_thread_block() noexcept;
// And the exit of one that is still on that stack: unmaps it and ends without one. Returns if there is none.
void end_static_thread(int64_t status) noexcept;
// Around a fork: no thread of the parent is in the middle of these in the child's memory, where nobody would go on. Signals are blocked.
void hold_thread_blocks() noexcept;
void let_thread_blocks_go() noexcept;
// In a fork's child, which has none of the other threads.
void reset_thread_blocks_lock() noexcept;

}  // namespace zpoline
