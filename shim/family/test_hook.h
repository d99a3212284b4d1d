// A way for tests to have a process die inside the lock, where nothing else can make it die for certain.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace shim {

// ZPS_TEST_DIE_LOCKED=FILE: the next forked member that drives the stack while FILE exists removes it and kills itself.
void arm_test_hook(const char* const* environment) noexcept;
// Called with the lock held, by waits. One load when the hook is not armed.
void die_if_told() noexcept;
// The process is the child of a fork.
void test_hook_forked() noexcept;

}  // namespace shim
