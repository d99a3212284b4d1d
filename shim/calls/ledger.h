// Counts of what was served, passed on and refused, per call number, printed at exit with ZPS_LEDGER=1.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace shim {

enum class Outcome { served, passed, refused };

// Counts one call; relaxed, async-signal-safe. Only called when config.ledger is set.
void count_call(int64_t nr, Outcome outcome) noexcept;
// Prints the ledger to stderr, with the engine's part, if it is wanted.
void print_ledger() noexcept;

// Says once per process and place that something is not supported, and counts it.
void log_once(bool* said, const char* what, long detail) noexcept;

}  // namespace shim
