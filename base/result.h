// Result<T>: a value or a one-line explanation. Only for start-up code; calls on the data path return errno values.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstring>
#include <utility>

namespace base {

// One line that tells a person what is missing and how to mend it; at most 299 bytes, never allocates.
struct Error {
  char text[300] = "";
};

[[gnu::format(printf, 1, 2)]] Error make_error(const char* format, ...) noexcept;

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) noexcept : value_(std::move(value)), ok_(true) {}  // NOLINT: implicit by intent
  Result(const Error& error) noexcept : error_(error) {}              // NOLINT: implicit by intent

  explicit operator bool() const noexcept { return ok_; }
  T& operator*() noexcept { return value_; }
  T* operator->() noexcept { return &value_; }
  const Error& error() const noexcept { return error_; }

 private:
  T value_{};
  Error error_;
  bool ok_ = false;
};

}  // namespace base
