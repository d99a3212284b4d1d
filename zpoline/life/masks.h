// Signals that must stay deliverable, and the program's belief that it blocks them.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <csignal>
#include <cstdint>

#include "zpoline/engine.h"

namespace zpoline {

constexpr uint64_t signal_bit(int number) noexcept { return uint64_t{1} << (number - 1); }
// The engine's own: blocked, they would be a kill.
inline constexpr uint64_t kNeverBlocked = signal_bit(SIGSEGV) | signal_bit(SIGSYS);
// What a thread's own instructions raise. Blocked, a fault that the hook survives would be a kill: inside a hook they are held, not
// blocked.
inline constexpr int kHeldSignals[] = {SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
inline constexpr uint64_t kFaults =
    kNeverBlocked | signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGBUS) | signal_bit(SIGFPE);

void change_kernel_mask(int how, uint64_t set) noexcept;

// At start: unblocks them if the process inherited them blocked.
void take_over_mask() noexcept;
// Before an exec the kernel's mask becomes the program's; after one that failed ours again.
void give_mask_back() noexcept;

// rt_sigprocmask as the program sees it. 0 or a negative errno.
[[nodiscard]] int64_t program_sigprocmask(zps_call* call) noexcept;
// Calls that wait with a mask of their own: makes it without the signals above, or lets the call pass if its mask has none of them.
[[nodiscard]] int64_t program_masked_wait(zps_call* call) noexcept;
// engine->sleep: the same for a hook's wait.
int64_t sleep_unmasked(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) noexcept;

// Sends the signal to this thread, with the story that it came with.
void send_again(int number, const siginfo_t* info) noexcept;
// One of kHeldSignals came that the program believes blocked, or inside a hook: kept until it is not, or the hook has ended.
void hold(ThreadState& thread, int number, const siginfo_t* info) noexcept;
// The program's belief changed.
void believe(ThreadState& thread, uint64_t hidden_mask) noexcept;

}  // namespace zpoline
