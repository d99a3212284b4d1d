// Loads the stack image: one fresh copy per stack, its writable data in memory the family shares.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "netstack/lwip/stack_setup.h"

namespace netstack {

struct StackImage {
  decltype(&zps_stack_region_bytes) region_bytes = nullptr;
  decltype(&zps_stack_make) make = nullptr;
  void* data = nullptr;            // writable data, now MAP_SHARED at its old place
  const void* pristine = nullptr;  // a read-only copy of it from before any of its code ran
  size_t bytes = 0;
};

// Loads a copy of libzpstack-stack.so from beside the library (or program) that holds this function. Start-up code:
// may allocate and block; leaves no descriptor behind. The image is never unloaded.
base::Result<StackImage> load_stack_image() noexcept;

}  // namespace netstack
