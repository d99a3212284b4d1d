/* A hook that claims every call, lets every call pass, and bears witness in the file that ZPS_WITNESS names.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * Each program it is loaded into adds a line with its path. So a test knows that the programs it compares were hooked, and all their sites
 * are rewritten.
 *
 * And each call that would have reached the kernel unseen adds a line: "escaped", path, number, address, file. The kernel is asked for
 * them: it dispatches (Syscall User Dispatch) whatever is called from outside libzpstack.so while the program's own code runs. The engine
 * serves such a call as it does in mode sud, and it comes here with its instruction unchanged. So do calls of a file that no table
 * describes, which the engine dispatches itself: a case names such programs. The kernel forgets to dispatch in each new thread and process,
 * so whoever comes here for the first time is told.
 *
 * Left out are calls of code that the program makes itself, which are the engine's to trap; the vDSO's (docs/hook.md); and whoever
 * shuts himself in with seccomp.
 *
 * General registers only, no libc but at start. */
#include <asm/unistd.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "zpoline/hook.h"

enum { kSetDispatch = 59, kAllBut = 1, kOff = 0, kSetSeccomp = 22, kMostReports = 20 };

static const struct zps_engine* engine;
static const char* witness;
static unsigned long own_begin, own_end; /* libzpstack.so's text */
static volatile int watching;
static unsigned generation, reports;
#define IN_STATIC_TLS __attribute__((tls_model("initial-exec"))) /* else ld.so allocates it with the program's malloc */
static __thread long armed_thread IN_STATIC_TLS;
static __thread unsigned armed_generation IN_STATIC_TLS;

static long kernel(long nr, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
  return result;
}

/* One line of /proc/self/maps: where the mapping lies, whether it is code, and its file. */
struct mapping {
  unsigned long begin, end;
  int code;
  char file[256];
};
struct maps {
  long fd;
  long filled, at;
  char buffer[512];
};

static int take(struct maps* maps) {
  if (maps->at == maps->filled) {
    maps->at = 0;
    maps->filled = kernel(__NR_read, maps->fd, (long)maps->buffer, sizeof maps->buffer, 0, 0);
  }
  return maps->filled <= 0 ? -1 : maps->buffer[maps->at++];
}

static unsigned long take_hex(struct maps* maps, int end) {
  unsigned long value = 0;
  for (int c = take(maps); c >= 0 && c != end; c = take(maps)) value = value << 4 | (unsigned long)(c <= '9' ? c - '0' : c - 'a' + 10);
  return value;
}

static int next_mapping(struct maps* maps, struct mapping* mapping) {
  unsigned length = 0;
  int in_file = 0;
  mapping->begin = take_hex(maps, '-');
  mapping->end = take_hex(maps, ' ');
  for (int i = 0; i < 4; i++) mapping->code = i == 2 ? take(maps) == 'x' : (take(maps), mapping->code);
  for (int c = take(maps); c != '\n'; c = take(maps)) {
    if (c < 0) return 0;
    in_file |= c == '/' || c == '[';
    if (in_file && length < sizeof mapping->file - 1) mapping->file[length++] = (char)c;
  }
  mapping->file[length] = '\0';
  return 1;
}

static int find_mapping(unsigned long address, struct mapping* mapping) {
  struct maps maps = {kernel(__NR_open, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC, 0, 0, 0), 0, 0, {0}};
  int found = 0;
  while (maps.fd >= 0 && !found && next_mapping(&maps, mapping)) found = address >= mapping->begin && address < mapping->end;
  if (maps.fd >= 0) kernel(__NR_close, maps.fd, 0, 0, 0, 0);
  return found;
}

static char* put_text(char* out, const char* end, const char* text) {
  while (out < end && *text != '\0') *out++ = *text++;
  return out;
}

static char* put_number(char* out, const char* end, unsigned long number, unsigned base) {
  char digits[24];
  unsigned count = 0;
  do digits[count++] = "0123456789abcdef"[number % base];
  while ((number /= base) != 0);
  while (count > 0 && out < end) *out++ = digits[--count];
  return out;
}

static void append(const char* line, long bytes) {
  const long fd = kernel(__NR_open, (long)witness, O_WRONLY | O_APPEND | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) return; /* a program in another root or with another user: it has no mark to leave */
  kernel(__NR_write, fd, (long)line, bytes, 0, 0);
  kernel(__NR_close, fd, 0, 0, 0, 0);
}

static char* put_own_path(char* out, const char* end) {
  const long length = kernel(__NR_readlink, (long)"/proc/self/exe", (long)out, end - out, 0, 0);
  return length > 0 ? out + length : out;
}

static void report(const struct zps_call* call) {
  struct mapping mapping;
  char line[1024];
  const char* end = line + sizeof line - 1;
  if (__atomic_add_fetch(&reports, 1, __ATOMIC_RELAXED) > kMostReports) return;
  if (!find_mapping(call->return_address - 2, &mapping) || mapping.file[0] != '/') return; /* made code, vDSO */
  char* out = put_text(line, end, "escaped ");
  out = put_own_path(out, line + 400);
  out = put_number(put_text(out, end, " "), end, (unsigned long)call->nr, 10);
  out = put_number(put_text(out, end, " 0x"), end, call->return_address - 2 - mapping.begin, 16);
  out = put_text(put_text(out, end, " "), end, mapping.file);
  *out++ = '\n';
  append(line, out - line);
}

/* True if the call's instruction is what it was, and no jump stands before it: nobody has rewritten it. */
static int is_untouched(const unsigned char* after) {
  const int system_call = after[-2] == 0x0f && (after[-1] == 0x05 || after[-1] == 0x34);
  return system_call && !(((unsigned long)after & 4095) >= 7 && after[-7] == 0xe9);
}

static void arm(long thread) {
  armed_thread = thread;
  armed_generation = generation;
  kernel(__NR_prctl, kSetDispatch, kAllBut, (long)own_begin, (long)(own_end - own_begin), (long)&engine->thread()->selector);
}

static void watch(const struct zps_call* call) {
  const int seccomp = call->nr == __NR_seccomp || (call->nr == __NR_prctl && call->arg[0] == kSetSeccomp);
  if (seccomp) {
    watching = 0;
    kernel(__NR_prctl, kSetDispatch, kOff, 0, 0, 0);
    return;
  }
  if (is_untouched((const unsigned char*)call->return_address)) report(call);
  const long thread = kernel(__NR_gettid, 0, 0, 0, 0, 0);
  if (armed_thread != thread || armed_generation != generation) arm(thread);
  const int memory = call->nr == __NR_mmap || call->nr == __NR_mprotect || call->nr == __NR_pkey_mprotect;
  if (memory && (call->arg[2] & PROT_EXEC)) generation++; /* the engine may arm threads itself, with less */
}

static int64_t on_syscall(struct zps_call* call) {
  if (watching) watch(call);
  return ZPS_PASS;
}

static void find_engine(void) {
  struct mapping mapping;
  if (!find_mapping((unsigned long)engine->thread, &mapping)) return;
  own_begin = mapping.begin;
  own_end = mapping.end;
  watching = engine->mode[0] == 'z' || engine->mode[0] == 'n'; /* in mode sud the engine watches */
}

__attribute__((visibility("default"))) int zps_hook_open(const struct zps_engine* given, struct zps_hook* hook) {
  static const char kName[] = "ZPS_WITNESS=";
  char line[4096];
  engine = given;
  for (const char* const* entry = engine->environment; *entry; entry++) {
    if (strncmp(*entry, kName, sizeof kName - 1) == 0) witness = *entry + sizeof kName - 1;
  }
  if (witness != NULL) {
    char* out = put_own_path(line, line + sizeof line - 1);
    *out++ = '\n';
    append(line, out - line);
    find_engine();
  }
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  memset(hook->claim, ZPS_CLAIM_GENERAL, sizeof hook->claim);
  return 0;
}
