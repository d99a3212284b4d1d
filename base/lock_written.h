// A number that is written with a lock held and looked at by others without: what they see may be a moment old.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>

namespace base {

// As cheap as a plain number: no change is one locked instruction. All zero bytes is zero.
template <class T>
class LockWritten {
 public:
  constexpr LockWritten() noexcept = default;
  constexpr LockWritten(T value) noexcept : value_(value) {}
  operator T() const noexcept { return value_.load(std::memory_order_relaxed); }
  T operator=(T value) noexcept {
    value_.store(value, std::memory_order_relaxed);
    return value;
  }
  void operator++(int) noexcept { *this = *this + 1; }
  void operator--(int) noexcept { *this = *this - 1; }

 private:
  std::atomic<T> value_{};
};

}  // namespace base
