// The bits, and how they are asked.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/permitted.h"

namespace base {
namespace {

const volatile uint64_t* deadly = nullptr;

}  // namespace

void set_deadly_calls(const volatile uint64_t* bits) noexcept { deadly = bits; }

bool may_call(long nr) noexcept { return deadly == nullptr || (deadly[nr / 64] >> nr % 64 & 1) == 0; }

}  // namespace base
