// base/heap.h for fuzzing: the same over malloc, so that AddressSanitizer knows where each piece ends and whether it is still somebody's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <unordered_map>

#include "base/check.h"

namespace base {

class Heap {
 public:
  explicit Heap(size_t capacity) : capacity_(capacity) {}
  ~Heap() { reset(); }

  [[nodiscard]] void* allocate(size_t bytes) noexcept {
    if (used_ + bytes > capacity_) return nullptr;
    void* const piece = malloc(bytes);
    pieces_[piece] = bytes;
    used_ += bytes;
    return piece;
  }
  void release(void* piece) noexcept {
    if (piece == nullptr) return;
    const auto at = pieces_.find(piece);
    CHECK(at != pieces_.end());
    used_ -= at->second;
    pieces_.erase(at);
    free(piece);
  }
  [[nodiscard]] bool contains(const void* piece, size_t bytes) const noexcept {
    const auto at = pieces_.find(const_cast<void*>(piece));
    return at != pieces_.end() && at->second >= bytes;
  }
  [[nodiscard]] size_t used() const noexcept { return used_; }
  [[nodiscard]] size_t capacity() const noexcept { return capacity_; }
  void reset() noexcept {
    for (const auto& [piece, bytes] : pieces_) free(piece);
    pieces_.clear();
    used_ = 0;
  }

 private:
  size_t capacity_, used_ = 0;
  std::unordered_map<void*, size_t> pieces_;
};

}  // namespace base
