// Numbers out of a fuzzer's bytes; zeros when they are used up.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : data_(data), left_(bytes) {}
  [[nodiscard]] bool empty() const { return left_ == 0; }
  template <class T>
  T next() {
    T value{};
    const size_t bytes = left_ < sizeof value ? left_ : sizeof value;
    memcpy(&value, data_, bytes);
    data_ += bytes;
    left_ -= bytes;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace fuzz
