// A hook library that answers read by a general-registers-only hook and recvfrom by a socket-entry hook, both without the kernel.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/hook.h"

#include <sys/syscall.h>

namespace {

// Descriptors that no program has: whatever else is asked goes to the kernel.
constexpr int64_t kEmulatedFd = 1'000'000;

int64_t answer(zps_call* call) noexcept { return call->arg[0] == kEmulatedFd ? 0 : ZPS_PASS; }

}  // namespace

extern "C" [[gnu::visibility("default")]] int zps_hook_open(const zps_engine* engine, zps_hook* hook) {
  if (engine->abi != ZPS_HOOK_ABI) return -1;
  hook->abi = ZPS_HOOK_ABI;
  hook->claim[SYS_read] = ZPS_CLAIM_GENERAL;
  hook->claim[SYS_recvfrom] = ZPS_CLAIM_SSE;
  hook->on_syscall = answer;
  return 0;
}
