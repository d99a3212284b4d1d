// Numbers out of a fuzzer's bytes; zeros when they are used up.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : data_(data), left_(bytes) {}
  [[nodiscard]] bool empty() const { return left_ == 0; }
  template <class T>
  T next() {
    T value{};
    const size_t bytes = left_ < sizeof value ? left_ : sizeof value;
    if (bytes > 0) memcpy(&value, data_, bytes);
    data_ += bytes;
    left_ -= bytes;
    return value;
  }
  std::vector<uint8_t> take(size_t bytes) {
    std::vector<uint8_t> taken(bytes);
    const size_t there = left_ < bytes ? left_ : bytes;
    if (there > 0) memcpy(taken.data(), data_, there);
    data_ += there;
    left_ -= there;
    return taken;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace fuzz
