// What a network may be called (ZPS_NETWORK): the name becomes part of a file's and of a socket's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

namespace base {

inline constexpr size_t kMostNetworkName = 32;

// Letters, digits, and . _ - but in the first place.
[[nodiscard]] inline bool is_network_name(const char* text) noexcept {
  size_t length = 0;
  for (; text[length] != '\0'; length++) {
    const char c = text[length];
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool is_mark = c == '.' || c == '_' || c == '-';
    if (length == kMostNetworkName || (!is_plain && !(is_mark && length > 0))) return false;
  }
  return length > 0;
}

}  // namespace base
