// Whether a thread, or another process, sleeps in the kernel: what it waits for has begun then.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "tests/lib/peer.h"

namespace testing_lib {

inline void until_asleep(pid_t tid) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/stat", tid);
  for (uint64_t end = now_ms() + 30000; now_ms() < end;) {
    FILE* file = fopen(path, "r");
    if (file == nullptr) return;
    const bool got = fgets(line, sizeof line, file) != nullptr;
    fclose(file);
    const char* state = got ? strrchr(line, ')') : nullptr;
    if (state != nullptr && state[2] == 'S') return;
    sched_yield();
  }
}

}  // namespace testing_lib
