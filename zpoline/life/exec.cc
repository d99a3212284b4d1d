// The environment of the next program.
// SPDX-License-Identifier: BSD-3-Clause
//
// A prefixed program stays prefixed through its children, also where it builds a new environment for them (env -i, sshd,
// CGI, posix_spawn with its own list). What is missing is put back:
// LD_PRELOAD if it does not name libzpstack.so, and each ZPS_ variable of our own start that the new list does not set. A program whose
// start had ZPS_INHERIT=no, or a list with ZPS_HOOK=off, gets exactly its list.
//
// What is put back is a copy made at the start: programs that set their title (sshd, nginx, redis) write over the environment they got.
//
// The new list lies on the stack: after a vfork the memory is the parent's, and nothing may stay behind. ld.so ignores
// LD_PRELOAD paths in setuid programs by itself; 32-bit programs never look (32-bit ld.so prints one line).
//
// Static programs. Where `zpstack run` was the beginning, ZPS_PROGRAM comes with each environment, and names the file if that is static:
// then zpstack-static is executed in its place (static_program.h). A script whose interpreter is static runs on the kernel.
//
// Known limit: a list of over 1400 entries goes through as it is.
#include "zpoline/life/exec.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "base/syscall.h"
#include "zpoline/life/copy.h"
#include "zpoline/life/inherited.h"
#include "zpoline/life/next_program.h"
#include "zpoline/life/real_ids.h"
#include "zpoline/engine.h"
#include "zpoline/life/signals.h"
#include "zpoline/life/static_program.h"

namespace zpoline {
namespace {

constexpr char kProgram[] = "ZPS_PROGRAM=";
constexpr size_t kProgramBytes = sizeof kProgram - 1;
constexpr size_t kMaxKept = 24;
constexpr size_t kMaxEntries = 1400;

const char* kept[kMaxKept];  // "LD_PRELOAD=..." first, then ZPS_*
size_t kept_count = 0;
const char* own_library = nullptr;
bool inherit = true;
char static_host[4096];  // zpstack-static, beside the library; empty: static programs are left to the kernel

bool starts_with(const char* text, const char* prefix) noexcept { return strncmp(text, prefix, strlen(prefix)) == 0; }

bool same_name(const char* a, const char* b) noexcept {
  while (*a != '\0' && *a == *b && *a != '=') a++, b++;
  return *a == '=' && *b == '=';
}

bool mentions(const char* text, const char* word) noexcept {
  const size_t length = strlen(word);
  for (; *text != '\0'; text++) {
    if (strncmp(text, word, length) == 0) return true;
  }
  return false;
}

// The number of entries, or a negative errno if the list is not readable.
int64_t count_entries(int64_t list) noexcept {
  if (list == 0) return 0;
  uint64_t probe = 0;
  if (!copy_in(&probe, static_cast<uint64_t>(list), sizeof probe)) return -EFAULT;
  int64_t count = 0;
  for (auto entries = reinterpret_cast<const char* const*>(list); entries[count] != nullptr; count++) continue;
  return count;
}

struct NewList {
  const char* entries[kMaxEntries + kMaxKept + 4];
  char preload[1024];
  char inheritance[40];
  char program[4096 + 16];
  size_t count = 0;
};

// LD_PRELOAD=<ours>:<what the program wants>; false if that is too long.
bool join_preload(NewList& list, const char* wanted) noexcept {
  const char* parts[] = {"LD_PRELOAD=", own_library, ":", wanted + strlen("LD_PRELOAD=")};
  size_t at = 0;
  for (const char* part : parts) {
    const size_t length = strlen(part);
    if (at + length + 1 > sizeof list.preload) return false;
    memcpy(list.preload + at, part, length);
    at += length;
  }
  list.preload[at] = '\0';
  return true;
}

// Whether the list goes through as it is.
bool is_left_alone(const char* const* old, int64_t entries) noexcept {
  if (!inherit || entries < 0 || static_cast<size_t>(entries) > kMaxEntries) return true;
  for (int64_t i = 0; i < entries; i++) {
    if (strcmp(old[i], "ZPS_HOOK=off") == 0) return true;
  }
  return false;
}

void fill(NewList& list, const char* const* old, int64_t entries, const RealIds& real_ids, int inherited) noexcept {
  for (int64_t i = 0; i < entries; i++) {
    const char* entry = old[i];
    if (real_ids.differ() && (is_unsafe(entry) || starts_with(entry, "ZPS_"))) continue;
    if (starts_with(entry, "LD_PRELOAD=") && !mentions(entry, "libzpstack.so") && join_preload(list, entry)) entry = list.preload;
    list.entries[list.count++] = entry;
  }
  for (size_t k = 0; k < kept_count; k++) {
    bool present = false;
    for (size_t i = 0; i < list.count && !present; i++) present = same_name(list.entries[i], kept[k]);
    if (!present) list.entries[list.count++] = kept[k];
  }
  if (real_ids.differ()) list.entries[list.count++] = real_ids.entry();
  if (inherited > 0) {
    write_inheritance(inherited, list.inheritance, sizeof list.inheritance);
    list.entries[list.count++] = list.inheritance;
  }
  if (*list.program != '\0') list.entries[list.count++] = list.program;
  list.entries[list.count] = nullptr;
}

int environment_of(const zps_call& call) noexcept { return call.nr == SYS_execve ? 2 : 3; }

// The variable that says that static programs are run here as well, and which. False if the call cannot be looked at.
bool prepare_static(const zps_call& call, NewList& list) noexcept {
  const char* const file = reinterpret_cast<const char*>(call.nr == SYS_execveat ? call.arg[1] : call.arg[0]);
  char first = 0;
  if (!copy_in(&first, reinterpret_cast<uint64_t>(file), 1)) return false;
  memcpy(list.program, kProgram, kProgramBytes + 1);
  char* const path = list.program + kProgramBytes;
  const char* const own = static_program_path();
  if (own != nullptr && call.nr == SYS_execve && strcmp(file, "/proc/self/exe") == 0) {
    memcpy(path, own, strlen(own) + 1);
  } else if (!names_static_program(call, path, sizeof list.program - kProgramBytes)) {
    *path = '\0';
  }
  return true;
}

int64_t exec_with_list(zps_call* call, int environment_at, int inherited) noexcept {
  const auto old = reinterpret_cast<const char* const*>(call->arg[environment_at]);
  const int64_t entries = count_entries(call->arg[environment_at]);
  const bool left_alone = is_left_alone(old, entries);
  const RealIds real_ids(*call, !left_alone);
  NewList list;
  int64_t arg[6];
  memcpy(arg, call->arg, sizeof arg);
  int64_t nr = call->nr;
  *list.program = '\0';
  if (!left_alone && *static_host != '\0' && prepare_static(*call, list) && list.program[kProgramBytes] != '\0') {
    nr = SYS_execve;
    arg[0] = base::as_arg(static_host);
    arg[1] = call->arg[environment_at - 1];
    environment_at = 2;
  }
  if (!left_alone) {
    fill(list, old, entries, real_ids, inherited);
    arg[environment_at] = reinterpret_cast<int64_t>(list.entries);
  }
  return base::kernel_call(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

}  // namespace

bool remember_environment(const char* const* environment, const char* library) noexcept {
  own_library = library;
  size_t bytes = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (const char* const* entry = environment; *entry != nullptr && kept_count < kMaxKept; entry++) {
      if (strcmp(*entry, "ZPS_INHERIT=no") == 0) inherit = false;
      if (!starts_with(*entry, pass == 0 ? "LD_PRELOAD=" : "ZPS_")) continue;
      kept[kept_count++] = *entry;
      bytes += strlen(*entry) + 1;
    }
  }
  if (bytes == 0) return true;
  const int64_t place =
      base::kernel_call(SYS_mmap, 0, static_cast<int64_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place < 0 && place > -4096) return false;
  auto* at = reinterpret_cast<char*>(place);
  for (size_t k = 0; k < kept_count; k++) {
    const size_t length = strlen(kept[k]) + 1;
    memcpy(at, kept[k], length);
    kept[k] = at;
    at += length;
  }
  return true;
}

void run_static_programs(const char* library) noexcept {
  constexpr char kHost[] = "zpstack-static";
  const char* const slash = strrchr(library, '/');
  const size_t folder = slash != nullptr ? static_cast<size_t>(slash + 1 - library) : 0;
  if (folder + sizeof kHost > sizeof static_host) return;
  memcpy(static_host, library, folder);
  memcpy(static_host + folder, kHost, sizeof kHost);
  if (base::kernel_call(SYS_access, base::as_arg(static_host), 1) != 0) *static_host = '\0';
}

const char* leaves_hook(const zps_call* call) noexcept {
  const int64_t list = call->arg[environment_of(*call)];
  if (is_left_alone(reinterpret_cast<const char* const*>(list), count_entries(list))) return "its environment leaves the stack out";
  if (is_other_than_effective()) return "its real user or group is another than its effective one";
  return is_out_of_reach(*call, own_library, *static_host != '\0');
}

int64_t program_exec(zps_call* call) noexcept {
  int64_t inherited = 0;
  if (hook.before_exec != nullptr) {
    inherited = hook.before_exec(call);
    if (inherited < 0) return inherited;
  }
  zps_leave();  // handlers may run until the kernel takes over, and no mask of ours goes to the next program
  give_signals_back();
  const int64_t result = exec_with_list(call, environment_of(*call), static_cast<int>(inherited));
  take_signals_again();
  enter_hook(this_thread());
  if (hook.after_failed_exec != nullptr) hook.after_failed_exec();
  return result;
}

}  // namespace zpoline
