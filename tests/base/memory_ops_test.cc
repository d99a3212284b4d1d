// The hook's own memcpy, memmove, memset and memcmp against byte loops, at every length and overlap that has a path of its own.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "memory_ops_under_test.h"

namespace {

constexpr int kLengths[] = {0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,   17,   31,   32,   33,   47,   48,  49,
                            63, 64, 65, 66, 95, 127, 128, 129, 255, 500, 1023, 1514, 2047, 2048, 2049, 5000, 9000};

std::vector<unsigned char> noise(size_t bytes) {
  std::mt19937 random(static_cast<unsigned>(bytes));
  std::vector<unsigned char> data(bytes);
  for (unsigned char& byte : data) byte = static_cast<unsigned char>(random());
  return data;
}

TEST(MemoryOps, CopiesExactly) {
  for (const int length : kLengths) {
    for (size_t shift = 0; shift < 17; shift++) {
      const auto from = noise(10'000);
      std::vector<unsigned char> to(10'000, 0x5a), expected = to;
      for (int i = 0; i < length; i++) expected[shift + static_cast<size_t>(i)] = from[3 + static_cast<size_t>(i)];
      EXPECT_EQ(&to[shift], zps_test_memcpy(&to[shift], &from[3], static_cast<size_t>(length)));
      ASSERT_EQ(expected, to) << length << " " << shift;
    }
  }
}

TEST(MemoryOps, MovesOverlapping) {
  for (const int length : kLengths) {
    for (const int distance : {-3000, -100, -33, -16, -15, -1, 0, 1, 7, 16, 17, 31, 100, 3000}) {
      auto data = noise(16'000), expected = data;
      const size_t from = 3500, to = static_cast<size_t>(3500 + distance);
      const std::vector<unsigned char> source(data.begin() + from, data.begin() + from + length);
      std::copy(source.begin(), source.end(), expected.begin() + static_cast<long>(to));
      (void)zps_test_memmove(&data[to], &data[from], static_cast<size_t>(length));
      ASSERT_EQ(expected, data) << length << " " << distance;
    }
  }
}

TEST(MemoryOps, Fills) {
  for (const int length : kLengths) {
    auto data = noise(10'000), expected = data;
    for (int i = 0; i < length; i++) expected[5 + static_cast<size_t>(i)] = 0xc3;
    (void)zps_test_memset(&data[5], 0x1c3, static_cast<size_t>(length));
    ASSERT_EQ(expected, data) << length;
  }
}

TEST(MemoryOps, Compares) {
  for (const int length : kLengths) {
    const auto a = noise(10'000);
    auto b = a;
    EXPECT_EQ(0, zps_test_memcmp(&a[1], &b[1], static_cast<size_t>(length)));
    if (length == 0) continue;
    for (const int at : {0, length / 2, length - 1}) {
      const size_t place = 1 + static_cast<size_t>(at);
      b[place] = static_cast<unsigned char>(a[place] + 1);
      const int sign = a[place] < b[place] ? -1 : 1;
      EXPECT_EQ(sign, zps_test_memcmp(&a[1], &b[1], static_cast<size_t>(length)));
      EXPECT_EQ(-sign, zps_test_memcmp(&b[1], &a[1], static_cast<size_t>(length)));
      b[place] = a[place];
    }
  }
}

}  // namespace
