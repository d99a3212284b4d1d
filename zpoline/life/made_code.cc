// Which memory may hold system calls that the scanner cannot prove, and when its calls begin to trap.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. A JIT's code is in no file and has no function bounds; it may be rewritten at any moment, so nothing may be written into
// it. Its system calls can only be caught by Syscall User Dispatch (trap.cc), and a thread that is armed pays for it: 7 ns for each
// kernel call, and a signal for each one that does not come from the free range.
//
// How. Memory that becomes executable is one of these:
//   - mapped by ld.so and not writable: objects, which the rewriter scans;
//   - writable, or shared: what it holds can change without a system call. Its calls trap from now on;
//   - read-only and private: what it holds now is what it will hold until an mprotect that is seen here. It is searched for system
//     calls at any offset, and traps only if there is one. V8, LuaJIT and PCRE2 make all their calls through libc: nothing is found. A
//     program that protects its code again and again would be searched again and again; so there is a budget, and when it is used up the
//     rest traps unsearched;
//   - new, private, anonymous and read-only: zeros;
//   - an object that the rewriter could not write (PR_SET_MDWE). Its calls trap.
// The free range ends at the code nearest to libzpstack.so, so small memory in a hole that ld.so left between that and libc would make all
// of libc trap. Where the program leaves the place to the kernel, such memory is moved below the libraries before the program hears of it.
// Memory that becomes executable only later has its address already and stays.
// Whether memory is shared is known from mmap only, so the bounds of all shared mappings are kept: mprotect inside them counts as shared.
//
// Rejected: PR_SYS_DISPATCH_INCLUSIVE_ON (Linux 6.17), which names the range that traps. One range for code in several places is as
// coarse as its complement, which every kernel since 5.11 has, and costs the same (107.0 and 107.7 ns for a call of 100.7).
//
// Known limits: an executable stack or READ_IMPLIES_EXEC (personality) from the start, System V shared memory, and code that another
// process writes are not seen. A vfork child's own JIT is not.
#include "zpoline/life/made_code.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include <csignal>

#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/engine.h"
#include "zpoline/sites/maps.h"
#include "zpoline/life/trap.h"

namespace zpoline {
namespace {

bool arming = true;  // changes once
uint64_t search_budget_bytes = 16u << 20;  // 8 ms
uint64_t shared_begin = UINT64_MAX;
uint64_t shared_end = 0;

// Bit i of the result is set in byte i's highest bit if byte i of `word` is 0; higher ones may be set falsely.
uint64_t zero_bytes(uint64_t word) noexcept { return (word - 0x0101010101010101) & ~word & 0x8080808080808080; }

[[nodiscard]] bool is_call(uint8_t first, uint8_t second) noexcept {
  return (first == 0x0f && (second == 0x05 || second == 0x34)) || (first == 0xcd && second == 0x80);
}

// `bytes` is a multiple of 8; one more byte can be read.
bool has_call(const uint8_t* code, size_t bytes) noexcept {
  for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    __builtin_memcpy(&word, code + at, sizeof word);
    if ((zero_bytes(word ^ 0x0f0f0f0f0f0f0f0f) | zero_bytes(word ^ 0xcdcdcdcdcdcdcdcd)) == 0) continue;
    for (size_t i = at; i < at + sizeof word; i++) {
      if (is_call(code[i], code[i + 1])) return true;
    }
  }
  return false;
}

// In a page beyond the end of its file a read is SIGBUS, which copy_in() survives if the thread does not block it; else the kernel reads.
class Reader {
 public:
  Reader() noexcept {
    uint64_t mask = 0;
    (void)base::kernel_call(SYS_rt_sigprocmask, SIG_BLOCK, 0, base::as_arg(&mask), sizeof mask);
    by_kernel_ = (mask & uint64_t{1} << (SIGBUS - 1)) != 0;
  }
  [[nodiscard]] bool read(void* out, uint64_t address, size_t bytes) const noexcept {
    if (!by_kernel_) return copy_in(out, address, bytes);
    const iovec to{out, bytes};
    const iovec from{reinterpret_cast<void*>(address), bytes};
    const long process = base::kernel_call(SYS_getpid);
    return base::kernel_call(SYS_process_vm_readv, process, base::as_arg(&to), 1, base::as_arg(&from), 1, 0) == static_cast<long>(bytes);
  }

 private:
  bool by_kernel_;
};

// True if the memory holds a system call at any offset, or is too much to search, or cannot be read. Pages are whole.
bool may_call(uint64_t begin, uint64_t end) noexcept {
  uint64_t left = __atomic_load_n(&search_budget_bytes, __ATOMIC_RELAXED);
  do {
    if (end - begin > left) return true;
  } while (!__atomic_compare_exchange_n(&search_budget_bytes, &left, left - (end - begin), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  constexpr size_t kPiece = 1024;
  alignas(8) uint8_t piece[8 + kPiece + 8] = {};
  const Reader reader;
  if (!reader.read(piece + 7, begin - 1, 1)) piece[7] = 0;  // its last byte may be the first of a pair
  for (uint64_t at = begin; at < end; at += kPiece) {
    if (!reader.read(piece + 8, at, kPiece)) return true;
    if (has_call(piece, 8 + kPiece)) return true;
    piece[7] = piece[kPiece + 7];
  }
  uint8_t next = 0;
  return reader.read(&next, end, 1) && is_call(piece[7], next);
}

uint64_t whole_pages(uint64_t bytes) noexcept { return (bytes + 4095) & ~uint64_t{4095}; }

[[nodiscard]] bool is_known(uint64_t begin, uint64_t end) noexcept {
  const ThreadState& thread = this_thread();
  return !__atomic_load_n(&arming, __ATOMIC_RELAXED) || begin == end || is_dispatched(begin, end) || thread.words.vfork_child != 0;
}

void remember_shared(uint64_t begin, uint64_t end) noexcept {
  uint64_t low = __atomic_load_n(&shared_begin, __ATOMIC_RELAXED);
  while (begin < low && !__atomic_compare_exchange_n(&shared_begin, &low, begin, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  uint64_t high = __atomic_load_n(&shared_end, __ATOMIC_RELAXED);
  while (end > high && !__atomic_compare_exchange_n(&shared_end, &high, end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

[[nodiscard]] bool may_be_shared(uint64_t begin, uint64_t end) noexcept { return end > shared_begin && begin < shared_end; }

}  // namespace

void leave_made_code_to_kernel() noexcept { arming = false; }

void stop_arming() noexcept {
  if (this_thread().words.vfork_child != 0) return;
  __atomic_store_n(&arming, false, __ATOMIC_RELAXED);
  stop_dispatching_others();
}

int64_t beside_libraries(const zps_call& call, int64_t result) noexcept {
  constexpr int64_t kMade = PROT_WRITE | PROT_EXEC;
  constexpr int64_t kOwn = MAP_PRIVATE | MAP_ANONYMOUS;
  if (call.arg[0] != 0 || (call.arg[2] & kMade) != kMade || (call.arg[3] & ~int64_t{MAP_NORESERVE}) != kOwn) return result;
  const uint64_t begin = static_cast<uint64_t>(result);
  const uint64_t bytes = whole_pages(static_cast<uint64_t>(call.arg[1]));
  if (is_known(begin, begin + bytes) || !cuts_off_libc(begin, begin + bytes)) return result;
  // The kernel says where there is room for more than such a hole holds, and keeps it free for the move.
  constexpr uint64_t kWidestHole = 4u << 20;
  const auto room_bytes = static_cast<long>(kWidestHole + bytes);
  const long room = base::kernel_call(SYS_mmap, 0, room_bytes, PROT_NONE, kOwn | MAP_NORESERVE, -1, 0);
  if (room < 0 && room > -4096) return result;
  const long place = room + static_cast<long>(kWidestHole);
  const auto moved_bytes = static_cast<long>(bytes);
  long moved = -1;
  if (!cuts_off_libc(static_cast<uint64_t>(place), static_cast<uint64_t>(place) + bytes))
    moved = base::kernel_call(SYS_mremap, result, moved_bytes, moved_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
  (void)base::kernel_call(SYS_munmap, room, moved == place ? static_cast<long>(kWidestHole) : room_bytes);
  return moved == place ? place : result;
}

void after_mmap(const zps_call& call, int64_t result) noexcept {
  const uint64_t begin = static_cast<uint64_t>(result);
  const uint64_t end = begin + whole_pages(static_cast<uint64_t>(call.arg[1]));
  const bool shared = call.arg[3] & MAP_SHARED;  // also a bit of MAP_SHARED_VALIDATE
  if (shared) remember_shared(begin, end);
  if (!(call.arg[2] & PROT_EXEC) || is_known(begin, end)) return;
  const bool changes = (call.arg[2] & PROT_WRITE) || shared;
  if (!changes && ((call.arg[3] & MAP_ANONYMOUS) || is_in_loader(call.return_address))) return;
  if (changes || may_call(begin, end)) dispatch_also(begin, end);
}

void after_mprotect(const zps_call& call) noexcept {
  const uint64_t begin = static_cast<uint64_t>(call.arg[0]);
  const uint64_t end = begin + whole_pages(static_cast<uint64_t>(call.arg[1]));
  if (!(call.arg[2] & PROT_EXEC) || is_known(begin, end)) return;
  const bool writable = call.arg[2] & PROT_WRITE;
  if (!writable && is_in_loader(call.return_address)) return;  // text after its relocation
  if (writable || may_be_shared(begin, end) || may_call(begin, end)) dispatch_also(begin, end);
}

bool after_failed_rewrite(uint64_t begin, uint64_t end) noexcept {
  return is_known(begin, end) ? is_dispatching() && is_dispatched(begin, end) : dispatch_also(begin, end);
}

void after_mremap(const zps_call& call, int64_t result) noexcept {
  const uint64_t old_begin = static_cast<uint64_t>(call.arg[0]);
  const uint64_t old_end = old_begin + whole_pages(static_cast<uint64_t>(call.arg[1]));
  const uint64_t begin = static_cast<uint64_t>(result);
  const uint64_t end = begin + whole_pages(static_cast<uint64_t>(call.arg[2]));
  if (may_be_shared(old_begin, old_end + 1)) remember_shared(begin, end);
  if (is_dispatching() && is_dispatched(old_begin, old_end + 1) && !is_known(begin, end)) dispatch_also(begin, end);
}

}  // namespace zpoline
