// Byte pairs outside of every known function: which of them may be system calls.
// SPDX-License-Identifier: BSD-3-Clause
//
// Nothing is rewritten for them: that takes a proof. But if one is a system call it would reach the kernel without a word, so the object's
// code is then left to the trap path, which needs no proof and changes no byte (trap.cc). It costs every kernel call of every thread
// something, and must not be paid for the constants of a library that the whole world uses. So a pair counts only if it looks like a call:
// it lies in a section of code, something before it puts a number into eax and a straight decoding from there arrives at the pair, and what
// comes behind it is what comes behind system calls. Of the 16000 such pairs of libLLVM, and those of libcrypto and node, none does.
#pragma once

#include <link.h>

#include <cstdint>

#include "zpoline/sites/maps.h"

namespace zpoline {

class UnknownPairs {
 public:
  explicit UnknownPairs(const dl_phdr_info& object) noexcept : object_(object) {}

  // The pair at `pair`, in a segment [begin, end).
  [[nodiscard]] bool may_call(const uint8_t* begin, const uint8_t* pair, const uint8_t* end) noexcept;

 private:
  [[nodiscard]] bool is_in_code(uint64_t address) noexcept;

  const dl_phdr_info& object_;
  bool read_ = false;
  bool known_ = false;
  Range code_[16];
  size_t count_ = 0;
};

}  // namespace zpoline
