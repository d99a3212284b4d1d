// Stub memory near each object, the bytes of a stub, and the way out of one.
// SPDX-License-Identifier: BSD-3-Clause
//
// A stub:
//      0  lea  -136(%rsp),%rsp     below the red zone, and 8 bytes for the return address
//      8  mov  $number,%eax
//     13  lea  next(%rip),%rcx     what the kernel leaves there: the instruction after the system call
//     20  call *slot(%rip)         the entry that this number takes (entry.S); for exit a jump, since it may have no stack (exit_entry.S)
//     26  lea  136(%rsp),%rsp
//     34  jmp  back                the same instruction
// and where the jump at the site covers the compare behind the system call (scanner.h: Jump::compare)
//     34  cmp  $-4096,%rax
//     40  jmp  back                the one behind the compare
// Where the program's stack is small, everything happens elsewhere (own_stack.S):
//      0  mov  $number,%eax        or a nop, if it is in eax already
//      5  lea  on(%rip),%r11
//     12  jmp  *slot(%rip)
//     18  next                     the address itself
//     26  on: mov 16(%rsp),%rsp    the program's stack
//     31  jmp  back                or the compare before it, as above
// Of a static program (static_entry.S), which comes back without a stub:
//      0  mov  $number,%eax
//      5  lea  next(%rip),%rcx
//     12  mov  slot(%rip),%r11     the entry
//     19  jmp  *slot(%rip)         static_entry.S; for exit, whose entry it is, at once
// Before that no flag changes, and nothing is written between rsp-128 and rsp. The call and the entry's ret are a pair, so the way back is
// predicted whatever the hook did in between; a common indirect jump at the entry's end would not be. The slots, one for each
// entry, stand at the start of the area: absolute addresses, so that it does not matter how far away the engine or page 0 is.
//
// Where: a plain mmap first, which lands beside the libraries and so within reach of most objects. For the others, the gaps in
// /proc/self/maps below the object, the nearest first, at their upper end: above a program lies its heap, which must be free to grow,
// and a gap under a stack is that stack's.
//
// Invariants: 1 an area is never writable and executable at once, nor writable again; 2 an area belongs to one object; 3 handlers
// read `areas` without the rewriter's lock: `begin` is published last and withdrawn first.
#include "zpoline/sites/stubs.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/engine.h"

namespace zpoline {

struct StubArea {
  std::atomic<uint64_t> begin{0};  // 0: free
  uint64_t bytes = 0;
  uint32_t used = 0;  // stubs written
  uint32_t live = 0;  // of them, with a site
};

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kSlots = 16;
constexpr size_t kStubBytes = 48;
constexpr size_t kHeaderBytes = kSlots * sizeof(uint64_t);
constexpr int64_t kReach = (int64_t{1} << 31) - 64 * 1024;
constexpr int32_t kLowered = 136;
constexpr size_t kMov = 8, kLea = 13, kCall = 20, kAfterCall = 26, kTail = 34;
constexpr size_t kStaticLea = 5, kStaticLoad = 12, kStaticJump = 19;
constexpr size_t kOwnLea = 5, kOwnJump = 12, kOwnNext = 18, kOwnTail = 31;
static_assert(kAfterCall == ZPS_OWN_STUB_ON);
constexpr uint8_t kJumpNear[] = {0xe9};
constexpr uint8_t kCompareOpcode[] = {0x48, 0x3d};
constexpr uint8_t kLeaRcx[] = {0x48, 0x8d, 0x0d};
constexpr uint8_t kLeaR11[] = {0x4c, 0x8d, 0x1d};
constexpr uint8_t kLoadOpcode = 0xb8;
constexpr uint8_t kJumpSlot[] = {0xff, 0x25};
constexpr uint8_t kFill = 0xcc;
constexpr uint64_t kLowest = 0x10000;

constinit StubArea areas[256];  // filled before this file's constructors would run
constinit std::atomic<uint64_t> all_begin{UINT64_MAX};  // every area lies in [all_begin, all_end)
constinit std::atomic<uint64_t> all_end{0};

bool is_mapped(long address) noexcept { return address > 0; }

long map(uint64_t at, uint64_t bytes, int flags) noexcept {
  return base::kernel_call(SYS_mmap, static_cast<long>(at), static_cast<long>(bytes), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

bool reaches(uint64_t at, uint64_t bytes, uint64_t low, uint64_t high) noexcept {
  return static_cast<int64_t>(high - at) < kReach && static_cast<int64_t>(at + bytes - low) < kReach;
}

// Reads /proc/self/maps one line at a time: address range, and whether it is a stack.
class Maps {
 public:
  Maps() noexcept : fd_(base::kernel_call(SYS_openat, AT_FDCWD, base::as_arg("/proc/self/maps"), O_RDONLY | O_CLOEXEC, 0)) {}
  ~Maps() {
    if (fd_ >= 0) (void)base::kernel_call(SYS_close, fd_);
  }
  Maps(const Maps&) = delete;
  Maps& operator=(const Maps&) = delete;

  bool next(uint64_t* begin, uint64_t* end, bool* stack) noexcept {
    if (!take_hex(begin, '-') || !take_hex(end, ' ')) return false;
    *stack = false;
    for (int c = take(); c != '\n'; c = take()) {
      if (c < 0) return false;
      if (c == '[') *stack = take() == 's';
    }
    return true;
  }

 private:
  int take() noexcept {
    if (at_ == filled_) {
      const long got = fd_ < 0 ? fd_ : base::kernel_call(SYS_read, fd_, base::as_arg(buffer_), sizeof buffer_);
      if (got <= 0) return -1;
      filled_ = static_cast<size_t>(got);
      at_ = 0;
    }
    return static_cast<unsigned char>(buffer_[at_++]);
  }
  bool take_hex(uint64_t* value, int terminator) noexcept {
    *value = 0;
    for (int c = take(); c != terminator; c = take()) {
      if (c < 0) return false;
      *value = *value << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
  }

  long fd_;
  size_t at_ = 0;
  size_t filled_ = 0;
  char buffer_[1024];
};

// The upper end of the nearest gap of `bytes` below `low` whose end is not over `limit`; 0 if there is none.
uint64_t gap_below(uint64_t low, uint64_t limit, uint64_t bytes) noexcept {
  Maps maps;
  uint64_t best = 0;
  uint64_t free_from = kLowest;
  uint64_t begin, end;
  bool stack;
  while (maps.next(&begin, &end, &stack) && free_from <= low) {
    if (begin <= low && begin <= limit && begin >= free_from + bytes && !stack) best = begin;
    if (end > free_from) free_from = end;
  }
  return best;
}

long map_within_reach(uint64_t low, uint64_t high, uint64_t bytes) noexcept {
  const long anywhere = map(0, bytes, 0);
  if (is_mapped(anywhere) && reaches(static_cast<uint64_t>(anywhere), bytes, low, high)) return anywhere;
  if (is_mapped(anywhere)) (void)base::kernel_call(SYS_munmap, anywhere, static_cast<long>(bytes));
  uint64_t limit = UINT64_MAX;
  for (int attempt = 0; attempt < 16; attempt++) {
    const uint64_t gap_end = gap_below(low, limit, bytes);
    if (gap_end == 0 || !reaches(gap_end - bytes, bytes, low, high)) return -1;
    const long there = map(gap_end - bytes, bytes, MAP_FIXED_NOREPLACE);
    if (there == static_cast<long>(gap_end - bytes)) return there;
    if (is_mapped(there)) (void)base::kernel_call(SYS_munmap, there, static_cast<long>(bytes));
    limit = gap_end - 1;
  }
  return -1;
}

template <class T>
T load(const uint8_t* at) noexcept {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

template <class T>
void put(uint8_t* at, T value) noexcept {
  memcpy(at, &value, sizeof value);
}

// An instruction of `opcode` bytes that ends in a distance from its own end to `target`.
template <size_t n>
void put_relative(uint8_t* at, const uint8_t (&opcode)[n], uint64_t target) noexcept {
  memcpy(at, opcode, n);
  put(at + n, static_cast<int32_t>(target - (reinterpret_cast<uint64_t>(at) + n + sizeof(int32_t))));
}

// The slot that holds `entry`; the first free one becomes it.
uint64_t slot_of(uint64_t area, const void* entry) noexcept {
  auto* slots = reinterpret_cast<const void**>(area);
  for (size_t i = 0; i < kSlots; i++) {
    if (slots[i] == nullptr) slots[i] = entry;
    if (slots[i] == entry) return reinterpret_cast<uint64_t>(slots + i);
  }
  return 0;
}

void withdraw(StubArea& area) noexcept {
  const uint64_t begin = area.begin.exchange(0, std::memory_order_acq_rel);
  (void)base::kernel_call(SYS_munmap, static_cast<long>(begin), static_cast<long>(area.bytes));
}

// `flags` after cmp $operand,%rax.
uint64_t flags_of_compare(uint64_t rax, int64_t operand, uint64_t flags) noexcept {
  constexpr uint64_t kArithmetic = 0x8d5;
  const auto subtracted = static_cast<uint64_t>(operand);
  const uint64_t result = rax - subtracted;
  const uint64_t carry = rax < subtracted;
  const uint64_t parity = !__builtin_parity(static_cast<unsigned>(result & 0xff));
  const uint64_t adjust = (rax ^ subtracted ^ result) >> 4 & 1;
  const uint64_t zero = result == 0;
  const uint64_t sign = result >> 63;
  const uint64_t overflow = ((rax ^ subtracted) & (rax ^ result)) >> 63;
  return (flags & ~kArithmetic) | carry | parity << 2 | adjust << 4 | zero << 6 | sign << 7 | overflow << 11;
}

StubArea* area_of(uint64_t address) noexcept {
  if (address < all_begin.load(std::memory_order_relaxed) || address >= all_end.load(std::memory_order_relaxed)) return nullptr;
  for (StubArea& area : areas) {
    const uint64_t begin = area.begin.load(std::memory_order_acquire);
    if (begin != 0 && address >= begin && address < begin + area.bytes) return &area;
  }
  return nullptr;
}

}  // namespace

StubArea* reserve_stubs(uint64_t low, uint64_t high, size_t count) noexcept {
  StubArea* area = areas;
  while (area < areas + sizeof areas / sizeof areas[0] && area->begin.load(std::memory_order_relaxed) != 0) area++;
  if (area == areas + sizeof areas / sizeof areas[0]) return nullptr;
  const uint64_t bytes = (kHeaderBytes + count * kStubBytes + kPageBytes - 1) & ~(kPageBytes - 1);
  const long memory = map_within_reach(low, high, bytes);
  if (!is_mapped(memory)) return nullptr;
  const auto begin = static_cast<uint64_t>(memory);
  area->bytes = bytes;
  area->used = area->live = 0;
  if (begin < all_begin.load(std::memory_order_relaxed)) all_begin.store(begin, std::memory_order_relaxed);
  if (begin + bytes > all_end.load(std::memory_order_relaxed)) all_end.store(begin + bytes, std::memory_order_relaxed);
  area->begin.store(begin, std::memory_order_release);
  return area;
}

namespace {

// How a stub ends, behind its `tail`: the compare that the site's jump has taken, if it has, and the way back.
void put_tail(uint8_t* tail, const Site& site) noexcept {
  uint64_t back = reinterpret_cast<uint64_t>(site.address) + 2;
  if (takes_compare(site)) {
    memcpy(tail, site.address + 2, kCompareBytes);
    tail += kCompareBytes;
    back += kCompareBytes;
  }
  put_relative(tail, kJumpNear, back);
}

void put_load(uint8_t* at, const Site& site) noexcept {
  static constexpr uint8_t kNop[kLoadBytes] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
  at[0] = kLoadOpcode;
  put(at + 1, site.number);
  if (site.jump == Jump::unnumbered) memcpy(at, kNop, sizeof kNop);
}

void put_stub(uint8_t* code, const Site& site, bool returns, uint64_t slot) noexcept {
  static constexpr uint8_t kLeaRsp[] = {0x48, 0x8d, 0xa4, 0x24};
  static constexpr uint8_t kCallSlot[] = {0xff, 0x15};
  memcpy(code, kLeaRsp, sizeof kLeaRsp);
  put(code + sizeof kLeaRsp, -kLowered);
  put_load(code + kMov, site);
  put_relative(code + kLea, kLeaRcx, reinterpret_cast<uint64_t>(site.address) + 2);
  put_relative(code + kCall, returns ? kCallSlot : kJumpSlot, slot);
  memcpy(code + kAfterCall, kLeaRsp, sizeof kLeaRsp);
  put(code + kAfterCall + sizeof kLeaRsp, kLowered);
  put_tail(code + kTail, site);
}

void put_own_stack_stub(uint8_t* code, const Site& site, uint64_t slot) noexcept {
  static constexpr uint8_t kLoadRsp[] = {0x48, 0x8b, 0x64, 0x24, ZPS_OWN_RSP};
  put_load(code, site);
  put_relative(code + kOwnLea, kLeaR11, reinterpret_cast<uint64_t>(code) + ZPS_OWN_STUB_ON);
  put_relative(code + kOwnJump, kJumpSlot, slot);
  put(code + kOwnNext, reinterpret_cast<uint64_t>(site.address) + 2);
  memcpy(code + ZPS_OWN_STUB_ON, kLoadRsp, sizeof kLoadRsp);
  put_tail(code + kOwnTail, site);
}

void put_static_stub(uint8_t* code, const Site& site, uint64_t slot, uint64_t way) noexcept {
  static constexpr uint8_t kLoadR11[] = {0x4c, 0x8b, 0x1d};
  put_load(code, site);
  put_relative(code + kStaticLea, kLeaRcx, reinterpret_cast<uint64_t>(site.address) + 2);
  put_relative(code + kStaticLoad, kLoadR11, slot);
  put_relative(code + kStaticJump, kJumpSlot, way);
}

}  // namespace

uint64_t add_stub(StubArea* area, const Site& site, const void* entry, bool of_static) noexcept {
  const uint64_t begin = area->begin.load(std::memory_order_relaxed);
  const uint64_t at = begin + kHeaderBytes + area->used * kStubBytes;
  const uint64_t slot = slot_of(begin, entry);
  const uint64_t way = of_static ? slot_of(begin, entry == zps_exit_near ? zps_exit_static : zps_static) : slot;
  if (slot == 0 || way == 0 || at + kStubBytes > begin + area->bytes) return 0;
  auto* code = reinterpret_cast<uint8_t*>(at);
  memset(code, kFill, kStubBytes);
  if (site.small_stack) put_own_stack_stub(code, site, slot);
  else if (of_static) put_static_stub(code, site, slot, way);
  else put_stub(code, site, entry != zps_exit_near, slot);
  area->used++;
  area->live++;
  return at;
}

long seal_stubs(StubArea* area) noexcept {
  const uint64_t begin = area->begin.load(std::memory_order_relaxed);
  const long result = base::kernel_call(SYS_mprotect, static_cast<long>(begin), static_cast<long>(area->bytes), PROT_READ | PROT_EXEC);
  if (result < 0) withdraw(*area);
  return result;
}

void drop_stub(uint64_t stub) noexcept {
  StubArea* area = area_of(stub);
  if (area != nullptr && --area->live == 0) withdraw(*area);
}

bool step_out_of_stub(StubRegisters& registers) noexcept {
  const StubArea* area = area_of(registers.rip);
  if (area == nullptr) return false;
  const uint64_t begin = area->begin.load(std::memory_order_relaxed);
  if (begin == 0 || registers.rip < begin + kHeaderBytes) return false;
  const size_t inside = (registers.rip - begin - kHeaderBytes) % kStubBytes;
  const auto* stub = reinterpret_cast<const uint8_t*>(registers.rip - inside);
  if (memcmp(stub + kStaticLea, kLeaRcx, sizeof kLeaRcx) == 0) {
    const int64_t next = load<int32_t>(stub + kStaticLea + sizeof kLeaRcx);
    registers.rip = reinterpret_cast<uint64_t>(stub) + kStaticLoad + static_cast<uint64_t>(next) - 2 - kLoadBytes;
    return true;
  }
  const bool own_stack = stub[kOwnLea] == kLeaR11[0] && stub[kOwnLea + 1] == kLeaR11[1] && stub[kOwnLea + 2] == kLeaR11[2];
  const size_t tail = own_stack ? kOwnTail : kTail;
  const bool compares = stub[tail] == kCompareOpcode[0];
  const size_t end = tail + (compares ? kCompareBytes : 0) + sizeof kJumpNear + sizeof(int32_t);
  const int64_t distance = load<int32_t>(stub + end - sizeof(int32_t));
  const uint64_t back = reinterpret_cast<uint64_t>(stub) + end + static_cast<uint64_t>(distance);
  if (own_stack && inside == kAfterCall) registers.rsp = load<uint64_t>(reinterpret_cast<const uint8_t*>(registers.rsp) + ZPS_OWN_RSP);
  if (!own_stack && inside != 0 && inside <= kAfterCall) registers.rsp += kLowered;
  if (compares && inside >= kAfterCall && inside <= tail)
    registers.flags = flags_of_compare(registers.rax, load<int32_t>(stub + tail + sizeof kCompareOpcode), registers.flags);
  const size_t system_call = 2 + (compares ? kCompareBytes : 0);
  const bool unnumbered = own_stack && stub[0] != kLoadOpcode;
  const size_t load_bytes = unnumbered ? 0 : compares ? 2 : kLoadBytes;
  registers.rip = inside >= kAfterCall ? back : back - system_call - load_bytes;
  return true;
}

}  // namespace zpoline
