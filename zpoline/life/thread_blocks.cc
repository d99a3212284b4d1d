// Asks ld.so for thread-local variables, and keeps blocks whose threads are ending until they are gone.
// SPDX-License-Identifier: BSD-3-Clause
//
// A static program makes threads by clone(), with memory of its own at fs. The engine, its hook and their libcs need theirs: a block as
// pthread_create() gives to a thread. ld.so makes it (_dl_allocate_tls(), which libc calls as well), with the variables of both link
// namespaces. It allocates with the malloc() of the namespace in which nothing but the engine lives here. That one would believe that the
// break is its own, which is the program's now: it has to map memory instead.
//
// Rejected: memory laid out by ourselves, as for threads of the hook (base/own_thread.h): the variables of two namespaces are needed, and
// only ld.so sees both.
#include "zpoline/life/thread_blocks.h"

#include <dlfcn.h>
#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/kernel_lock.h"
#include "zpoline/life/thread_pointer.h"

namespace zpoline {
namespace {

// As in base/own_thread.cc.
struct ControlBlock {
  void* self;
  void* dtv;
  void* thread;
  uint64_t unused[2];
  uint64_t stack_guard;
  uint64_t pointer_guard;
  uint64_t program_fs;
  uint64_t unused_too[2];
  uint64_t stack_begin, stack_bytes;  // what is to be unmapped when nothing of the thread runs on it any more
};
static_assert(offsetof(ControlBlock, program_fs) == ZPS_PROGRAM_FS);

// Ending threads, beyond which memory is lost.
constexpr size_t kMost = 4096;
struct Ending {
  ControlBlock* block;
  uint32_t thread;
};
Ending ending[kMost];
size_t ending_count = 0;
std::atomic<uint32_t> lock{0};
alignas(KernelLock) char held_by_fork[sizeof(KernelLock)];

void* (*allocate)(void*) = nullptr;
void (*deallocate)(void*, bool) = nullptr;

ControlBlock* at(uint64_t block) noexcept { return reinterpret_cast<ControlBlock*>(block); }

bool is_gone(uint32_t thread) noexcept {
  return base::kernel_call(SYS_tgkill, base::kernel_call(SYS_getpid), thread, 0) == -ESRCH;
}

void free_what_is_left() noexcept {
  for (size_t i = 0; i < ending_count;) {
    if (!is_gone(ending[i].thread)) {
      i++;
      continue;
    }
    deallocate(ending[i].block, true);
    ending[i] = ending[--ending_count];
  }
}

// For a scope: what the first libc does for the engine is not dispatched, as signals are blocked and a trap would be a kill; and its calls,
// which come from fs as it is, leave no trace where the program's is kept.
class Undispatched {
 public:
  Undispatched() noexcept : before_(this_thread().words.selector), fs_(program_pointer()) { this_thread().words.selector = 0; }
  ~Undispatched() {
    this_thread().words.selector = before_;
    set_program_pointer(fs_);
  }
  Undispatched(const Undispatched&) = delete;
  Undispatched& operator=(const Undispatched&) = delete;

 private:
  uint8_t before_;
  uint64_t fs_;
};

[[gnu::always_inline]] inline bool runs_in(uint64_t begin, uint64_t end) noexcept {
  const auto here = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  return here >= begin && here < end;
}

}  // namespace

bool prepare_thread_blocks() noexcept {
  (void)mallopt(M_MMAP_THRESHOLD, 0);
  (void)mallopt(M_TRIM_THRESHOLD, -1);
  allocate = reinterpret_cast<void* (*)(void*)>(dlsym(RTLD_DEFAULT, "_dl_allocate_tls"));
  deallocate = reinterpret_cast<void (*)(void*, bool)>(dlsym(RTLD_DEFAULT, "_dl_deallocate_tls"));
  return allocate != nullptr && deallocate != nullptr;
}

uint64_t make_thread_block(uint64_t program_fs) noexcept {
  const KernelLock locked(lock);
  const Undispatched calls;
  free_what_is_left();
  auto* block = static_cast<ControlBlock*>(allocate(nullptr));
  if (block == nullptr) return 0;
  const ControlBlock* own = at(engine_pointer());
  block->self = block->thread = block;
  block->stack_guard = own->stack_guard;
  block->pointer_guard = own->pointer_guard;
  block->program_fs = program_fs;
  block->stack_begin = block->stack_bytes = 0;
  return reinterpret_cast<uint64_t>(block);
}

void free_thread_block(uint64_t block) noexcept {
  const KernelLock locked(lock);
  const Undispatched calls;
  deallocate(at(block), true);
}

bool unmap_at_the_end(uint64_t begin, uint64_t end) noexcept {
  constexpr uint64_t kPageMask = 4095, kEnd = uint64_t{1} << 47;
  if (!static_program || (begin & kPageMask) != 0 || end >= kEnd || !runs_in(begin, end)) return false;
  at(engine_pointer())->stack_begin = begin;
  at(engine_pointer())->stack_bytes = end - begin;
  return true;
}

void leave_thread_block() noexcept {
  ControlBlock& own = *at(engine_pointer());
  if (own.stack_bytes != 0 && !runs_in(own.stack_begin, own.stack_begin + own.stack_bytes)) {
    (void)base::kernel_call(SYS_munmap, static_cast<long>(own.stack_begin), static_cast<long>(own.stack_bytes));
    own.stack_bytes = 0;
  }
  const KernelLock locked(lock);
  const Undispatched calls;
  if (ending_count == kMost) free_what_is_left();
  if (ending_count == kMost) return;
  ending[ending_count++] = {at(engine_pointer()), static_cast<uint32_t>(base::kernel_call(SYS_gettid))};
}

void end_static_thread(int64_t status) noexcept {
  const ControlBlock& own = *at(engine_pointer());
  if (own.stack_bytes == 0) return;
  register int64_t kept asm("r12") = status;
  asm volatile(
      "syscall\n"
      "mov %[kept], %%rdi\n"
      "mov %[exit], %%eax\n"
      "syscall\n"
      "hlt\n" ::"a"(SYS_munmap),
      "D"(own.stack_begin), "S"(own.stack_bytes), [kept] "r"(kept), [exit] "i"(SYS_exit)
      : "memory", "rcx", "r11");
}

void hold_thread_blocks() noexcept { new (held_by_fork) KernelLock(lock); }

void let_thread_blocks_go() noexcept { reinterpret_cast<KernelLock*>(held_by_fork)->~KernelLock(); }

void reset_thread_blocks_lock() noexcept {
  if (lock != 0) lock = 0;
}

}  // namespace zpoline
