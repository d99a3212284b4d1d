// The stack image's one door: makes the stack of this copy.
// SPDX-License-Identifier: BSD-3-Clause
#include <new>

#include "netstack/lwip_stack.h"

namespace netstack {

namespace {

Stack* make(const StackSetup* setup) {
  if (setup->region_bytes < sizeof(StackRegion)) return nullptr;
  auto* region = static_cast<StackRegion*>(setup->region);
  auto* stack = new (region->stack_storage) LwipStack(*setup, *region);
  stack->start();
  return stack;
}

}  // namespace

extern "C" [[gnu::visibility("default")]] StackDoor zps_stack_door() { return {sizeof(StackSetup), sizeof(StackRegion), make}; }

}  // namespace netstack

// Without a C++ library: what the vtables of abstract classes refer to.
extern "C" [[noreturn, gnu::visibility("hidden")]] void __cxa_pure_virtual() { __builtin_trap(); }
