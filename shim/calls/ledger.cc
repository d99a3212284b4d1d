// The ledger's counters and its table.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/ledger.h"

#include <atomic>

#include "base/log.h"
#include "shim/family/family.h"
#include "shim/calls/syscall_table.h"

namespace shim {
namespace {

constexpr int kOutcomes = 3;
std::atomic<uint64_t> counts[ZPS_NR_COUNT][kOutcomes];

}  // namespace

void count_call(int64_t nr, Outcome outcome) noexcept { counts[nr][static_cast<int>(outcome)].fetch_add(1, std::memory_order_relaxed); }

void print_ledger() noexcept {
  if (!config.ledger) return;
  using base::LogLevel;
  base::log(LogLevel::error, "ledger of process %d:    served      passed     refused", my_slot->pid);
  for (const SyscallRow& row : syscall_rows()) {
    const auto& count = counts[row.nr];
    const uint64_t served = count[0].load(std::memory_order_relaxed);
    const uint64_t passed = count[1].load(std::memory_order_relaxed);
    const uint64_t refused = count[2].load(std::memory_order_relaxed);
    if (served + passed + refused == 0) continue;
    base::log(LogLevel::error, "ledger %s %11lu %11lu %11lu", row.name, served, passed, refused);
  }
  if (const netstack::Stack* const stack = the_stack(); stack != nullptr) {
    if (const uint64_t foreign = stack->wire().foreign_frames(); foreign != 0)
      base::log(LogLevel::error, "ledger: %lu frames of other VLANs were dropped", foreign);
  }
  engine->print_ledger(2);
}

void log_once(bool* said, const char* what, long detail) noexcept {
  if (*said) return;
  *said = true;
  base::log(base::LogLevel::warn, what, detail);
}

}  // namespace shim
