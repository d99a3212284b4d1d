// Where programs of one network (ZPS_NETWORK) have their hook library: all at the same place.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. Programs that know nothing of each other are to share memory that has addresses of the hook library's code in it. ld.so
// loads a library where the kernel has room, which differs from program to program, and a library that has been loaded does not move.
//
// How. The place is chosen by chance for a user and a name, by the first program that starts, and kept in a file of /dev/shm that nobody
// else may read, until the machine is started again. It lies where the kernel puts nothing by itself. inherited.h tells how ld.so comes to
// map the library there.
//
// Rejected: to ask a program that runs (two that are started together have nobody to ask, and no socket yet); a place that follows from
// the name (an attacker knows it).
//
// Known limits: a library at a place that stays is found by trying, if whoever is tried is started again each time: 28 bits of chance.
// Where the file is removed while programs have the name, those that come later lie elsewhere and are not let in (shim/family/network.h).
#pragma once

#include <cstdint>

#include "base/result.h"

namespace zpoline {

// For a program that was started with this name; 0 if it has none (null or empty).
[[nodiscard]] base::Result<uint64_t> place_of_network(const char* name) noexcept;

}  // namespace zpoline
