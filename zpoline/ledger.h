// The engine's part of the ledger.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace zpoline {

// Prints to `fd`, one line per fact, how the program's system calls were rewritten.
void print_ledger(int fd);

}  // namespace zpoline
