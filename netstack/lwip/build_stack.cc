// Maps a stack's memory, loads its image, seeds it and makes it.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/lwip/build_stack.h"

#include "base/heap.h"
#include "base/clock.h"
#include "base/shared_memory.h"
#include "base/syscall.h"
#include "netstack/lwip/image_loader.h"

namespace netstack {

base::Result<Stack*> build_stack(const StackPlan& plan) noexcept {
  base::Result<StackImage> image = load_stack_image();
  if (!image) return image.error();

  StackSetup setup{};
  setup.region_bytes = image->door.region_bytes;
  setup.region = base::map_shared(setup.region_bytes);
  setup.arena = base::Heap::map_shared(plan.arena_bytes);
  if (setup.region == nullptr || setup.arena == nullptr) return base::make_error("no memory for a stack of %zu bytes", plan.arena_bytes);
  setup.wire = plan.wire;
  setup.address_be = plan.address_be;
  setup.gateway_be = plan.gateway_be;
  setup.prefix = plan.prefix;
  for (int i = 0; i < kMostIp6Addresses; i++) setup.ip6[i] = plan.ip6[i];
  setup.gateway6 = plan.gateway6;
  setup.link_local6 = plan.link_local6;
  setup.autoconfigure = plan.autoconfigure;
  setup.dhcp = plan.dhcp;
  setup.log_level = base::log_level();
  setup.mtu = plan.mtu;
  setup.time_wait_ms = plan.time_wait_ms;
  setup.ports = plan.ports;
  setup.now_ns = plan.now_ns != nullptr ? plan.now_ns : base::monotonic_ns;
  setup.image_data = image->data;
  setup.image_pristine = image->pristine;
  setup.image_bytes = image->bytes;
  if (base::kernel_call(SYS_getrandom, base::as_arg(setup.seed), sizeof setup.seed, 0) != sizeof setup.seed) {
    return base::make_error("getrandom(2) gives no random numbers");
  }
  Stack* stack = image->door.make(&setup);
  if (stack == nullptr) return base::make_error("the stack image refused its memory");
  return stack;
}

}  // namespace netstack
