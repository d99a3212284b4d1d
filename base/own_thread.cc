// Lays out the memory of a thread, fills its thread-local variables and control block, and has the kernel start it.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/own_thread.h"

#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <linux/futex.h>
#include <new>
#include <sched.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/single_threaded.h>

#include "base/syscall.h"
#include "base/thread_variables.h"

namespace base {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kControlBytes = kPage;  // struct pthread is 2304 bytes long
constexpr size_t kMostModules = 24;
constexpr size_t kDtvSlots = 64;  // with the two in front of the first module's

// What the compiler and every libc of this platform agree on, at fs:0.
struct ControlBlock {
  void* self;
  void* dtv;
  void* thread;
  uint64_t unused[2];
  uint64_t stack_guard;    // fs:0x28, -fstack-protector
  uint64_t pointer_guard;  // fs:0x30, setjmp
};

// One slot of the vector: [-1] is its length, [0] its generation, the others a block each.
struct DtvSlot {
  uint64_t value;
  void* to_free;
};

struct Module {
  size_t number;       // of its slot
  size_t below_fs;     // where its block begins
  const void* image;
  size_t image_bytes;  // the rest is zero
};

struct Layout {
  Module modules[kMostModules];
  size_t count;
  size_t below_fs;      // as far as anything needed lies
  size_t tid_offset;    // of libc's copy of the thread's id in its control block, 0: not known
  const unsigned short* classes;
  const __int32_t *lower, *upper;
  bool noted, fixed;
};
Layout layout;

// Behind the vector, at the end of a thread's memory.
struct Start {
  OwnThread::Run run;
  void* argument;
  std::atomic<uint32_t> alive;
  uint32_t tid;  // if libc's place for it is not known
};
constexpr size_t kVectorBytes = kDtvSlots * sizeof(DtvSlot) + sizeof(Start);

size_t up_to_page(size_t bytes) noexcept { return (bytes + kPage - 1) & ~(kPage - 1); }

void note_below(size_t bytes) noexcept {
  if (bytes > layout.below_fs) layout.below_fs = bytes;
}

bool promises_static_tls(const dl_phdr_info& info, const ElfW(Phdr)& dynamic) noexcept {
  for (const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(info.dlpi_addr + dynamic.p_vaddr); entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_FLAGS) return (entry->d_un.d_val & DF_STATIC_TLS) != 0;
  }
  return false;
}

// This thread's block of a module, or nullptr if that is not at the same distance from fs:0 in every thread. The vector need not have it
// yet. Who links us may have a __tls_get_addr() of its own, which knows its own variables only: ld.so's is asked.
const uint8_t* find_block(const dl_phdr_info& info) noexcept {
  if (info.dlpi_tls_data != nullptr) return static_cast<const uint8_t*>(info.dlpi_tls_data);
  const auto find = reinterpret_cast<const uint8_t* (*)(const size_t*)>(dlsym(RTLD_DEFAULT, "__tls_get_addr"));
  for (int i = 0; i < info.dlpi_phnum && find != nullptr; i++) {
    if (info.dlpi_phdr[i].p_type != PT_DYNAMIC || !promises_static_tls(info, info.dlpi_phdr[i])) continue;
    const size_t first_of_module[2] = {info.dlpi_tls_modid, 0};
    return find(first_of_module);
  }
  return nullptr;
}

bool is_this_library(const dl_phdr_info& info) noexcept {
  const auto here = reinterpret_cast<uintptr_t>(&layout);
  for (int i = 0; i < info.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = info.dlpi_phdr[i];
    if (segment.p_type == PT_LOAD && here - info.dlpi_addr - segment.p_vaddr < segment.p_memsz) return true;
  }
  return false;
}

int note_module(dl_phdr_info* info, size_t, void*) noexcept {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_TLS || segment.p_memsz == 0) continue;
    const uint8_t* block = find_block(*info);
    if (block == nullptr && is_this_library(*info)) continue;  // its variables are not ld.so's business: part of `word`
    if (block == nullptr || block > thread_pointer() || layout.count == kMostModules || info->dlpi_tls_modid + 1 >= kDtvSlots) {
      layout.fixed = false;
      return 1;
    }
    const size_t below_fs = static_cast<size_t>(thread_pointer() - block);
    layout.modules[layout.count++] = {info->dlpi_tls_modid, below_fs, reinterpret_cast<const void*>(info->dlpi_addr + segment.p_vaddr),
                                      segment.p_filesz};
    note_below(below_fs);
  }
  return 0;
}

// libc compares its copy of the id in recursive mutexes. Where it lies is told to debuggers: bits, count, offset in bytes.
size_t find_tid_offset() noexcept {
  const auto* field = static_cast<const uint32_t*>(dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid"));
  return field != nullptr && field[0] == 32 && field[2] + sizeof(uint32_t) <= kControlBytes ? field[2] : 0;
}

void fill_control_block(uint8_t* block, DtvSlot* dtv) noexcept {
  ControlBlock mine;
  memcpy(&mine, thread_pointer(), sizeof mine);
  *reinterpret_cast<ControlBlock*>(block) = {block, &dtv[1], block, {}, mine.stack_guard, mine.pointer_guard};
  // No restartable sequences: libc then asks the kernel for the processor's number.
  const int unregistered = RSEQ_CPU_ID_UNINITIALIZED;
  memcpy(block + __rseq_offset + offsetof(struct rseq, cpu_id), &unregistered, sizeof unregistered);
}

// A generation that no dlopen() reaches: nobody may replace or free what the vector holds.
void fill_variables(uint8_t* block, DtvSlot* dtv) noexcept {
  dtv[0].value = kDtvSlots - 2;
  for (size_t i = 1; i < kDtvSlots; i++) dtv[i].value = ~uint64_t{0};
  for (size_t i = 0; i < layout.count; i++) {
    const Module& module = layout.modules[i];
    memcpy(block - module.below_fs, module.image, module.image_bytes);
    dtv[module.number + 1].value = reinterpret_cast<uint64_t>(block - module.below_fs);
  }
}

[[noreturn]] int begin(void* given) noexcept {
  auto* start = static_cast<Start*>(given);
  // isdigit() and its kin look through pointers of the thread's, which libc sets where it makes one.
  *__ctype_b_loc() = layout.classes;
  *__ctype_tolower_loc() = layout.lower;
  *__ctype_toupper_loc() = layout.upper;
  start->run(start->argument);
  (void)kernel_call(SYS_exit, 0);
  __builtin_unreachable();
}

// With every signal blocked from its first instruction on. 0 or a negative errno.
long clone_blocked(Start* self, uint8_t* stack_end, uint8_t* block) noexcept {
  constexpr int kFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                         CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  void* const tid = layout.tid_offset != 0 ? static_cast<void*>(block + layout.tid_offset) : &self->tid;
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&all), as_arg(&before), sizeof all);
  const int made = clone(begin, stack_end, kFlags, self, tid, block, &self->alive);
  const long result = made > 0 ? 0 : -errno;
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&before), 0, sizeof before);
  return result;
}

}  // namespace

bool note_thread_locals(const void* word) noexcept {
  layout = Layout{};
  layout.fixed = true;
  layout.noted = true;
  (void)dl_iterate_phdr(note_module, nullptr);
  if (word != nullptr) note_below(static_cast<size_t>(thread_pointer() - static_cast<const uint8_t*>(word)));
  if (__rseq_offset < 0) note_below(static_cast<size_t>(-__rseq_offset));  // newer libcs have it among the variables
  layout.tid_offset = find_tid_offset();
  layout.classes = *__ctype_b_loc();
  layout.lower = *__ctype_tolower_loc();
  layout.upper = *__ctype_toupper_loc();
  return layout.fixed;
}

const void* thread_locals() noexcept { return &layout; }
void adopt_thread_locals(const void* of_other) noexcept { memcpy(&layout, of_other, sizeof layout); }

long OwnThread::start(Run run, void* argument, size_t stack_bytes) noexcept {
  if (!layout.noted && !note_thread_locals(nullptr)) return -ENOTSUP;  // a program that links us; the core has noted them
  __libc_single_threaded = false;  // nobody else tells a libc that is alone with its program
  const size_t stack_part = kPage + up_to_page(stack_bytes);
  const size_t below_fs = up_to_page(layout.below_fs);
  bytes_ = stack_part + below_fs + kControlBytes + up_to_page(kVectorBytes);
  constexpr int kLazily = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const long mapped = kernel_call(SYS_mmap, 0, static_cast<long>(bytes_), PROT_READ | PROT_WRITE, kLazily, -1, 0);
  if (mapped < 0 && mapped > -4096) return mapped;
  memory_ = reinterpret_cast<uint8_t*>(mapped);
  (void)kernel_call(SYS_mprotect, mapped, kPage, PROT_NONE);
  (void)kernel_call(SYS_madvise, mapped, static_cast<long>(bytes_), MADV_DONTFORK);
  uint8_t* const block = memory_ + stack_part + below_fs;
  auto* dtv = reinterpret_cast<DtvSlot*>(block + kControlBytes);
  fill_variables(block, dtv);
  fill_control_block(block, dtv);
  auto* self = new (dtv + kDtvSlots) Start{run, argument, 1, 0};
  alive_ = &self->alive;
  const long result = clone_blocked(self, memory_ + stack_part, block);
  if (result < 0) free_memory();
  return result;
}

void OwnThread::join() noexcept {
  if (memory_ == nullptr) return;
  while (const uint32_t alive = alive_->load(std::memory_order_acquire)) {
    (void)kernel_call(SYS_futex, as_arg(alive_), FUTEX_WAIT, alive, 0);
  }
  free_memory();
}

void OwnThread::free_memory() noexcept {
  uint8_t* const memory = memory_;
  if (memory == nullptr) return;
  memory_ = nullptr;
  (void)kernel_call(SYS_munmap, as_arg(memory), static_cast<long>(bytes_));
}

}  // namespace base
