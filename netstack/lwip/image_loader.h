// Loads the stack image: one fresh copy per stack, its writable data in memory the family shares.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

#include "base/result.h"
#include "netstack/lwip/stack_setup.h"

namespace netstack {

struct StackImage {
  StackDoor door{};
  void* data = nullptr;            // writable data, now MAP_SHARED at its old place
  const void* pristine = nullptr;  // a read-only copy of it from before any of its code ran
  size_t bytes = 0;
};

// Maps a copy of libzpstack-stack.so from beside the library (or program) that holds this function. Allocates nothing, asks ld.so for
// nothing, leaves no descriptor behind. The image is never unmapped.
base::Result<StackImage> load_stack_image() noexcept;
// Opens its file already, before a process goes where it cannot be found.
void open_stack_image() noexcept;

}  // namespace netstack
