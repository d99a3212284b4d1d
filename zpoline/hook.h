/* The engine's C interface to a hook library: what is called for each system call of the process, and what it may ask.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A hook library is loaded by libzpstack.so into a link namespace of its own (dlmopen), so its code is never rewritten and its
 * own system calls go straight to the kernel. It exports zps_hook_open(), which claims call numbers and hands over callbacks.
 *
 * Rules inside on_syscall(): no malloc, no stdio, no lock that the program could hold. The program's signal handlers do not run
 * between entry and return (the engine defers them), except inside engine->sleep(). Vector registers above xmm15 and the upper
 * halves of ymm/zmm must not change unless the call's claim is ZPS_CLAIM_FULL.
 *
 * Only <stdint.h> types; C and C++. */
#ifndef ZPOLINE_HOOK_H
#define ZPOLINE_HOOK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZPS_HOOK_ABI 2u
#define ZPS_NR_COUNT 512

/* Returned by on_syscall(): let the kernel do it, with the (possibly edited) numbers in the call. */
#define ZPS_PASS INT64_MIN

/* What a library wants for a call number. Unclaimed numbers never reach it, nor do 337..423, which Linux keeps free. */
enum zps_claim {
  ZPS_CLAIM_NONE = 0,
  ZPS_CLAIM_GENERAL = 1, /* the hook uses no vector register at all for this number */
  ZPS_CLAIM_SSE = 2,     /* xmm0-15 are kept for it: legacy SSE code only */
  ZPS_CLAIM_FULL = 3     /* everything is kept (xsavec): any code */
};

/* One system call as the program made it. `result` is what the kernel would have put in rax. */
struct zps_call {
  int64_t nr;
  int64_t arg[6];
  uint64_t return_address; /* the instruction after the system call */
};

/* What the next program's engine has to know to load the library where it is here: the beginning of the file whose descriptor
 * before_exec() returns. What follows is between library and library. */
#define ZPS_INHERITANCE "zps-exec"
struct zps_inheritance {
  char magic[8];           /* ZPS_INHERITANCE, without its zero */
  int32_t pid;             /* of the process, which stays what it is */
  uint32_t size;           /* of this structure */
  uint64_t library_base;   /* where the first segment of the library lies */
  uint64_t descriptors[512]; /* a bit per number: what the process has open for the library. Closed if the library is not opened. */
};

/* Per-thread words of the engine that a hook may look at. */
struct zps_thread {
  volatile uint8_t inside;           /* 1 during a hooked call: handlers are deferred */
  volatile uint8_t selector; /* read by the kernel under Syscall User Dispatch: 1 while the program's own code runs, 0 inside the hook */
  uint16_t unused;
  volatile uint32_t signals_pending; /* a handler waits to run: a wait should end soon */
  volatile uint32_t handlers_run;    /* how many of the program's handlers this thread has begun: compare around a sleep */
  uint32_t vfork_child;              /* this is a vfork child on its parent's memory: descriptors are the kernel's business only */
  volatile uint64_t restarts;        /* bit n % 64: handler number n, from 0, has SA_RESTART; the first in a call decides */
  uint32_t thread_id;                /* the kernel's, without a call that a filter of the program's might kill for; 0: not known */
  uint32_t sleeps;                   /* how many sleep() this thread is in: handlers that interrupt one may make calls that sleep */
};

struct zps_hook;

struct zps_engine {
  uint32_t abi;
  uint32_t size; /* of this structure: more may come at its end */
  const char *mode; /* "zpoline", "nopage0", "sud", "symbols" */
  const char *const *environment;
  /* This thread's words. */
  struct zps_thread *(*thread)(void);
  /* Makes a kernel call that may sleep; the program's handlers may run before and during it. Returns the kernel's result;
   * -EINTR if a handler ran, also if it came between the hook's last look and the kernel entry, or if a signal of the engine's
   * own came. A handler may also have run though the call was done: `handlers_run` tells. If the handler leaves by
   * siglongjmp this never returns: hold nothing across it that is not found again. */
  int64_t (*sleep)(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f);
  /* Prints the engine's part of the ledger (sites, calls passed) to fd. */
  void (*print_ledger)(int fd);
  /* A bit per number: calls that a filter the program has installed would answer with death (seccomp_filter.h); only of those that hooks
   * add. */
  const volatile uint64_t *deadly_calls;
  /* Where libzpstack.so and its variables lie. */
  const void *image_begin, *image_end;
  /* This thread's bytes for the library's own use, at the same distance from fs:0 in each thread, aligned to 16, zero when it begins. */
  void *(*thread_storage)(void);
  uint32_t thread_storage_bytes;
  /* What the library of the program before has left: a descriptor of a file that begins with a zps_inheritance of this process; -1: none.
   * The library's to close. */
  int32_t inherited;
  /* Whether what this execve() or execveat() executes will have this library: null, or why not. It is what the files say now. */
  const char *(*leaves_hook)(const struct zps_call *call);
  /* Other callbacks of the same library, with the same claims, from the next call on: it has made a copy of itself that takes over. In a
   * process with one thread, in which nothing of the old ones runs but the call that this is called from. */
  void (*exchange)(const struct zps_hook *with);
};

struct zps_hook {
  uint32_t abi;  /* set by the library to ZPS_HOOK_ABI */
  uint32_t size; /* set by the engine: of this structure */
  uint8_t claim[ZPS_NR_COUNT]; /* enum zps_claim per number; zeroed by the engine */
  int64_t (*on_syscall)(struct zps_call *call);
  /* Around fork, vfork and clone without CLONE_THREAD (all may be null). `flags` are clone's (fork: SIGCHLD, vfork:
   * CLONE_VM|CLONE_VFORK|SIGCHLD). before_fork runs in the parent; after_fork_parent with the child's pid or a negative errno;
   * after_fork_child in the child, unless it shares its parent's memory (CLONE_VM). */
  void (*before_fork)(uint64_t flags);
  void (*after_fork_parent)(uint64_t flags, int64_t pid);
  void (*after_fork_child)(uint64_t flags);
  /* Before execve/execveat (0: go on; negative errno: fail it) and, if the exec failed, after it. A number above 0 is that of an open
   * file, not close-on-exec: the next program's library finds it as `inherited`. */
  int64_t (*before_exec)(struct zps_call *call);
  void (*after_failed_exec)(void);
  /* exit_group, or exit of the last thread the engine knows. */
  void (*before_exit)(int64_t status);
  /* Code of the library that copies to and from the program's memory: a SIGSEGV or SIGBUS raised by an instruction in
   * [fault_begin, fault_end) while inside the hook resumes at fault_resume (same stack pointer); zero if there is none. */
  uint64_t fault_begin, fault_end, fault_resume;
};

/* The one exported function of a hook library. 0, or a negative number after printing one line: the program then does not start. */
typedef int (*zps_hook_open_fn)(const struct zps_engine *engine, struct zps_hook *hook);
int zps_hook_open(const struct zps_engine *engine, struct zps_hook *hook);

#ifdef __cplusplus
}
#endif

#endif
