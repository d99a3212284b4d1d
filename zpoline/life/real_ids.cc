// Compares ids and files, and writes and reads the variable.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/real_ids.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdarg>
#include <cstdint>
#include <cstring>

#include "base/log.h"
#include "base/syscall.h"

namespace zpoline {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr char kName[] = "ZPS_REAL_IDS=";
constexpr size_t kNameBytes = sizeof kName - 1;
constexpr long kUnchanged = -1;

struct Ids {
  uint32_t real, effective, saved;
};

Ids ids_of(long nr) noexcept {
  Ids ids{};
  (void)kernel_call(nr, as_arg(&ids.real), as_arg(&ids.effective), as_arg(&ids.saved));
  return ids;
}

// What will be executed; false if there is no such file, or if the file itself says who runs it.
bool find_file(const zps_call& call, struct stat* out) noexcept {
  const bool at = call.nr == SYS_execveat;
  const long directory = at ? call.arg[0] : AT_FDCWD, path = at ? call.arg[1] : call.arg[0];
  const long flags = at ? call.arg[4] & AT_EMPTY_PATH : 0;
  if (kernel_call(SYS_newfstatat, directory, path, as_arg(out), flags) != 0) return false;
  return S_ISREG(out->st_mode) && (out->st_mode & (S_ISUID | S_ISGID)) == 0;
}

bool is_own_file(const struct stat& file) noexcept {
  struct stat own{};
  if (kernel_call(SYS_newfstatat, AT_FDCWD, as_arg("/proc/self/exe"), as_arg(&own), 0) != 0) return false;
  return own.st_dev == file.st_dev && own.st_ino == file.st_ino;
}

void write_entry(char* out, size_t capacity, const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  (void)base::format_line(out, capacity, format, arguments);
  va_end(arguments);
}

// The number at `*text`, and what is behind it and its comma.
long take_number(const char** text) noexcept {
  long value = 0;
  for (; **text >= '0' && **text <= '9'; (*text)++) value = value * 10 + (**text - '0');
  if (**text == ',') (*text)++;
  return value;
}

}  // namespace

RealIds::RealIds(const zps_call& call, bool stays_hooked) noexcept {
  const Ids users = ids_of(SYS_getresuid), groups = ids_of(SYS_getresgid);
  struct stat file{};
  if (users.real == users.effective && groups.real == groups.effective) return;
  if (!stays_hooked || !find_file(call, &file)) return;
  if (users.effective != 0 || !is_own_file(file) || kernel_call(SYS_setresgid, groups.effective, kUnchanged, kUnchanged) != 0) {
    base::log(base::LogLevel::warn,
              "a program is executed with another real user or group than its effective one: it runs without the stack");
    return;
  }
  user_ = users.real;
  group_ = groups.real;
  (void)kernel_call(SYS_setresuid, users.effective, kUnchanged, kUnchanged);
  write_entry(entry_, sizeof entry_, "%s%ld,%ld", kName, user_, group_);
}

RealIds::~RealIds() {
  if (!differ()) return;
  (void)kernel_call(SYS_setresgid, group_, kUnchanged, kUnchanged);
  (void)kernel_call(SYS_setresuid, user_, kUnchanged, kUnchanged);
}

bool is_other_than_effective() noexcept {
  const Ids users = ids_of(SYS_getresuid), groups = ids_of(SYS_getresgid);
  return users.real != users.effective || groups.real != groups.effective;
}

bool is_unsafe(const char* entry) noexcept {
  static constexpr const char* kNames[] = {
      "GCONV_PATH=", "GETCONF_DIR=", "GLIBC_TUNABLES=", "HOSTALIASES=", "LD_",    "LOCALDOMAIN=", "LOCPATH=", "MALLOC_", "NIS_PATH=",
      "NLSPATH=", "RES_OPTIONS=", "RESOLV_HOST_CONF=", "TMPDIR=", "TZDIR="};
  for (const char* name : kNames) {
    if (strncmp(entry, name, strlen(name)) == 0) return true;
  }
  return false;
}

void take_real_ids(char** environment) noexcept {
  for (; *environment != nullptr && strncmp(*environment, kName, kNameBytes) != 0;) environment++;
  if (*environment == nullptr) return;
  const char* text = *environment + kNameBytes;
  const long user = take_number(&text), group = take_number(&text);
  (void)kernel_call(SYS_setresgid, group, kUnchanged, kUnchanged);
  (void)kernel_call(SYS_setresuid, user, kUnchanged, kUnchanged);
  for (; *environment != nullptr; environment++) environment[0] = environment[1];
}

}  // namespace zpoline
