// Sections of code, and the shape of a system call.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/unknown_pairs.h"

#include <cstring>
#include <iterator>

#include "zpoline/sites/decoder.h"
#include "zpoline/sites/sections.h"

namespace zpoline {
namespace {

constexpr uint32_t kNumbers = 512;

[[nodiscard]] bool is_number(const uint8_t* p) noexcept {
  uint32_t number = 0;
  memcpy(&number, p, sizeof number);
  return number < kNumbers;
}

// An instruction's first bytes, as far as `mask` says.
struct Form {
  uint8_t bytes[4];
  uint8_t mask[4];
};
template <size_t n>
[[nodiscard]] bool is_any(const Form (&forms)[n], const uint8_t* p) noexcept {
  for (const Form& form : forms) {
    bool same = true;
    for (size_t i = 0; i < sizeof form.bytes; i++) same &= (p[i] & form.mask[i]) == form.bytes[i];
    if (same) return true;
  }
  return false;
}

// What puts a number into eax that is not in the instruction: mov and movslq from a register, from the stack or from a variable.
constexpr Form kLoads[] = {
    {{0x31, 0xc0}, {0xff, 0xff}},                    // xor %eax,%eax
    {{0x33, 0xc0}, {0xff, 0xff}},
    {{0x89, 0xc0}, {0xff, 0xc7}},                    // mov %r32,%eax
    {{0x48, 0x89, 0xc0}, {0xfb, 0xff, 0xc7}},        // mov %r64,%rax
    {{0x8b, 0x44, 0x24}, {0xff, 0xff, 0xff}},        // mov n(%rsp),%eax
    {{0x8b, 0x45}, {0xff, 0xff}},                    // mov n(%rbp),%eax
    {{0x48, 0x8b, 0x44, 0x24}, {0xff, 0xff, 0xff, 0xff}},
    {{0x48, 0x8b, 0x04, 0x24}, {0xff, 0xff, 0xff, 0xff}},
    {{0x48, 0x8b, 0x45}, {0xff, 0xff, 0xff}},
    {{0x48, 0x8b, 0x05}, {0xff, 0xff, 0xff}},        // mov n(%rip),%rax
    {{0x48, 0x63, 0xc0}, {0xfb, 0xff, 0xf8}},        // movslq %r32,%rax
};

// What compilers and people write behind a system call.
constexpr Form kFollowers[] = {
    {{0xc3}, {0xff}},                                // ret
    {{0x48, 0x3d}, {0xff, 0xff}},                    // cmp $n,%rax
    {{0x48, 0x83, 0xf8}, {0xff, 0xff, 0xff}},
    {{0x83, 0xf8}, {0xff, 0xff}},
    {{0x48, 0x85, 0xc0}, {0xff, 0xff, 0xff}},        // test %rax,%rax
    {{0x85, 0xc0}, {0xff, 0xff}},
    {{0x48, 0x89}, {0xfb, 0xff}},                    // mov
    {{0x89}, {0xff}},
    {{0x48, 0x8b}, {0xfb, 0xff}},
    {{0x58}, {0xf8}},                                // pop
    {{0x41, 0x58}, {0xff, 0xf8}},
    {{0xb8}, {0xf8}},                                // mov $n
    {{0x31}, {0xff}},                                // xor
    {{0xeb}, {0xff}},                                // jmp
    {{0xe9}, {0xff}},
    {{0x48, 0x83, 0xc4}, {0xff, 0xff, 0xff}},        // add $n,%rsp
    {{0xc9}, {0xff}},                                // leave
    {{0xf4}, {0xff}},                                // hlt
    {{0x0f, 0x0b}, {0xff, 0xff}},                    // ud2
    {{0x48, 0x98}, {0xff, 0xff}},                    // cltq
    {{0x48, 0xf7, 0xd8}, {0xff, 0xff, 0xff}},        // neg %rax
};

[[nodiscard]] bool loads_number(const uint8_t* p) noexcept {
  constexpr uint8_t kMov = 0xb8, kPush = 0x6a, kPopRax = 0x58;
  static constexpr uint8_t kMovWide[] = {0x48, 0xc7, 0xc0};
  if (*p == kMov) return is_number(p + 1);
  if (*p == kPush) return p[2] == kPopRax;
  if (memcmp(p, kMovWide, sizeof kMovWide) == 0) return is_number(p + sizeof kMovWide);
  return is_any(kLoads, p);
}

// True if a straight decoding from `p` arrives at `pair`.
[[nodiscard]] bool arrives(const uint8_t* p, const uint8_t* pair, const uint8_t* end) noexcept {
  while (p < pair) {
    const Instruction instruction = decode(p, static_cast<size_t>(end - p));
    switch (instruction.kind) {
      case Kind::invalid:
      case Kind::jump:
      case Kind::indirect_jump:
      case Kind::tail_jump:
      case Kind::end: return false;
      default: break;
    }
    p += instruction.length;
  }
  return p == pair;
}

}  // namespace

bool UnknownPairs::may_call(const uint8_t* begin, const uint8_t* pair, const uint8_t* end) noexcept {
  constexpr int64_t kFarthest = 40;
  constexpr int64_t kRoom = 8;  // that the forms look at
  if (end - pair < kRoom) return true;
  if (!is_any(kFollowers, pair + 2)) return false;
  const uint8_t* first = pair - begin > kFarthest ? pair - kFarthest : begin;
  for (const uint8_t* p = pair - 2; p >= first; p--) {
    if (loads_number(p) && arrives(p, pair, end)) return is_in_code(reinterpret_cast<uint64_t>(pair));
  }
  return false;
}

bool UnknownPairs::is_in_code(uint64_t address) noexcept {
  if (!read_) {
    read_ = true;
    known_ = Sections(object_).visit([this](const Sections::Section& section) {
      if (section.is_code && count_ < std::size(code_)) code_[count_++] = {section.begin, section.end};
      return false;
    });
  }
  for (size_t i = 0; i < count_; i++) {
    if (code_[i].holds(address)) return true;
  }
  return !known_ || count_ == std::size(code_);
}

}  // namespace zpoline
