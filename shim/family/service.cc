// The service thread and the signs of life.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/service.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <iterator>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/lock_owner.h"
#include "base/log.h"
#include "base/own_thread.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/identity.h"
#include "shim/family/join.h"
#include "shim/family/keeper.h"
#include "shim/family/process.h"
#include "shim/family/processors.h"
#include "shim/family/wait.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kQuietNs = 10'000'000;       // nobody polled for so long: the service does
constexpr uint64_t kIdleNs = 1'000'000'000;     // nobody but the service polled for so long: look less often
constexpr long kBusyTickMs = 10;
constexpr long kIdleTickMs = 100;
constexpr int kStopSpins = 2000;
constexpr long kStopNapNs = 50'000;
constexpr uint64_t kReapEveryNs = 100'000'000;
constexpr uint64_t kLookEveryNs = 50'000'000;   // what a thread in the row sleeps, if it is alone there
constexpr uint64_t kLateNs = 300'000'000;       // whoever is on duty has had three turns in this time
constexpr uint64_t kTellEveryNs = 500'000'000;
constexpr uint64_t kForkingAtMostNs = 2'000'000'000;
constexpr uint64_t kYouthNs = 100'000'000;      // of a forked child, which leaves the duty to the others
constexpr size_t kStackBytes = 256 * 1024;

std::atomic<bool> running{false};
std::atomic<bool> missing{false};
std::atomic<bool> busy{false};
std::atomic<uint64_t> young_until_ns{0};
base::OwnThread service;
Identity service_identity{};
std::atomic<uint32_t> called_off{0};   // the thread is to end
std::atomic<bool> changing{false};     // somebody makes the thread, or exchanges it

long lock_byte(int command, short type, long byte, flock* answer = nullptr) noexcept {
  flock request{};
  request.l_type = type;
  request.l_whence = SEEK_SET;
  request.l_start = byte;
  request.l_len = 1;
  const long result = kernel_call(SYS_fcntl, family->life_fd, command, as_arg(&request));
  if (answer != nullptr) *answer = request;
  return result;
}

long slot_byte(const ProcessSlot* slot) noexcept { return 1 + (slot - family->slots); }

bool is_dead(const ProcessSlot& slot, uint64_t now) noexcept {
  const SlotState state = slot.state.load(std::memory_order_acquire);
  if (state == SlotState::free || &slot == my_slot) return false;
  flock answer;
  if (lock_byte(F_GETLK, F_WRLCK, slot_byte(&slot), &answer) != 0 || answer.l_type != F_UNLCK) return false;
  if (state != SlotState::forking) return true;
  // Forked and not yet heard of: it takes its byte as the first thing it does. A fork may take seconds.
  const int32_t pid = slot.pid;
  if (pid > 0) return base::owner_is_gone(static_cast<uint32_t>(pid));
  return base::owner_is_gone(static_cast<uint32_t>(-pid)) && now - slot.since_ns > kForkingAtMostNs;
}

// Of the process that owns a lock, which is dead only if its slot still is its own: on its way out it gives its byte back, and owns what it
// needs without a tag.
bool process_is_gone(uint32_t tag) noexcept {
  if (tag > all_slots().size() || family->life_fd < 0) return false;
  const ProcessSlot& slot = family->slots[tag - 1];
  if (slot.state.load(std::memory_order_acquire) != SlotState::live) return false;
  flock answer;
  const bool free = lock_byte(F_GETLK, F_WRLCK, slot_byte(&slot), &answer) == 0 && answer.l_type == F_UNLCK;
  return free && slot.state.load(std::memory_order_acquire) == SlotState::live;
}

void reap(uint64_t now) noexcept {
  for (ProcessSlot& slot : all_slots()) {
    if (!is_dead(slot, now)) continue;
    Guard guard;
    if (!is_dead(slot, now)) continue;  // left in the meantime, and the slot may be somebody else's
    SlotState state = slot.state.load(std::memory_order_relaxed);
    if (state == SlotState::forking && !slot.state.compare_exchange_strong(state, SlotState::leaving)) continue;  // heard of after all
    family->waiters.for_each([&](Waiter* waiter) {
      if (waiter->process == &slot) free_waiter(waiter);
    });
    slot_release(&slot);
    guard.stack()->flush();
  }
  Guard guard;
  repeat_wakes();
}

// How long to sleep, in ms. While the program polls the lock is left to it: a look at the clock needs none. A lock with a favourite is
// worth some ten microseconds to its program, and more where the favourite is inside and waits for this very CPU.
long look_after_stack(uint64_t now, uint64_t* own_poll_ns, uint64_t* others_poll_ns) noexcept {
  const uint64_t last = the_stack()->last_poll_ns();
  if (last > *own_poll_ns) *others_poll_ns = last;
  if (now > last && now - last > kQuietNs) {
    Guard guard;
    netstack::Stack* stack = guard.stack();
    if (stack->poll(now) > 0 && family->wire_watchers > 0) replace_wire_watchers();
    *own_poll_ns = stack->last_poll_ns();
  }
  const bool idle = family->wire_watchers > 0 && now > *others_poll_ns && now - *others_poll_ns > kIdleNs;
  return idle ? kIdleTickMs : kBusyTickMs;
}

// A process that is alone, from the start or again, may have a favourite of the lock.
void allow_favour_if_alone() noexcept {
  if (family->processes.load(std::memory_order_relaxed) != 1 || the_stack()->lock.favour_allowed() || !base::BiasedLock::prepare_favour())
    return;
  Guard guard;
  if (family->processes.load(std::memory_order_relaxed) == 1) guard.stack()->lock.allow_favour();
}

// At debug level: what the stack's pools hold, when it has changed. A server that is done with its clients is back where it began.
void tell_levels(uint64_t now) noexcept {
  if (base::log_level() != base::LogLevel::debug || now - family->told_ns < kTellEveryNs) return;
  family->told_ns = now;
  netstack::PoolLevels levels;
  FamilyLevels own;
  {
    Guard guard;
    levels = guard.stack()->levels();
    own = family_levels();
  }
  if (own != family->told_family) {
    family->told_family = own;
    base::log(base::LogLevel::debug,
              "family: %u processes, %u chunks, %u sleepers, %u watched, %u sockets, %u datagram sockets, %u sets, %u registrations",
              own.processes, own.chunks, own.waiters, own.nodes, own.sockets, own.datagrams, own.epolls, own.items);
  }
  if (levels == family->told) return;
  family->told = levels;
  base::log(base::LogLevel::debug, "pools: %d streams, %d listeners, %d endpoints, %d connections, %zu bytes, %d free frames",
            levels.streams, levels.listeners, levels.endpoints, levels.pcbs, levels.arena_bytes, levels.free_frames);
}

int ask_for_control_fd() noexcept {
  Guard guard;
  return guard.stack()->wire().control_fd();
}

void run_control_if_due(const pollfd& control) noexcept {
  if (control.fd < 0 || control.revents == 0) return;
  Guard guard;
  guard.stack()->run_control();
}

void park_if_exiting() noexcept {
  if (!exiting.load()) return;
  busy.store(false);
  park_while_exiting();
}

// Between two turns; being called off ends it, but where a descriptor is watched as well (a memif's) only the next tick.
void rest(pollfd* control, uint64_t ns) noexcept {
  const timespec time{static_cast<time_t>(ns / 1'000'000'000u), static_cast<long>(ns % 1'000'000'000u)};
  if (control != nullptr && control->fd >= 0) {
    (void)kernel_call(SYS_ppoll, as_arg(control), 1, as_arg(&time), 0, 8);
  } else {
    (void)kernel_call(SYS_futex, as_arg(&called_off), FUTEX_WAIT_PRIVATE, 0, as_arg(&time));
  }
}

bool is_on_duty() noexcept { return family->on_duty.load(std::memory_order_relaxed) == base::process_tag() && called_off.load() == 0; }

// Until another has taken it up.
void be_on_duty() noexcept {
  uint64_t own_poll_ns = 0;
  uint64_t others_poll_ns = 0;
  uint64_t reaped_ns = 0;
  pollfd control{-1, POLLIN, 0};
  for (bool first = true; is_on_duty(); first = false) {
    busy.store(true);
    park_if_exiting();
    family->service_ns.store(base::monotonic_ns(), std::memory_order_relaxed);
    if (first) control.fd = ask_for_control_fd();
    run_control_if_due(control);
    allow_favour_if_alone();
    const uint64_t now = base::monotonic_ns();
    const long tick_ms = look_after_stack(now, &own_poll_ns, &others_poll_ns);
    if (now - reaped_ns > kReapEveryNs) {
      if (family->processes.load(std::memory_order_relaxed) > 1) reap(now);
      sweep_flights();
      look_after_keeper();
      reaped_ns = now;
    }
    answer_door();
    tell_levels(now);
    mind_processors(now);
    if (family->wakes_due.load(std::memory_order_relaxed)) deliver_wakes();  // whoever brought them up may have died before
    control.revents = 0;
    busy.store(false);
    rest(&control, static_cast<uint64_t>(tick_ms) * 1'000'000);
  }
}

// Whoever was on duty has ended, or has not been heard of for long.
bool take_duty() noexcept {
  uint32_t before = family->on_duty.load(std::memory_order_relaxed);
  const bool late = base::monotonic_ns() - family->service_ns.load(std::memory_order_relaxed) > kLateNs;
  if (lock_byte(F_SETLK, F_WRLCK, 0) != 0 && !late) return false;
  return family->on_duty.compare_exchange_strong(before, base::process_tag());
}

// All together look so often that nobody is missed for long, however many they are.
void sleep_in_the_row() noexcept {
  const uint64_t processes = family->processes.load(std::memory_order_relaxed);
  rest(nullptr, kLookEveryNs * (processes > 2 ? processes / 2 : 1));
}

void service_main(void*) noexcept {
  Guard::may_exit = true;  // service_stop() waits for the end of a turn, so a turn that has begun goes on
  uint64_t lock_owner = 0;
  while (called_off.load() == 0) {
    if (take_duty()) {
      be_on_duty();
      (void)lock_byte(F_SETLK, F_UNLCK, 0);
    }
    sleep_in_the_row();
    park_if_exiting();
    lock_owner = the_stack()->lock.look_after_owner(lock_owner);
  }
}

// Of those who make the thread; none of them holds anything else.
class Changing {
 public:
  Changing() noexcept {
    while (changing.exchange(true)) {
      const timespec nap{0, kStopNapNs};
      (void)kernel_call(SYS_nanosleep, as_arg(&nap));
    }
  }
  ~Changing() { changing.store(false); }
  Changing(const Changing&) = delete;
  Changing& operator=(const Changing&) = delete;
};

// It has the identity of whoever makes it.
void make_service() noexcept {
  service_identity = own_identity();
  called_off.store(0);
  if (service.start(service_main, nullptr, kStackBytes) == 0) return;
  const uint32_t on_duty = family->on_duty.load(std::memory_order_relaxed);
  const bool others_do_it = on_duty != 0 && on_duty != base::process_tag();
  base::log(others_do_it ? base::LogLevel::debug : base::LogLevel::warn,
            "no service thread: timers run only while the program waits for its sockets");
}

}  // namespace

bool service_none_but_this() noexcept {
  const uint64_t now = base::monotonic_ns();
  for (const ProcessSlot& slot : all_slots()) {
    if (&slot != my_slot && slot.state.load(std::memory_order_acquire) != SlotState::free && !is_dead(slot, now)) return false;
  }
  {
    const Guard guard;
    guard.stack()->refuse_half_open();
  }
  reap(now);
  const Guard guard;
  end_flights();
  return true;
}

void service_introduce() noexcept {
  base::set_process_tag(tag_of(my_slot));
  base::set_process_check(process_is_gone);
}

bool service_prepare() noexcept {
  const long made = kernel_call(SYS_memfd_create, as_arg("zpstack-life"), MFD_CLOEXEC);
  if (made < 0) return false;
  family->life_fd = base::move_fd_high(static_cast<int>(made));
  if (family->life_fd < 0) return false;
  service_hold_slot(my_slot);
  return true;
}

void service_hold_slot(const ProcessSlot* slot) noexcept { (void)lock_byte(F_SETLK, F_WRLCK, slot_byte(slot)); }

void service_leave_slot(const ProcessSlot* slot) noexcept { (void)lock_byte(F_SETLK, F_UNLCK, slot_byte(slot)); }

void service_start() noexcept {
  if (running.exchange(true)) return;
  missing.store(false);
  const Changing change;
  make_service();
}

void service_follow() noexcept {
  if (engine->thread()->vfork_child != 0 || kernel_only() || !running.load() || exiting.load()) return;
  const Changing change;
  if (!own_identity().has_lost(service_identity)) return;
  called_off.store(1);
  (void)kernel_call(SYS_futex, as_arg(&called_off), FUTEX_WAKE_PRIVATE, 1);
  service.join();
  make_service();
}

void service_forget() noexcept {
  service.forget();
  changing.store(false);
  running.store(false);
  busy.store(false);
  young_until_ns.store(base::monotonic_ns() + kYouthNs);
  missing.store(true);
}

uint64_t service_due_ns() noexcept {
  if (!missing.load(std::memory_order_relaxed)) [[likely]] return kForever;
  const bool vacant = base::monotonic_ns() - family->service_ns.load(std::memory_order_relaxed) > kLateNs;
  return vacant ? 0 : young_until_ns.load(std::memory_order_relaxed);
}

void service_ensure() noexcept {
  if (!missing.load(std::memory_order_relaxed)) [[likely]] return;
  if (service_due_ns() <= base::monotonic_ns()) service_start();
}

void service_leave_duty() noexcept { (void)lock_byte(F_SETLK, F_UNLCK, 0); }

// The service's turn takes microseconds, unless it waits for this very CPU and this thread has a real-time priority.
void service_stop() noexcept {
  for (int i = 0; busy.load(); i++) {
    if (i < kStopSpins) {
      __builtin_ia32_pause();
      continue;
    }
    timespec nap{0, kStopNapNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&nap));
  }
}

}  // namespace shim
