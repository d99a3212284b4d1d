// What a seccomp filter that the program installs would do to calls that the engine and the hook add.
// SPDX-License-Identifier: BSD-3-Clause
//
// The filter is a classic BPF program over the call's number and arguments. It is run here for each call that is ever added for
// convenience, with arguments of zero, before the kernel gets it: a verdict of death marks the call, and it is left undone from then on
// (base/permitted.h).
// Filters add up and are never removed, and so do the marks. A filter that looks at arguments may be judged wrongly in either direction.
//
// Known limits: filters that were installed before this program began are not seen.
// Sources: Documentation/userspace-api/seccomp_filter.rst; Linux net/core/filter.c, bpf_check_classic() and seccomp_check_filter() (which
// operations there are).
#pragma once

#include <cstdint>

#include "zpoline/hook.h"

namespace zpoline {

// A bit per number.
extern volatile uint64_t deadly_calls[ZPS_NR_COUNT / 64];
[[nodiscard]] inline bool is_deadly(int nr) noexcept { return deadly_calls[nr / 64] >> nr % 64 & 1; }

// `program` is a struct sock_fprog of the program's, as it gives it to seccomp() or prctl().
void judge_filter(uint64_t program) noexcept;
// Strict mode: read, write, exit and rt_sigreturn are what is left.
void judge_strict_mode() noexcept;

}  // namespace zpoline
