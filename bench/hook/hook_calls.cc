// Times one system call of each kind in this process and prints JSON: {"case": nanoseconds, ...}; medians of batches.
// SPDX-License-Identifier: BSD-3-Clause
//
// The same program runs natively and with the engine preloaded; bench/run takes the two in turn and pairs them. A case is a
// tight loop of one `syscall` instruction in this program's own text, so it is a site like any other. The number comes in a
// register: a site with an immediate number that no hook claims would stay a plain system call. The near- cases have it in a mov before the
// system call, as most of libc's sites do: there the engine may put a jump.
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <vector>

#include "bench/hook/mechanisms.h"

namespace bench {
void close_selector();
}

namespace {

constexpr int kBatches = 31;
constexpr int kCallsPerBatch = 20'000;

[[gnu::noinline]] long call_with_fd(long nr, long fd) {
  long result = nr;
  register long r10 asm("r10") = 0;
  register long r8 asm("r8") = 0;
  register long r9 asm("r9") = 0;
  asm volatile("syscall" : "+a"(result) : "D"(fd), "S"(0L), "d"(0L), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
}

template <int nr>
[[gnu::noinline]] long near_call_with_fd(long fd) {
  long result;
  register long r10 asm("r10") = 0;
  register long r8 asm("r8") = 0;
  register long r9 asm("r9") = 0;
  asm volatile("mov %1, %%eax\n syscall"
               : "=&a"(result)
               : "i"(nr), "D"(fd), "S"(0L), "d"(0L), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

volatile long getpid_number = SYS_getpid;

long call_getpid() { return call_with_fd(getpid_number, 0); }

double now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <class Call>
double median_ns(Call call, int calls = kCallsPerBatch) {
  std::vector<double> batches;
  for (int batch = 0; batch < kBatches; batch++) {
    const double start = now_ns();
    for (int i = 0; i < calls; i++) call();
    batches.push_back((now_ns() - start) / calls);
  }
  std::nth_element(batches.begin(), batches.begin() + kBatches / 2, batches.end());
  return batches[kBatches / 2];
}

constexpr int kSlowCalls = 500;

bool run_case(const char* name) {
  constexpr long kEmulatedFd = 1'000'000;
  double result = 0;
  if (strcmp(name, "getpid") == 0) {
    result = median_ns([] { call_getpid(); });
  } else if (strcmp(name, "null-read") == 0) {
    result = median_ns([] { call_with_fd(SYS_read, kEmulatedFd); });
  } else if (strcmp(name, "socket-read") == 0) {
    result = median_ns([] { call_with_fd(SYS_recvfrom, kEmulatedFd); });
  } else if (strcmp(name, "near-null-read") == 0) {
    result = median_ns([] { near_call_with_fd<SYS_read>(kEmulatedFd); });
  } else if (strcmp(name, "near-socket-read") == 0) {
    result = median_ns([] { near_call_with_fd<SYS_recvfrom>(kEmulatedFd); });
  } else if (strcmp(name, "sud-armed") == 0) {
    if (!bench::arm_user_dispatch()) return false;
    result = median_ns([] { call_getpid(); });
  } else if (strcmp(name, "sud-signal") == 0) {
    if (!bench::trap_user_dispatch()) return false;
    result = median_ns(
        [] {
          bench::close_selector();
          call_getpid();
        },
        kSlowCalls);
  } else if (strcmp(name, "int3") == 0) {
    if (!bench::trap_breakpoint()) return false;
    result = median_ns(bench::breakpoint_call, kSlowCalls);
  } else if (strcmp(name, "ptrace") == 0) {
    if (!bench::trace_by_parent()) return false;
    result = median_ns([] { call_getpid(); }, kSlowCalls);
  } else {
    return false;
  }
  printf("{\"case\": \"%s\", \"ns\": %.2f}\n", name, result);
  fflush(stdout);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !run_case(argv[1])) {
    fprintf(stderr,
            "usage: bench_hook_calls getpid|[near-]null-read|[near-]socket-read|sud-armed|sud-signal|int3|ptrace (or the machine refuses "
            "it)\n");
    return 1;
  }
  return 0;
}
