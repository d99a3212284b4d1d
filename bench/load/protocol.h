// What load client and load server say to each other: each connection begins with one Wish, then its mode decides.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

namespace load {

enum class Mode : uint32_t {
  echo,  // what comes goes back
  up,    // what comes is counted; when the client has ended its side the count goes back: 8 bytes
  down,  // bytes without end, until the client leaves
  once,  // `bytes` bytes go back, then the server closes
};

// The first bytes of a connection, in the machine's own order: both programs run on one machine.
struct Wish {
  Mode mode;
  uint32_t bytes;
};

constexpr size_t kChunk = 64 * 1024;  // of a read or a write

}  // namespace load
