// Mapping, leaving and mending a family.
#include "shim/family/family.h"

#include <sys/mman.h>

#include "base/syscall.h"

namespace shim {

Family* family = nullptr;
base::Config config;
const zps_engine* engine = nullptr;
std::atomic<bool> exiting{false};
constinit thread_local bool Guard::may_exit = false;

namespace {

using base::as_arg;
using base::kernel_call;

Family* map_shared() noexcept {
  const long address = kernel_call(SYS_mmap, 0, shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return address < 0 && address > -4096 ? nullptr : reinterpret_cast<Family*>(address);
}

void become_first_member(Family* fresh) noexcept {
  fresh->life_fd = -1;
  fresh->processes.store(1, std::memory_order_relaxed);
  ProcessSlot& slot = fresh->slots[0];
  slot.pid = static_cast<int32_t>(kernel_call(SYS_getpid));
  slot.state.store(SlotState::live, std::memory_order_relaxed);
}

}  // namespace

Family* map_family() noexcept {
  Family* fresh = map_shared();
  if (fresh != nullptr) become_first_member(fresh);
  return fresh;
}

Family* copy_family() noexcept {
  Family* fresh = map_family();
  if (fresh == nullptr) return nullptr;
  fresh->chunks.copy_from(family->chunks);
  const ProcessSlot& from = family->slots[0];
  ProcessSlot& to = fresh->slots[0];
  to.chunks = from.chunks;
  for (uint32_t i = 0; i < from.chunks; i++) to.directory[i].store(from.directory[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
  return fresh;
}

bool adopt_family(Family* copy) noexcept {
  const long moved = kernel_call(SYS_mremap, as_arg(copy), shared_bytes, shared_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, as_arg(family));
  family->slots[0].pid = static_cast<int32_t>(kernel_call(SYS_getpid));
  return moved == as_arg(family);
}

void unmap_family(Family* copy) noexcept { (void)kernel_call(SYS_munmap, as_arg(copy), shared_bytes); }

void deliver_wakes() noexcept {
  family->wakes_due.store(false, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (int word = 0; word < kWakeSlots / 64; word++) {
    if (family->wake_bits[word].load(std::memory_order_relaxed) == 0) continue;
    uint64_t bits = family->wake_bits[word].exchange(0, std::memory_order_acq_rel);
    for (; bits != 0; bits &= bits - 1) {
      const uint64_t one = 1;
      (void)kernel_call(SYS_write, family->wake_fd[word * 64 + __builtin_ctzll(bits)], as_arg(&one), sizeof one);
    }
  }
}

void park_forever() noexcept {
  while (true) (void)kernel_call(SYS_pause);
}

void Guard::take_slowly() noexcept {
  favoured_ = false;
  while (true) {
    if (exiting.load(std::memory_order_relaxed) && !may_exit) park_forever();
    stack_ = the_stack();
    lock_ = stack_ != nullptr ? &stack_->lock : &family->lock;
    if (lock_->lock() == base::BiasedLock::Taken::owner_died) recover();
    if (the_stack() == stack_) return;
    lock_->unlock();
  }
}

void Guard::recover() noexcept {
  recover_family(stack_);
  base::log(base::LogLevel::warn, "a process died inside the stack: its connections were reset, serving goes on");
}

}  // namespace shim
