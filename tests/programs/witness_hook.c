/* A hook that claims every call, lets every call pass, and leaves a mark: each program it is loaded into adds a line with its path to
 * the file that ZPS_WITNESS names. So a test knows that the programs it compares were hooked, and all their sites are rewritten. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "zpoline/hook.h"

static int64_t on_syscall(struct zps_call* call) {
  (void)call;
  return ZPS_PASS;
}

static void leave_mark(const char* file) {
  char line[4096];
  const ssize_t length = readlink("/proc/self/exe", line, sizeof line - 1);
  const int fd = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return; /* a program in another root or with another user: it has no mark to leave */
  if (length > 0) {
    line[length] = '\n';
    const ssize_t written = write(fd, line, (size_t)length + 1);
    (void)written;
  }
  close(fd);
}

__attribute__((visibility("default"))) int zps_hook_open(const struct zps_engine* engine, struct zps_hook* hook) {
  static const char kName[] = "ZPS_WITNESS=";
  for (const char* const* entry = engine->environment; *entry; entry++) {
    if (strncmp(*entry, kName, sizeof kName - 1) == 0) leave_mark(*entry + sizeof kName - 1);
  }
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  memset(hook->claim, ZPS_CLAIM_GENERAL, sizeof hook->claim);
  return 0;
}
