// A hook that answers numbers Linux does not have, so that tests see entry, frames, signals and callbacks from both sides.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/syscall.h>

#include <cstdint>
#include <initializer_list>

#include "tests/zpoline/probe_calls.h"
#include "zpoline/hook.h"

namespace {

const zps_engine* engine = nullptr;
volatile int64_t forks = 0;

void trash_general() {
  asm volatile(
      "mov $-1, %%rcx\n mov %%rcx, %%rdx\n mov %%rcx, %%rsi\n mov %%rcx, %%rdi\n mov %%rcx, %%r8\n mov %%rcx, %%r9\n mov %%rcx, %%r10\n "
      "mov %%rcx, %%r11\n"
      "cmp $1, %%rcx\n"
      :
      :
      : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
}

void trash_sse() {
#define ONES(n) "pcmpeqd %%xmm" #n ", %%xmm" #n "\n"
  asm volatile(ONES(0) ONES(1) ONES(2) ONES(3) ONES(4) ONES(5) ONES(6) ONES(7) ONES(8) ONES(9) ONES(10) ONES(11) ONES(12) ONES(13) ONES(14)
                   ONES(15)
               :
               :
               : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                 "xmm14", "xmm15");
#undef ONES
}

void trash_all() {
  trash_sse();
  if (__builtin_cpu_supports("avx")) asm volatile(".byte 0xc5, 0xfc, 0x77\n" : : : "memory");  // vzeroall
  const uint32_t strange_mxcsr = 0x7fc0;
  asm volatile("fninit\n fldpi\n ldmxcsr %0\n" : : "m"(strange_mxcsr));
}

int64_t spin(zps_call* call) {
  *reinterpret_cast<volatile int*>(call->arg[0]) = 1;
  while (engine->thread()->signals_pending == 0) asm volatile("pause");
  return *reinterpret_cast<volatile int*>(call->arg[1]);
}

int64_t on_syscall(zps_call* call) {
  switch (call->nr) {
    case kProbeGeneral: trash_general(); return call->arg[0] + 1;
    case kProbeSse:
      trash_general();
      trash_sse();
      return call->arg[0] + 1;
    case kProbeFull:
      trash_general();
      trash_all();
      return call->arg[0] + 1;
    case kProbeSleep: return engine->sleep(SYS_read, call->arg[0], call->arg[1], call->arg[2], 0, 0, 0);
    case kProbeSpin: return spin(call);
    case kProbeForks: return forks;
    case kProbeInside: return engine->thread()->inside;
    case kProbeWords: {
      static thread_local uint32_t seen = 0;
      const zps_thread* words = engine->thread();
      const uint32_t first = seen;
      seen = words->handlers_run;
      return first == seen ? 0 : 1 + static_cast<int64_t>(words->restarts >> (first % 64) & 1);
    }
    default: return ZPS_PASS;
  }
}

void before_fork(uint64_t) { forks = forks + 1; }
void after_fork_parent(uint64_t, int64_t) { forks = forks + 100; }
void after_fork_child(uint64_t) { forks = forks + 10000; }

}  // namespace

extern "C" [[gnu::visibility("default")]] int zps_hook_open(const zps_engine* given, zps_hook* hook) {
  engine = given;
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  for (int nr : {0, 1, 7, 19, 20, 44, 45, 46, 47, 232, 281, 441}) hook->claim[nr] = ZPS_CLAIM_SSE;
  hook->claim[SYS_getpid] = ZPS_CLAIM_GENERAL;
  hook->claim[SYS_munmap] = ZPS_CLAIM_SSE;  // a number in which the engine has a part too
  hook->claim[kProbeGeneral] = ZPS_CLAIM_GENERAL;
  hook->claim[kProbeSse] = ZPS_CLAIM_SSE;
  for (int nr = kProbeFull; nr <= kProbeInside; nr++) hook->claim[nr] = ZPS_CLAIM_FULL;
  hook->before_fork = before_fork;
  hook->after_fork_parent = after_fork_parent;
  hook->after_fork_child = after_fork_child;
  return 0;
}
