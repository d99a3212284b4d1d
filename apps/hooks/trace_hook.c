/* Prints each system call in strace's notation: name(arguments) = result.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The hook makes the kernel call itself, through engine->sleep() so that the program's handlers run while it waits, and prints
 * the result. Calls in which the engine has a part (memory, signals, exec, exit) are printed as they begin, with "?" for
 * the result; fork, vfork and clone are reported by their callbacks. ZPS_TRACE_FD chooses the descriptor (a copy of 2). */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "apps/hooks/syscall_names.h"
#include "zpoline/hook.h"

static const struct zps_engine* engine;
static int trace_fd = 2;

/* How arguments print: d decimal, x hexadecimal, o octal, p pointer, s string, b bytes (the next argument is how many),
 * a a directory descriptor. Calls that are not listed print six hexadecimal words. */
static const struct {
  short nr;
  const char* arguments;
} kFormats[] = {
    {SYS_read, "dpd"},
    {SYS_write, "dbd"},
    {SYS_open, "sxo"},
    {SYS_openat, "asxo"},
    {SYS_close, "d"},
    {SYS_fstat, "dp"},
    {SYS_newfstatat, "aspx"},
    {SYS_stat, "sp"},
    {SYS_lstat, "sp"},
    {SYS_lseek, "ddd"},
    {SYS_mmap, "pdxxdx"},
    {SYS_munmap, "pd"},
    {SYS_mprotect, "pdx"},
    {SYS_brk, "p"},
    {SYS_ioctl, "dxp"},
    {SYS_pread64, "dpdd"},
    {SYS_pwrite64, "dbdd"},
    {SYS_readv, "dpd"},
    {SYS_writev, "dpd"},
    {SYS_access, "sx"},
    {SYS_faccessat, "asx"},
    {SYS_pipe, "p"},
    {SYS_pipe2, "px"},
    {SYS_poll, "pdd"},
    {SYS_ppoll, "pdpp"},
    {SYS_select, "dpppp"},
    {SYS_dup, "d"},
    {SYS_dup2, "dd"},
    {SYS_dup3, "ddx"},
    {SYS_nanosleep, "pp"},
    {SYS_getpid, ""},
    {SYS_getppid, ""},
    {SYS_gettid, ""},
    {SYS_getuid, ""},
    {SYS_geteuid, ""},
    {SYS_getgid, ""},
    {SYS_getegid, ""},
    {SYS_socket, "ddd"},
    {SYS_connect, "dpd"},
    {SYS_accept, "dpp"},
    {SYS_accept4, "dppx"},
    {SYS_sendto, "dbdxpd"},
    {SYS_recvfrom, "dpdxpp"},
    {SYS_sendmsg, "dpx"},
    {SYS_recvmsg, "dpx"},
    {SYS_shutdown, "dd"},
    {SYS_bind, "dpd"},
    {SYS_listen, "dd"},
    {SYS_getsockname, "dpp"},
    {SYS_setsockopt, "dddpd"},
    {SYS_getsockopt, "dddpp"},
    {SYS_execve, "spp"},
    {SYS_exit, "d"},
    {SYS_exit_group, "d"},
    {SYS_wait4, "dpxp"},
    {SYS_kill, "dd"},
    {SYS_tgkill, "ddd"},
    {SYS_fcntl, "ddx"},
    {SYS_getcwd, "pd"},
    {SYS_chdir, "s"},
    {SYS_mkdir, "so"},
    {SYS_unlink, "s"},
    {SYS_unlinkat, "asx"},
    {SYS_readlink, "spd"},
    {SYS_readlinkat, "aspd"},
    {SYS_rename, "ss"},
    {SYS_getdents64, "dpd"},
    {SYS_futex, "pxdppd"},
    {SYS_epoll_create1, "x"},
    {SYS_epoll_ctl, "dddp"},
    {SYS_epoll_wait, "dpdd"},
    {SYS_epoll_pwait, "dpddp"},
    {SYS_rt_sigaction, "dppd"},
    {SYS_rt_sigprocmask, "dppd"},
    {SYS_prlimit64, "ddpp"},
    {SYS_getrandom, "pdx"},
    {SYS_statx, "asxxp"},
    {SYS_clock_nanosleep, "ddpp"},
    {SYS_set_tid_address, "p"},
    {SYS_set_robust_list, "pd"},
    {SYS_rseq, "pdxx"},
    {SYS_arch_prctl, "xp"},
    {SYS_uname, "p"},
    {SYS_sysinfo, "p"},
};
static const char* format_of[ZPS_NR_COUNT];

/* What only the engine can do; it does not tell the result. */
static const short kEngines[] = {SYS_mmap,   SYS_munmap,   SYS_mremap, SYS_mprotect,  SYS_rt_sigaction,
                                 SYS_execve, SYS_execveat, SYS_exit,   SYS_exit_group};
static char is_engines[ZPS_NR_COUNT];

struct line {
  char text[600];
  size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct line* line, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(line->text + line->length, sizeof line->text - line->length, format, arguments);
  va_end(arguments);
  line->length += (size_t)length;
  if (line->length >= sizeof line->text) line->length = sizeof line->text - 1;
}

/* Copies from the program without trusting its pointer; how many bytes there were, at most `bytes`. */
static long peek(int64_t from, void* to, size_t bytes) {
  const struct {
    void* base;
    size_t length;
  } local = {to, bytes}, remote = {(void*)from, bytes};
  return from < 4096 ? -1 : syscall(SYS_process_vm_readv, getpid(), &local, 1L, &remote, 1L, 0L);
}

static void add_bytes(struct line* line, int64_t from, size_t bytes, int is_string) {
  enum { kShown = 32 };
  unsigned char text[kShown + 1];
  const size_t wanted = bytes > kShown ? kShown : bytes;
  long got = -1;
  /* A string may end just before an unmapped page: take less until it fits. */
  for (size_t ask = wanted; ask > 0 && got < 0; ask = is_string ? ask / 2 : 0) got = peek(from, text, ask);
  if (wanted == 0) got = 0;
  if (got < 0) {
    add(line, "%#llx", (unsigned long long)from);
    return;
  }
  add(line, "\"");
  long i = 0;
  for (; i < got && !(is_string && text[i] == 0); i++) {
    if (text[i] == '\n') add(line, "\\n");
    else if (text[i] == '\r') add(line, "\\r");
    else if (text[i] == '\t') add(line, "\\t");
    else if (text[i] == '"' || text[i] == '\\') add(line, "\\%c", text[i]);
    else if (text[i] >= 32 && text[i] < 127) add(line, "%c", text[i]);
    else add(line, "\\%o", text[i]);
  }
  const int cut = is_string ? i == got : (size_t)got < bytes;
  add(line, cut ? "\"..." : "\"");
}

static void add_argument(struct line* line, const struct zps_call* call, int i, char how) {
  const int64_t value = call->arg[i];
  switch (how) {
    case 'd': add(line, "%lld", (long long)(int)value == (long long)value ? (long long)value : (long long)(int)value); break;
    case 'o': add(line, "%#llo", (unsigned long long)value); break;
    case 's': value ? add_bytes(line, value, 4096, 1) : add(line, "NULL"); break;
    case 'b': add_bytes(line, value, (size_t)call->arg[i + 1], 0); break;
    case 'a': (int)value == -100 ? add(line, "AT_FDCWD") : add(line, "%d", (int)value); break;
    case 'p': value ? add(line, "%#llx", (unsigned long long)value) : add(line, "NULL"); break;
    default: add(line, value ? "%#llx" : "%llx", (unsigned long long)value); break;
  }
}

static void begin(struct line* line, const struct zps_call* call) {
  const char* format = format_of[call->nr] ? format_of[call->nr] : "xxxxxx";
  line->length = 0;
  add(line, "%s(", zps_syscall_name(call->nr));
  for (int i = 0; format[i] != '\0'; i++) {
    if (i > 0) add(line, ", ");
    add_argument(line, call, i, format[i]);
  }
  add(line, ")");
}

static void finish(struct line* line) {
  line->text[line->length < sizeof line->text - 1 ? line->length++ : line->length - 1] = '\n';
  if (write(trace_fd, line->text, line->length) < 0) return;
}

static int64_t to_kernel(const struct zps_call* call) {
  struct zps_thread* thread = engine->thread();
  for (;;) {
    const uint32_t first = thread->handlers_run;
    const int64_t result = engine->sleep(call->nr, call->arg[0], call->arg[1], call->arg[2], call->arg[3], call->arg[4], call->arg[5]);
    /* Interrupted before it began, by the engine itself or by a handler that asks for a restart. */
    const int restartable = call->nr == SYS_read || call->nr == SYS_write || call->nr == SYS_wait4 || call->nr == SYS_futex;
    const int ends = thread->handlers_run != first && !(thread->restarts >> (first % 64) & 1);
    if (result != -EINTR || ends || !restartable) return result;
  }
}

static int64_t on_syscall(struct zps_call* call) {
  struct line line;
  begin(&line, call);
  if (is_engines[call->nr]) {
    add(&line, " = ?");
    finish(&line);
    return ZPS_PASS;
  }
  const int64_t result = to_kernel(call);
  if (result < 0 && result > -4096)
    add(&line, " = -1 %s (%s)", strerrorname_np((int)-result) ? strerrorname_np((int)-result) : "?", strerrordesc_np((int)-result));
  else if (result > 0xffffff || result < 0) add(&line, " = %#llx", (unsigned long long)result);
  else add(&line, " = %lld", (long long)result);
  finish(&line);
  return result;
}

static void after_fork_parent(uint64_t flags, int64_t pid) {
  struct line line = {.length = 0};
  add(&line, "clone(flags=%#llx) = %lld", (unsigned long long)flags, (long long)pid);
  finish(&line);
}

__attribute__((visibility("default"))) int zps_hook_open(const struct zps_engine* given, struct zps_hook* hook) {
  engine = given;
  const int copy = fcntl(2, F_DUPFD_CLOEXEC, 500); /* programs close their stderr before they end */
  if (copy >= 0) trace_fd = copy;
  for (const char* const* entry = engine->environment; *entry; entry++) {
    if (strncmp(*entry, "ZPS_TRACE_FD=", 13) == 0) trace_fd = atoi(*entry + 13);
  }
  for (size_t i = 0; i < sizeof kFormats / sizeof kFormats[0]; i++) format_of[kFormats[i].nr] = kFormats[i].arguments;
  for (size_t i = 0; i < sizeof kEngines / sizeof kEngines[0]; i++) is_engines[kEngines[i]] = 1;
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  hook->after_fork_parent = after_fork_parent;
  memset(hook->claim, ZPS_CLAIM_FULL, sizeof hook->claim);
  return 0;
}
