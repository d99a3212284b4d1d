// What stands in for libc's functions where the system call has other arguments, or libc has a part of its own: fork, threads, dlopen.
// SPDX-License-Identifier: BSD-3-Clause
//
// This is code of the program: outside the hook, with any register, and with libc's own functions behind it.
#include "zpoline/life/symbol_calls.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/select.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "base/syscall.h"
#include "zpoline/engine.h"
#include "zpoline/life/symbols.h"

extern "C" long zps_symbol_call(long nr, long a, long b, long c, long d, long e, long f);

namespace zpoline {
namespace {

using base::as_arg;

int as_libc(long result) noexcept {
  if (result >= 0) return static_cast<int>(result);
  errno = static_cast<int>(-result);
  return -1;
}

// struct sigaction as the kernel has it.
struct Action {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};
constexpr size_t kMaskBytes = sizeof(uint64_t);

int on_sigaction(int number, const struct sigaction* wanted, struct sigaction* old) {
  constexpr int kFirstOfLibc = 32;
  if (number == kFirstOfLibc || number == kFirstOfLibc + 1) return as_libc(-EINVAL);
  Action in{}, out{};
  if (wanted != nullptr) {
    in.handler = reinterpret_cast<uint64_t>(wanted->sa_sigaction);
    in.flags = static_cast<uint32_t>(wanted->sa_flags);
    __builtin_memcpy(&in.mask, &wanted->sa_mask, kMaskBytes);
  }
  const long result = zps_symbol_call(SYS_rt_sigaction, number, wanted != nullptr ? as_arg(&in) : 0, as_arg(&out), kMaskBytes, 0, 0);
  if (result >= 0 && old != nullptr) {
    *old = {};
    old->sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(out.handler);
    old->sa_flags = static_cast<int>(out.flags);
    __builtin_memcpy(&old->sa_mask, &out.mask, kMaskBytes);
  }
  return as_libc(result);
}

sighandler_t on_signal(int number, sighandler_t handler) {
  struct sigaction wanted {
  }, old{};
  wanted.sa_handler = handler;
  wanted.sa_flags = SA_RESTART;
  return on_sigaction(number, &wanted, &old) == 0 ? old.sa_handler : SIG_ERR;
}

int on_pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  return static_cast<int>(-zps_symbol_call(SYS_rt_sigprocmask, how, as_arg(set), as_arg(old), kMaskBytes, 0, 0));
}

// The kernel writes the rest of the time into its argument; these functions do not.
int on_ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  timespec time = timeout != nullptr ? *timeout : timespec{};
  return as_libc(zps_symbol_call(SYS_ppoll, as_arg(fds), static_cast<long>(count), timeout != nullptr ? as_arg(&time) : 0, as_arg(mask),
                                 kMaskBytes, 0));
}

int on_pselect(int count, fd_set* readable, fd_set* writable, fd_set* urgent, const timespec* timeout, const sigset_t* mask) {
  timespec time = timeout != nullptr ? *timeout : timespec{};
  const uint64_t pair[2] = {reinterpret_cast<uint64_t>(mask), kMaskBytes};
  return as_libc(zps_symbol_call(SYS_pselect6, count, as_arg(readable), as_arg(writable), as_arg(urgent),
                                 timeout != nullptr ? as_arg(&time) : 0, as_arg(pair)));
}

// vfork() too: its child would make hooked calls on its parent's memory.
pid_t on_fork() {
  zps_call call{};
  call.nr = SYS_fork;
  CloneFrame* frame = zps_before_clone(&call);
  const pid_t pid = fork();
  const long result = pid < 0 ? -errno : pid;
  if (pid == 0) (void)zps_after_clone_child(frame, 0);
  else (void)zps_after_clone_parent(frame, result);
  return as_libc(result);
}

// libc's calls its own fork().
int on_daemon(int keeps_directory, int keeps_streams) {
  const pid_t child = on_fork();
  if (child < 0) return -1;
  if (child > 0) (void)zps_symbol_call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
  if (setsid() < 0) return -1;
  if (!keeps_directory && chdir("/") < 0) return -1;
  if (keeps_streams) return 0;
  const int null = open("/dev/null", O_RDWR);
  if (null < 0) return -1;
  for (int stream = 0; stream < 3; stream++) (void)zps_symbol_call(SYS_dup2, null, stream, 0, 0, 0, 0);
  if (null > 2) close(null);
  return 0;
}

int on_execv(const char* path, char* const arguments[]) {
  return as_libc(zps_symbol_call(SYS_execve, as_arg(path), as_arg(arguments), as_arg(environ), 0, 0, 0));
}

// The hook frees what it has for a thread when that makes its last call, exit; which is libc's here.
pthread_key_t end_of_thread;

void thread_ends(void*) {
  ThreadState& thread = this_thread();
  zps_call call{};
  call.nr = SYS_exit;
  enter_hook(thread);
  if (hook.claim[SYS_exit] != ZPS_CLAIM_NONE) (void)hook.on_syscall(&call);
  zps_leave();
  __atomic_sub_fetch(&thread_count, 1, __ATOMIC_RELAXED);
}

// Lies on the stack of the thread's maker, who waits until it has been read: the program's malloc() is not for us.
struct Start {
  void* (*routine)(void*);
  void* argument;
  uint32_t read;
};

void* start_thread(void* given) {
  auto* from = static_cast<Start*>(given);
  const Start start = *from;
  __atomic_store_n(&from->read, 1, __ATOMIC_RELEASE);
  (void)base::kernel_call(SYS_futex, as_arg(&from->read), FUTEX_WAKE_PRIVATE, 1);
  this_thread().of_program = 1;
  (void)pthread_setspecific(end_of_thread, &end_of_thread);
  return start.routine(start.argument);
}

int on_pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*routine)(void*), void* argument) {
  Start start{routine, argument, 0};
  __atomic_add_fetch(&thread_count, 1, __ATOMIC_RELAXED);
  const int result = pthread_create(thread, attributes, start_thread, &start);
  if (result != 0) {
    __atomic_sub_fetch(&thread_count, 1, __ATOMIC_RELAXED);
    return result;
  }
  while (__atomic_load_n(&start.read, __ATOMIC_ACQUIRE) == 0) {
    (void)base::kernel_call(SYS_futex, as_arg(&start.read), FUTEX_WAIT_PRIVATE, 0, 0);
  }
  return 0;
}

void* on_dlopen(const char* path, int flags) {
  void* library = dlopen(path, flags);
  if (library != nullptr) exchange_symbols();
  return library;
}

const Symbol kCalls[] = {
    {"sigaction", reinterpret_cast<const void*>(on_sigaction), SYS_rt_sigaction},
    {"signal", reinterpret_cast<const void*>(on_signal), SYS_rt_sigaction},
    {"pthread_sigmask", reinterpret_cast<const void*>(on_pthread_sigmask), SYS_rt_sigprocmask},
    {"ppoll", reinterpret_cast<const void*>(on_ppoll), SYS_ppoll},
    {"__ppoll_chk", reinterpret_cast<const void*>(on_ppoll), SYS_ppoll},
    {"pselect", reinterpret_cast<const void*>(on_pselect), SYS_pselect6},
    {"fork", reinterpret_cast<const void*>(on_fork), SYS_fork},
    {"vfork", reinterpret_cast<const void*>(on_fork), SYS_vfork},
    {"daemon", reinterpret_cast<const void*>(on_daemon), SYS_fork},
    {"execv", reinterpret_cast<const void*>(on_execv), SYS_execve},
    {"pthread_create", reinterpret_cast<const void*>(on_pthread_create), SYS_clone},
    {"dlopen", reinterpret_cast<const void*>(on_dlopen), -1},
    {nullptr, nullptr, 0},
};

}  // namespace

const Symbol* symbol_calls() noexcept { return kCalls; }

bool prepare_symbol_calls() noexcept { return pthread_key_create(&end_of_thread, thread_ends) == 0; }

void end_with_symbols() noexcept {
  if (hook.before_exit == nullptr) return;
  enter_hook(this_thread());
  hook.before_exit(0);
}

}  // namespace zpoline
