// Dying on demand.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/test_hook.h"

#include <csignal>
#include <cstring>

#include "base/syscall.h"

namespace shim {
namespace {

using base::kernel_call;

constexpr char kVariable[] = "ZPS_TEST_DIE_LOCKED=";
const char* trigger = nullptr;
bool forked = false;

}  // namespace

void arm_test_hook(const char* const* environment) noexcept {
  for (; *environment != nullptr; environment++) {
    if (strncmp(*environment, kVariable, sizeof kVariable - 1) == 0) trigger = *environment + sizeof kVariable - 1;
  }
}

void die_if_told() noexcept {
  if (trigger == nullptr || !forked) [[likely]] return;
  if (kernel_call(SYS_unlink, base::as_arg(trigger)) != 0) return;
  (void)kernel_call(SYS_kill, kernel_call(SYS_getpid), SIGKILL);
}

void test_hook_forked() noexcept {
  if (trigger != nullptr) forked = true;
}

}  // namespace shim
