// A byte stream that both ends can compute: what byte stands at which offset, for a seed.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace testing_lib {

inline uint8_t pattern_byte(uint64_t seed, uint64_t offset) noexcept {
  uint64_t x = (offset + 1) * 0x9e3779b97f4a7c15u ^ seed * 0xbf58476d1ce4e5b9u;
  return static_cast<uint8_t>(x >> 56 ^ x >> 24);
}

inline void fill_pattern(uint64_t seed, uint64_t offset, uint8_t* out, size_t length) noexcept {
  for (size_t i = 0; i < length; i++) out[i] = pattern_byte(seed, offset + i);
}

inline std::string pattern(uint64_t seed, uint64_t offset, size_t length) {
  std::string text(length, '\0');
  fill_pattern(seed, offset, reinterpret_cast<uint8_t*>(text.data()), length);
  return text;
}

// Offset of the first wrong byte of `data`, which stands at `offset` of the stream; -1 if all are right.
inline int64_t pattern_mismatch(uint64_t seed, uint64_t offset, const uint8_t* data, size_t length) noexcept {
  for (size_t i = 0; i < length; i++)
    if (data[i] != pattern_byte(seed, offset + i)) return static_cast<int64_t>(offset + i);
  return -1;
}

// A small repeatable generator (splitmix64), so that a seed in a test's output is enough to repeat it.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() noexcept {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  // In [low, high], small values more likely than large ones.
  size_t size(size_t low, size_t high) noexcept {
    size_t bits = 64 - static_cast<size_t>(__builtin_clzll(high - low + 1));
    size_t span = size_t{1} << next() % (bits + 1);
    size_t value = low + next() % span;
    return value > high ? high : value;
  }

 private:
  uint64_t state_;
};

}  // namespace testing_lib
