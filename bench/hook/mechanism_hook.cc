// A hook library for measurements: the stack, but each call reaches it by a mechanism of the kernel's that costs what it costs elsewhere.
// SPDX-License-Identifier: BSD-3-Clause
//
// BENCH_MECHANISM says which: `int3` (a breakpoint, whose SIGTRAP handler makes the call), `ptrace` (a tracer, bench_tracer, is told of the
// call before it is made, at its entry and at its exit: a call of the kernel's that does nothing stands for it) or `plain` (none; for
// callgrind, which does not know xsavec: the claims ask for no more than SSE). It is loaded in mode `symbols`, whose own way costs a few
// nanoseconds; calls that the stack does not claim go by themselves, so the price is that of the stack's calls. Vector registers: the
// caller of a libc function expects none to be kept.
#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "zpoline/hook.h"

namespace {

using OnSyscall = int64_t (*)(zps_call*);
OnSyscall stack_call;

int64_t by_breakpoint(zps_call* call) noexcept {
  int64_t result;
  asm volatile("int3" : "=a"(result) : "D"(call) : "memory");
  return result;
}

// On the way back the kernel puts what is in the frame into rax.
void at_breakpoint(int, siginfo_t*, void* context) {
  greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  registers[REG_RAX] = stack_call(reinterpret_cast<zps_call*>(registers[REG_RDI]));
}

int64_t by_tracer(zps_call* call) noexcept {
  syscall(SYS_getppid);
  return stack_call(call);
}

bool set_breakpoints_up() {
  struct sigaction action {};
  action.sa_sigaction = at_breakpoint;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;  // a handler of the program's, run while the stack sleeps, makes calls as well
  return sigaction(SIGTRAP, &action, nullptr) == 0;
}

int (*open_stack())(const zps_engine*, zps_hook*) {
  Dl_info here;
  if (dladdr(reinterpret_cast<void*>(&stack_call), &here) == 0) return nullptr;
  char path[4096];
  const char* slash = strrchr(here.dli_fname, '/');
  snprintf(path, sizeof path, "%.*s/libzpstack-core.so", static_cast<int>(slash - here.dli_fname), here.dli_fname);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) dprintf(STDERR_FILENO, "mechanism_hook: %s\n", dlerror());
  return library == nullptr ? nullptr : reinterpret_cast<int (*)(const zps_engine*, zps_hook*)>(dlsym(library, "zps_hook_open"));
}

}  // namespace

extern "C" [[gnu::visibility("default")]] int zps_hook_open(const zps_engine* engine, zps_hook* hook) {
  const auto open = open_stack();
  const char* mechanism = getenv("BENCH_MECHANISM");
  if (open == nullptr || mechanism == nullptr || open(engine, hook) != 0) return -1;
  stack_call = hook->on_syscall;
  for (uint8_t& claim : hook->claim) claim = claim == ZPS_CLAIM_FULL ? static_cast<uint8_t>(ZPS_CLAIM_SSE) : claim;
  if (strcmp(mechanism, "plain") == 0) return 0;
  if (strcmp(mechanism, "ptrace") == 0) {
    hook->on_syscall = by_tracer;
    return 0;
  }
  hook->on_syscall = by_breakpoint;
  return strcmp(mechanism, "int3") == 0 && set_breakpoints_up() ? 0 : -1;
}
