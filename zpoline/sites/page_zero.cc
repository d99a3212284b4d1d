// The sled, its exits, and their two pages.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. `call *%rax` with call number n lands at address n. All of 0..511 must lead to the entry without changing a
// register, a flag or the stack (bytes below rsp belong to the program, so no push), and quickly: with one nop per number,
// read() would execute 512 of them.
//
// The sled is made of units
//         67 67 ... 67  EB 7F        jump 127 bytes ahead, with any number of (meaningless) prefixes
// A number that hits a prefix or the EB jumps. One that hits the displacement byte executes
//         7F 67                      jg +103
// with the next unit's first prefix as its displacement: whether it jumps or falls through, it lands in the sled. These
// units have different lengths, chosen so that the numbers that programs use most never sit on a displacement byte (their
// jump is not a conditional one), nor do the places that jumps lead to.
//
// Where jumps have to land on exits, units have eight bytes, 67 67 67 67 67 67 EB 67 (hit at its displacement, that is a prefix
// of the next unit), and the exits are eight bytes apart as well. There are two rows of exits: one among the
// numbers 337..423, which Linux keeps free, and one behind the sled for 424..511. Three jumps and an exit serve any number.
//
// An exit is  E9 F4 F4 F4 6C  F4 : a jump to the landing page near 0x6cf4f000, where  jmp *table(,%rax,8)  waits. Its inner bytes
// are hlt and insb, which fault in user mode: a number that hits them (there is no such call) is answered by the engine's
// SIGSEGV handler, as are all numbers over 511. Numbers that hit the first byte of an exit enter normally and find the
// kernel in the table. All else behind the sled is hlt.
//
// A call through a NULL pointer comes here with anything in rax. Small numbers find an entry, which sees that the return address is
// no site; with others the indirect jump faults, and so does what lies before and behind the table (no access).
//
// Rejected: the public sleds (nops: 6 ns and more; the faster one pushes); an indirect jump in page 0 (its address
// bytes would be executable numbers); testing the return address before the table (one taken branch more for each call).
//
// Sources: Intel SDM volume 2 (prefixes before jumps, 15-byte limit); mmap(2) and Documentation/admin-guide/sysctl/vm.rst (mmap_min_addr).
#include "zpoline/sites/page_zero.h"

#include <sys/mman.h>

#include <cstring>

#include "base/check.h"
#include "base/syscall.h"
#include "zpoline/layout.h"

namespace zpoline {
namespace {

constexpr uint8_t kPrefix = 0x67;  // address size: means nothing to a short jump
constexpr uint8_t kShortJump = 0xeb;
constexpr uint8_t kFar = 0x7f;    // hit itself: jg
constexpr uint8_t kFault = 0xf4;  // hlt
constexpr int kExitStep = 8;
constexpr int kGridBegin = 228;    // from here units have eight bytes
constexpr int kFirstOnGrid = 232;  // the first EB of those, and what its jump reaches:
constexpr int kNear = 105;         // 67 as a displacement, counted from the EB
constexpr int kInnerExit = kFirstOnGrid + kNear;
constexpr int kInnerExits = 11;
constexpr int kLastJump = 335;  // the last EB before the inner exits
constexpr int kGapEnd = kFreeNumbersEnd;
constexpr int kOuterExit = 533;
constexpr int kOuterExits = 11;
static_assert(kInnerExit == static_cast<int>(kFreeNumbersBegin) && kInnerExit + kInnerExits * kExitStep <= kGapEnd + 1);
constexpr int32_t kExitDisplacement = 0x6cf4f4f4;

// Numbers that may not sit on a conditional jump: those of the data path, then what programs call most.
constexpr uint16_t kFrequent[] = {0,   1,   2,   3,   4,   5,   7,   8,   9,   10,  11,  12,  13,  14,  16,  17,  18,  19,  20,
                                  21,  22,  23,  24,  28,  32,  33,  35,  39,  41,  42,  43,  44,  45,  46,  47,  48,  49,  50,
                                  51,  52,  54,  55,  56,  57,  59,  61,  62,  63,  72,  79,  96,  102, 186, 202, 217, 228, 230,
                                  232, 233, 234, 257, 262, 270, 271, 281, 288, 290, 291, 293, 302, 318, 332, 441};

void put_exits(uint8_t* page, int first, int count) noexcept {
  for (int i = 0; i < count; i++) {
    uint8_t* exit = page + first + i * kExitStep;
    exit[0] = 0xe9;
    memcpy(exit + 1, &kExitDisplacement, sizeof kExitDisplacement);
  }
}

// Units of any length in [0, kGridBegin). Their jumps reach the sled before the inner exits.
void put_free_units(uint8_t* page) noexcept {
  bool must_jump[kSledBytes] = {};
  for (uint16_t nr : kFrequent) must_jump[nr] = true;
  int at = 0;
  while (at < kGridBegin) {
    // The shortest unit whose displacement byte is a place nobody goes to; its jump has a prefix at least.
    int displacement_at = at + 2;
    while (displacement_at < at + 13 && must_jump[displacement_at]) displacement_at++;
    if (displacement_at >= kGridBegin) displacement_at = kGridBegin - 1;
    if (displacement_at < at + 2) break;  // too short for a unit: its bytes become prefixes of the grid's first
    page[displacement_at - 1] = kShortJump;
    const int far_target = displacement_at + 1 + kFar;
    const bool far = far_target < kInnerExit - kNear + kInnerExits * kExitStep;
    page[displacement_at] = far ? kFar : kPrefix;
    if (far) must_jump[far_target] = true;
    at = displacement_at + 1;
  }
}

// Units of eight bytes in [from, to): prefixes all, with a jump at every eighth place from `from` on.
void put_grid(uint8_t* page, int from, int to) noexcept {
  for (int i = from; i < to; i += kExitStep) page[i] = kShortJump;
}

long map_at(uint64_t address, uint64_t bytes, int protection) noexcept {
  return base::kernel_call(SYS_mmap, static_cast<long>(address), static_cast<long>(bytes), protection,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

}  // namespace

void write_sled(uint8_t* page) noexcept {
  memset(page, kPrefix, kSledBytes);
  memset(page + kSledBytes, kFault, kPageBytes - kSledBytes);
  put_free_units(page);
  put_grid(page, kFirstOnGrid, kLastJump);
  page[kLastJump] = kShortJump;  // for the prefixes in front of it
  memset(page + kInnerExit, kFault, static_cast<size_t>(kGapEnd - 1 - kInnerExit));
  put_exits(page, kInnerExit, kInnerExits);
  put_grid(page, kOuterExit - kNear, kSledBytes - 1);
  page[kSledBytes] = kShortJump;
  page[kSledBytes + 1] = 0x43;  // the seventh outer exit; hit itself, a prefix of the hlt behind it
  static_assert(kSledBytes + 2 + 0x43 == kOuterExit + 6 * kExitStep);
  put_exits(page, kOuterExit, kOuterExits);
}

base::Result<bool> page_zero_is_free() noexcept {
  const long zero = map_at(0, kPageBytes, PROT_READ | PROT_WRITE);
  if (zero == 0) {
    (void)base::kernel_call(SYS_munmap, 0, kPageBytes);
    return true;
  }
  return base::make_error("page 0 cannot be mapped (error %ld): run as root or with CAP_SYS_RAWIO, or set vm.mmap_min_addr=0",
                          zero < 0 ? -zero : 0);
}

base::Result<bool> map_page_zero(const void* const* dispatch) noexcept {
  constexpr uint64_t kTableBytes = ZPS_DISPATCH_SLOTS * sizeof(void*);
  constexpr uint64_t kGuardBytes = 16 * kPageBytes;
  constexpr uint64_t kAllBytes = kGuardBytes + kPageBytes + kTableBytes + kGuardBytes;

  auto free = page_zero_is_free();
  if (!free) return free;
  if (map_at(0, kPageBytes, PROT_READ | PROT_WRITE) != 0) return base::make_error("page 0 was taken meanwhile");
  if (map_at(kLandingPage - kGuardBytes, kAllBytes, PROT_NONE) != static_cast<long>(kLandingPage - kGuardBytes)) {
    (void)base::kernel_call(SYS_munmap, 0, kPageBytes);
    return base::make_error("address 0x%lx, which the trampoline needs, is taken", kLandingPage);
  }
  CHECK(base::kernel_call(SYS_mprotect, kLandingPage, kPageBytes + kTableBytes, PROT_READ | PROT_WRITE) == 0);
  uint8_t* page = nullptr;
  asm("" : "+r"(page));  // the compiler may not know that this is address 0
  write_sled(page);

  memset(reinterpret_cast<void*>(kLandingPage), kFault, kPageBytes);
  constexpr uint64_t kLanding = 5 + kExitDisplacement;  // where an exit at address 0 would lead
  static_assert(kLanding >= kLandingPage && kLanding + kOuterExit + kOuterExits * kExitStep <= kLandingPage + kPageBytes);
  for (int i = 0; i < kInnerExits + kOuterExits; i++) {
    const int exit = i < kInnerExits ? kInnerExit + i * kExitStep : kOuterExit + (i - kInnerExits) * kExitStep;
    static constexpr uint8_t kJumpByNumber[3] = {0xff, 0x24, 0xc5};  // jmp *disp32(,%rax,8)
    uint8_t* code = reinterpret_cast<uint8_t*>(kLanding) + exit;
    const auto table = static_cast<uint32_t>(kDispatchTable);
    memcpy(code, kJumpByNumber, sizeof kJumpByNumber);
    memcpy(code + sizeof kJumpByNumber, &table, sizeof table);
  }
  memcpy(reinterpret_cast<void*>(kDispatchTable), dispatch, kTableBytes);
  CHECK(base::kernel_call(SYS_mprotect, kDispatchTable, kTableBytes, PROT_READ) == 0);
  long executable = base::kernel_call(SYS_mprotect, 0, kPageBytes, PROT_READ | PROT_EXEC);
  if (executable == 0) executable = base::kernel_call(SYS_mprotect, kLandingPage, kPageBytes, PROT_READ | PROT_EXEC);
  if (executable != 0) {
    (void)base::kernel_call(SYS_munmap, 0, kPageBytes);
    (void)base::kernel_call(SYS_munmap, static_cast<long>(kLandingPage - kGuardBytes), kAllBytes);
    return base::make_error(
        "memory cannot be made executable (error %ld): a security policy (MemoryDenyWriteExecute, PR_SET_MDWE) forbids it", -executable);
  }
  return true;
}

}  // namespace zpoline
