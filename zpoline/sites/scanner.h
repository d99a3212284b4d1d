// Finds the system call instructions of a loaded object and proves that they are instructions.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem: `0f 05` occurs in constants, displacements, jump tables and data between functions. A linear sweep of .text that
// loses step takes such bytes for a system call and "rewrites" a table of an elliptic curve. So nothing is swept:
//   1 byte pairs 0f 05 and 0f 34 are searched for (memory speed; most objects have none, and then nothing else is done);
//   2 the function around a pair comes from the unwind table or the symbols; a pair outside every function is not a site;
//   3 that function is decoded along its control flow from its entries. A pair is a site if the flow arrives at it as an
//     instruction of its own;
//   4 code that only a computed jump or an exception reaches is invisible to the flow. In functions that have computed jumps or
//     landing pads, a straight decoding from the last point that the flow proved is accepted as well;
//   5 if two decodings overlap at the pair, it is left alone.
//
// What a site knows besides its address: the call number, where `mov $number,%eax` comes directly before and no direct branch
// lands between the two; whether its function may keep data below rsp (then a call would overwrite 8 bytes of it); and
// whether a near jump may stand there instead, because nothing lands inside: no branch, no other decoding that overlaps, no symbol, and
// no computed jump in the function whose targets are not known. Three places are wide enough:
//   b8 number 0f 05                     the jump takes the mov; the system call behind it stays one, so that an unknown way to it
//                                       does no harm;
//   31 c0 0f 05 48 3d 00 f0 ff ff       libc's read(): the jump destroys system call and compare. Here the whole segment is searched
//                                       for bytes that could be a branch into them, and functions with landing pads are refused.
//   0f 05 48 3d imm32                   the same without a number, for Go's Syscall6, through which nearly all calls of a Go program pass.
//                                       Nothing is searched: Go's code branches to begins of functions only.
//
// Invariants: 1 nothing is written here; 2 no memory outside the object's segments is read.
// Known limits: a function over 1 MiB is not analysed (no site in it); a computed jump that lands exactly on
// a system call with a number other than that of the `mov` before it is not seen.
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "zpoline/sites/maps.h"

namespace zpoline {

inline constexpr int kUnknownNumber = -1;

enum class Jump : uint8_t {
  none,
  load,     // may replace the mov
  compare,  // may replace all from the xor to the compare
  unnumbered,  // may replace system call and compare; the number is in eax
};
inline constexpr size_t kLoadBytes = 5;     // mov $imm32,%eax; also the length of a near jump
inline constexpr size_t kCompareBytes = 6;  // cmp $imm32,%rax

struct Site {
  uint8_t* address;     // of the two bytes 0f 05 or 0f 34, after any prefix
  int32_t number;       // what eax holds, or kUnknownNumber
  bool below_rsp;       // the function may keep data below rsp
  bool callable;        // `call *%rax` may stand here (false: a prefix would change that call)
  const uint8_t* load;  // where the `mov $number,%eax` begins, or null
  Jump jump;            // from `load`; unnumbered: from `address`
  bool small_stack;     // the hook must not run on the stack that the program has here
};

// True if the site's system call and compare are lost to its jump.
[[nodiscard]] constexpr bool takes_compare(const Site& site) noexcept {
  return site.jump == Jump::compare || site.jump == Jump::unnumbered;
}
// Where a site's jump stands, if it has one.
[[nodiscard]] constexpr const uint8_t* jump_begin(const Site& site) noexcept {
  return site.jump == Jump::unnumbered ? site.address : site.load;
}

struct ScanCounts {
  size_t pairs = 0;      // byte pairs seen
  size_t sites = 0;      // of these, proven
  size_t functions = 0;  // analysed
  size_t instructions = 0;
  size_t unknown = 0;  // of the pairs, those that look like system calls in no function, or were too many
  Range go_text;  // the object's code that runs on small stacks
};

// Receives each proven site once, in ascending order within a function, after the whole object was read.
using SiteVisitor = void (*)(void* context, const Site& site);

// Scans every executable segment of `object`. Not thread-safe: one scan at a time (start-up, or under the engine's lock).
ScanCounts scan_object(const dl_phdr_info& object, SiteVisitor visit, void* context) noexcept;

}  // namespace zpoline
