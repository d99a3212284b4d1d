// Waiting for a stack: look, spin a little, then sleep in the kernel until something may have changed.
// SPDX-License-Identifier: BSD-3-Clause
//
// Everyone who waits drives the wire: there is no thread between a request and its reply. A wait
//   1 polls the wire and checks its condition, for spin_us at most, and gives its processor away a few times (spin_judge.h: not where that
//     did not pay lately, and not on one CPU);
//   2 arms the wire, polls and checks once more, marks its waiter as sleeping, leaves the lock;
//   3 sleeps in one ppoll on the wire, its own wake-up eventfd and the program's kernel descriptors, until the deadline or the next timer;
//   4 takes the lock, cleans up, and starts again.
// Another thread or process that drives the wire and makes something ready tells the observers of step 2; a sleeping waiter's eventfd is
// written after the lock is free. At most kWireWatchers sleepers watch the wire itself, so that a frame does not wake a thousand processes:
// one, and one more, since the first may be stopped; when the last of them leaves, another sleeper is woken to take the place.
// (That no frame is slept through is checked by all interleavings of a model: tests/shim/wake_model_test.cc.)
//
// Where the wire has bells (netstack/wake_bells.h) and several threads wait, each sleeps on its own as well, which rings for the flows that
// are at home with it; the common bell then is what the watchers watch in place of the wire.
//
// Signals: the program's handlers run in step 3 only (engine->sleep), before, during or after the kernel call. Whatever that returned, a
// handler that ran ends the wait, as the kernel's own waits end at signal_pending(): with the condition's result if it was woken for that,
// else with EINTR or, where Linux restarts the call, with kRestart. The call is then made again from the start, as Linux does it: the
// handler may have closed the descriptor, or used the thread's waiter and its buffer for waits of its own. Nothing else survives a handler,
// so none of it needs to be kept. If a handler leaves by siglongjmp nothing is held either: lists and counts hang on the waiter in shared
// memory and are undone by the thread's next wait.
//
// Known limits: a thread that never waits again after such a jump keeps its file alive until it ends.
#pragma once

#include <poll.h>

#include <cstdint>

#include "netstack/stack.h"
#include "shim/family/waiter.h"

namespace shim {

inline constexpr uint32_t kWireWatchers = 2;
inline constexpr int kOwnFds = 3;  // what a wait may sleep on of its own: the wire, a bell, an eventfd
inline constexpr uint64_t kForever = UINT64_MAX;
// A call's result, never the program's: dispatch makes the call again (Linux: ERESTARTSYS).
inline constexpr long kRestart = -512;

// What handlers did since a call began. One for the whole call, of however many waits it is made.
class Interruption {
 public:
  Interruption() noexcept;
  [[nodiscard]] bool came() const noexcept;
  // Whether the call is made again: the first handler decides.
  [[nodiscard]] bool restarts() const noexcept;

 private:
  uint32_t first_;
};

// What is waited for.
class Condition {
 public:
  // With the lock held: -EAGAIN to go on waiting, anything else is the wait's result.
  [[nodiscard]] virtual long check() noexcept = 0;
  // With the lock held, before a sleep: watch() every pollable that check() looks at. False if one could not be watched.
  [[nodiscard]] virtual bool watch_all(Waiter* waiter) noexcept = 0;
  // Without the lock: looks at the kernel's side, if there is one. -EAGAIN to go on.
  [[nodiscard]] virtual long check_kernel() noexcept { return -EAGAIN; }
  [[nodiscard]] virtual bool has_kernel_side() const noexcept { return false; }
  // Something was moved already: a signal ends the wait, whatever its handler's SA_RESTART.
  [[nodiscard]] virtual bool has_moved() const noexcept { return false; }

 protected:
  ~Condition() = default;
};

struct WaitOptions {
  uint64_t deadline_ns = kForever;  // base::monotonic_ns(); 0: do not wait
  bool restartable = false;         // kRestart, not EINTR, after a handler with SA_RESTART
  Interruption interruption;        // since the call began
  bool spin = true;
  bool kernel_asked = false;  // the caller has looked at the kernel's side just now
  const void* signal_mask = nullptr;  // the program's, for the time of the sleep
  long signal_mask_bytes = 0;
  // The program's kernel descriptors to sleep on; room for kOwnFds more behind them.
  pollfd* kernel_fds = nullptr;
  int kernel_fd_count = 0;
};

// Between begin_wait() (waiter.h), which the caller has called with the lock held when it found its file, and its end, which is here.
// The condition's result, -EAGAIN when the deadline passed, -EINTR or kRestart.
[[nodiscard]] long wait_for(Condition& condition, const WaitOptions& options) noexcept;
// The same for a call that goes on with its file: end_wait() is the caller's. After -EINTR and kRestart the file may be gone.
[[nodiscard]] long wait_and_keep(Condition& condition, const WaitOptions& options) noexcept;

// `relative_ns` from now as a deadline; 0 stays 0.
[[nodiscard]] uint64_t deadline_after(uint64_t relative_ns) noexcept;

// Counts the machine's CPUs; without a second one nothing spins. Called when a stack is made.
void measure_spinning() noexcept;

// A buffer of kScratchBytes for the calling thread alone, or nullptr. Freed when the thread ends. A handler that ran in a wait may have
// used it.
inline constexpr size_t kScratchBytes = 65536;
[[nodiscard]] void* thread_scratch() noexcept;
void release_thread_scratch() noexcept;

}  // namespace shim
