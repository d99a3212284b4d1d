// Trials: things that are best found out by doing them, in a child process that takes all traces with it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>

namespace tool {

// Runs `body` in a forked child; its result (0 to 255), or -1 if the child died of a signal or could not be made.
int in_child(const std::function<int()>& body);

// In a child with a network namespace of its own: makes a veth pair and removes it again. 0, or the errno of what failed;
// *namespace_refused is set when it was already the namespace.
int try_veth(bool* namespace_refused);

}  // namespace tool
