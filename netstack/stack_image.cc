// The stack image's one door: makes the stack of this copy.
#include <new>

#include "netstack/lwip_stack.h"

namespace netstack {

extern "C" [[gnu::visibility("default")]] size_t zps_stack_region_bytes() { return sizeof(StackRegion); }

extern "C" [[gnu::visibility("default")]] Stack* zps_stack_make(const StackSetup* setup) {
  if (setup->region_bytes < sizeof(StackRegion)) return nullptr;
  auto* region = static_cast<StackRegion*>(setup->region);
  auto* stack = new (region->stack_storage) LwipStack(*setup, *region);
  stack->start();
  return stack;
}

}  // namespace netstack

// Without a C++ library: what the vtables of abstract classes refer to.
extern "C" [[noreturn, gnu::visibility("hidden")]] void __cxa_pure_virtual() { __builtin_trap(); }
