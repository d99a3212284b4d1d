// Keeps the machine's idle processors within reach while somebody on this machine answers us at once.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Over a wire that ends in this machine's kernel the peer's program sleeps between two requests, and its processor is halted.
// To wake it takes longer than all the rest: 19 of 34 us for one redis-benchmark client in a virtual machine, where a halt is an exit.
//
// How. The family has a request at /dev/cpu_dma_latency (PM QoS). While waits are answered within their spin, the service writes there that
// idle processors shall be awake again within kWakeUs; else that they may take their time. Where the only choice is between polling and a
// halt that leaves the virtual machine (the haltpoll driver) it asks for 0: idle processors poll. The request ends with the last process
// that has it, however it ends. A kernel without it, or a process that may not open it, changes nothing. It also writes there when what it
// sends is cheaper then (light_trial.h).
//
// Known limit: a process that is stopped by SIGSTOP leaves the request as it is.
// Sources: Documentation/power/pm_qos_interface.rst, Documentation/virt/guest-halt-polling.rst.
#pragma once

#include <atomic>
#include <cstdint>

#include "netstack/wire.h"
#include "shim/family/light_trial.h"

namespace shim {

// The family's.
struct Processors {
  int request_fd;
  int32_t light_us;         // the wake-up time to ask for
  std::atomic<bool> light;  // what was written last: they sleep lightly
  std::atomic<uint64_t> answered_spins;
  std::atomic<uint64_t> judged_spins;  // the sum at judged_ns
  uint64_t judged_ns;
  netstack::SendCost judged_cost;  // likewise
  LightTrial trial;
};

// Before the process loses the right to open the device.
void keep_processors() noexcept;
// When a stack is made.
void prepare_processors(const netstack::Wire& wire) noexcept;
// A wait was answered within its spin. The first one of many asks.
void count_answered_spin() noexcept;
// By the service, on each turn: withdraws the request when they have become few.
void mind_processors(uint64_t now) noexcept;

}  // namespace shim
