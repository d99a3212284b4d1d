// The shim's entry: what libzpstack.so calls after it has loaded this library, and the dispatch of every claimed call.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>
#include <sys/auxv.h>

#include <cstring>
#include <malloc.h>

#include "base/log.h"
#include "base/own_thread.h"
#include "base/permitted.h"
#include "base/stopped_owner.h"
#include "base/syscall.h"
#include "base/user_copy.h"
#include "netstack/make_stack.h"
#include "shim/family/exec.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/family_memory.h"
#include "shim/family/own_memory.h"
#include "shim/family/network.h"
#include "shim/calls/ledger.h"
#include "shim/calls/page_zero_pointers.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/family/succession.h"
#include "shim/calls/syscall_table.h"
#include "shim/family/test_hook.h"
#include "shim/family/wait.h"
#include "shim/thread_storage.h"

extern "C" [[gnu::visibility("hidden")]] const char _end[];  // the linker's

namespace shim {
namespace {

long (*handlers[ZPS_NR_COUNT])(const zps_call& call) noexcept;
bool counting = false;

int64_t on_syscall(zps_call* call) noexcept {
  long result = handlers[call->nr](*call);
  while (result == kRestart) [[unlikely]] result = handlers[call->nr](*call);
  if (counting) [[unlikely]] {
    const bool refused = result == -ENOPROTOOPT || result == -EOPNOTSUPP || result == -ENOSYS;
    count_call(call->nr, result == ZPS_PASS ? Outcome::passed : refused ? Outcome::refused : Outcome::served);
  }
  return result;
}

// What a setting means for this library.
void heed_config() noexcept {
  base::set_log_level(config.log);
  counting = config.ledger;
  base::set_patience_ms(config.patience_ms);
}

const char* name_in(const char* path) noexcept {
  const char* const slash = strrchr(path, '/');
  return slash != nullptr ? slash + 1 : path;
}

// The rules for this program: by the name that was executed (a script's is not its interpreter's), or that of what it is a link to.
void keep_own_rules() noexcept {
  if (config.rules.count == 0) return;
  const auto* const executed = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  char file[512];
  const long length =
      base::kernel_call(SYS_readlinkat, AT_FDCWD, base::as_arg("/proc/self/exe"), base::as_arg(file), static_cast<long>(sizeof file - 1));
  file[length > 0 ? length : 0] = '\0';
  base::keep_rules_of(&config.rules, executed != nullptr ? name_in(executed) : "", name_in(file));
}

bool read_config() noexcept {
  auto loaded = base::load_config(engine->environment, base::kConfigFile, config_origins);
  if (!loaded) {
    base::log(base::LogLevel::error, "%s", loaded.error().text);
    return false;
  }
  config = *loaded;
  leave_network_of_file();
  keep_own_rules();
  heed_config();
  return true;
}

// The child of a vfork exits for itself alone: the ledger is its parent's.
void on_exit(int64_t status) noexcept {
  if (!kernel_only() && engine->thread()->vfork_child == 0) print_ledger();
  before_exit(status);
}

void fill(zps_hook* hook) noexcept {
  const bool has_page_zero = strcmp(engine->mode, "zpoline") == 0;
  if (has_page_zero) note_page_zero();
  for (const SyscallRow& row : syscall_rows()) {
    handlers[row.nr] = has_page_zero ? row.handler_with_page_zero : row.handler;
    hook->claim[row.nr] = row.claim;
  }
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  hook->before_fork = before_fork;
  hook->after_fork_parent = after_fork_parent;
  hook->after_fork_child = after_fork_child;
  hook->before_exec = before_exec;
  hook->after_failed_exec = after_failed_exec;
  hook->before_exit = on_exit;
  hook->fault_begin = reinterpret_cast<uint64_t>(zps_user_copy_begin);
  hook->fault_end = reinterpret_cast<uint64_t>(zps_user_copy_end);
  hook->fault_resume = reinterpret_cast<uint64_t>(zps_user_copy_fault);
}

// In a copy of this library, what zps_hook_open() does at a program's start, as far as it is not done for the process already.
bool take_over(const Legacy& legacy) noexcept {
  engine = legacy.engine;
  memset(engine->thread_storage(), 0, engine->thread_storage_bytes);  // as in a thread that begins
  if (!take_thread_storage(*engine)) return false;
  base::set_deadly_calls(engine->deadly_calls);
  base::adopt_thread_locals(legacy.thread_locals);
  base::adopt_fd_range(legacy.first_fd, legacy.fd_count);
  for (unsigned fd = 0; fd < base::kHighFdWords * 64; fd++) {
    if ((legacy.hidden[fd / 64] >> fd % 64 & 1) != 0) base::adopt_high_fd(static_cast<int>(fd));
  }
  netstack::use_image_file(legacy.image_file);
  config = *legacy.config;
  memcpy(config_origins, legacy.origins, sizeof config_origins);
  heed_config();
  family = legacy.family;
  my_slot = legacy.slot;
  adopt_own_memory(legacy.memory, {reinterpret_cast<uintptr_t>(__ehdr_start), reinterpret_cast<uintptr_t>(_end)});
  service_introduce();
  adopt_own_files();
  fill(legacy.hook);
  return true;
}

}  // namespace
}  // namespace shim

extern "C" [[gnu::visibility("default")]] int zps_hook_open(const zps_engine* with, zps_hook* hook) {
  using namespace shim;
  if (with->abi != ZPS_HOOK_ABI || with->size < sizeof(zps_engine) || hook->size < sizeof(zps_hook)) {
    base::log(base::LogLevel::error, "libzpstack-core.so and libzpstack.so are of different versions");
    return -1;
  }
  engine = with;
  if (!take_thread_storage(*engine)) return -1;
  base::set_deadly_calls(engine->deadly_calls);
  (void)mallopt(M_ARENA_MAX, 1);  // threads of ours allocate when a wire is opened: each would reserve 64 MB of address space
  if (!base::note_thread_locals(engine->thread())) {
    base::log(base::LogLevel::error, "thread-local variables of libzpstack-core.so have no fixed place: it cannot make threads");
    return -1;
  }
  if (!read_config()) return -1;
  if (const auto prepared = netstack::prepare_wire(config.wire); !prepared) {
    base::log(base::LogLevel::error, "%s", prepared.error().text);
    return -1;
  }
  const bool inherits = inherit_family();
  if (!inherits && !map_family()) {
    base::log(base::LogLevel::error, "no address space for the family's memory: raise ulimit -v");
    return -1;
  }
  note_own_memory();
  if (!inherits) my_slot = &family->slots[0];
  service_introduce();
  arm_test_hook(engine->environment);
  if (inherits) settle_after_exec();
  fill(hook);
  prepare_succession(take_over);
  return 0;
}
