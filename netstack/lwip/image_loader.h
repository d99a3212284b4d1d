// Loads the stack image: one fresh copy per stack, its writable data in memory the family shares.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/build_id.h"
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

// Where the last one was loaded, and which build it is: what the next program has to know if it is to have the same.
struct ImagePlace {
  uintptr_t base;
  base::BuildId build;
};
[[nodiscard]] ImagePlace image_place() noexcept;
// In a program that was executed: loads the same again, at the same place, but for its writable data, which are shared parts (base/
// shared_memory.h) and are mapped over what lies there now.
base::Result<bool> load_image_again(const ImagePlace& place) noexcept;
// Its path, and one to use in its place.
[[nodiscard]] const char* stack_image_path() noexcept;
void use_stack_image_path(const char* path) noexcept;
// Opens its file already, before a process goes where it cannot be found.
void open_stack_image() noexcept;

}  // namespace netstack
