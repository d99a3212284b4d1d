// A child that is killed a while after it has begun some work.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <new>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

// Forks a child by `fork_child` that does `work`, and kills it `most_ns` after the beginning of that. How long it took; less if it came to
// the end.
inline uint64_t kill_after(uint64_t most_ns, const std::function<int()>& fork_child, const std::function<void()>& work) {
  struct Shared {
    std::atomic<uint64_t> begin_ns{0}, end_ns{0};
  };
  auto* shared = new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared();
  const pid_t child = fork_child();
  if (child == 0) {
    shared->begin_ns = base::monotonic_ns();
    work();
    shared->end_ns = base::monotonic_ns();
    while (true) (void)pause();
  }
  while (shared->begin_ns == 0) (void)usleep(0);
  while (shared->end_ns == 0 && base::monotonic_ns() - shared->begin_ns < most_ns) {
  }
  (void)kill(child, SIGKILL);
  (void)waitpid(child, nullptr, 0);
  const uint64_t took_ns = shared->end_ns != 0 ? shared->end_ns - shared->begin_ns : most_ns;
  (void)munmap(shared, sizeof(Shared));
  return took_ns;
}
