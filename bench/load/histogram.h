// A histogram of times with three significant digits over the whole range, in the manner of HDR histograms.
// SPDX-License-Identifier: BSD-3-Clause
//
// Values below 2^kDigitBits have a bucket each; above, each power of two is cut into 2^(kDigitBits - 1) buckets of equal width, so that a
// bucket is at most 1/1024 of its value wide. Source: G. Tene, HdrHistogram (the bucket layout).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace load {

class Histogram {
 public:
  void add(uint64_t value) {
    counts_[bucket_of(value)]++;
    total_++;
  }

  [[nodiscard]] uint64_t total() const { return total_; }

  // The value that `percent` of all do not exceed: the upper end of its bucket. 0 if there are none.
  [[nodiscard]] uint64_t at_percent(double percent) const {
    if (total_ == 0) return 0;
    const double wanted = static_cast<double>(total_) * percent / 100;
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < counts_.size(); bucket++) {
      seen += counts_[bucket];
      if (counts_[bucket] != 0 && static_cast<double>(seen) >= wanted) return highest_in(bucket);
    }
    return highest_in(counts_.size() - 1);
  }

 private:
  static constexpr unsigned kDigitBits = 11;
  static constexpr size_t kHalf = size_t{1} << (kDigitBits - 1);

  static size_t bucket_of(uint64_t value) {
    const unsigned bits = static_cast<unsigned>(std::bit_width(value));
    if (bits <= kDigitBits) return value;
    const unsigned shift = bits - kDigitBits;
    return shift * kHalf + (value >> shift);
  }

  static uint64_t highest_in(size_t bucket) {
    if (bucket < 2 * kHalf) return bucket;
    const size_t shift = bucket / kHalf - 1;
    return ((bucket - shift * kHalf + 1) << shift) - 1;
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>((64 - kDigitBits + 2) * kHalf);
  uint64_t total_ = 0;
};

}  // namespace load
