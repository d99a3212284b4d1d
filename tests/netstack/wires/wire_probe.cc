// A shared object as the hook's core is one: it links zps_wires and nothing else, is loaded with dlmopen, and gives out wires.
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <cstdlib>

#include "base/arena.h"
#include "base/log.h"
#include "netstack/wires/open_wire.h"

// A library with one variable at a fixed distance from fs:0 has all of its variables there, as the core has. Elsewhere the wires' threads
// (base/own_thread.h) would find none: DPDK's constructors have the loading thread's allocated.
thread_local uint32_t at_fixed_distance __attribute__((tls_model("initial-exec")));

extern "C" [[gnu::visibility("default")]] netstack::Wire* probe_open_wire(const netstack::StackConfig* config,
                                                                          netstack::WireAddress* address, base::Error* error) {
  if (getenv("WIRE_DEBUG") != nullptr) base::set_log_level(base::LogLevel::debug);
  at_fixed_distance++;
  base::Arena* arena = base::Arena::map_shared(size_t{16} << 20);
  auto wire = netstack::open_wire(*config, arena, address);
  if (wire) return *wire;
  *error = wire.error();
  return nullptr;
}
