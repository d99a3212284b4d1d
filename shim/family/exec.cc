// The old program's part: what is handed on, and how it is called off.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/exec.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/log.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/file_limit.h"
#include "shim/family/process.h"
#include "shim/family/service.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"
#include "shim/files/routing.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

std::atomic<int> ticket_fd{-1};

// True if the file of an exec is there and may be run: the usual failures (a search along PATH) must not cost a connection.
bool will_exec(const zps_call& call) noexcept {
  const bool at = call.nr == SYS_execveat;
  const long directory = at ? call.arg[0] : AT_FDCWD;
  const long path = at ? call.arg[1] : call.arg[0];
  const long flags = at ? call.arg[4] & AT_EMPTY_PATH : 0;
  struct stat status;
  if (kernel_call(SYS_newfstatat, directory, path, as_arg(&status), flags) != 0 || !S_ISREG(status.st_mode)) return false;
  return kernel_call(SYS_faccessat2, directory, path, X_OK, AT_EACCESS | flags) == 0;
}

// Whether this process, which has no stack, is free to look at what it executes: it may have shut itself in.
bool may_leave_place() noexcept {
  for (const long nr : {SYS_newfstatat, SYS_faccessat2, SYS_access, SYS_openat, SYS_fstat, SYS_pread64, SYS_fgetxattr, SYS_close,
                        SYS_getpid, SYS_memfd_create, SYS_pwrite64}) {
    if (!base::may_call(nr)) return false;
  }
  return true;
}

// How many files the next program should have on Linux: of the stack, and others that it may listen with.
struct Survivors {
  int of_stack = 0, bound = 0;
};
Survivors count_survivors() noexcept {
  Survivors count;
  const Guard guard;
  for_each_entry(my_slot, [&](int fd, Counted* entry) {
    if (!goes_along(entry) || (kernel_call(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC) != 0) return;
    (is_of_stack(entry) ? count.of_stack : count.bound)++;
  });
  return count;
}

// Nobody but this thread comes to the lock from here on.
void keep_others_out() noexcept {
  Guard::may_exit = true;
  while (true) {
    const bool is_first = !exiting.exchange(true);
    if (is_first) break;
    Guard::may_exit = false;
    park_while_exiting();
    Guard::may_exit = true;
  }
  exec_began_ns.store(base::monotonic_ns());
  service_stop();
  if (the_stack()->lock.favour_allowed()) the_stack()->lock.forbid_favour();
}

// What before_exec() returns for it, or 0.
int64_t hand_on(const zps_call& call, int survivors) noexcept {
  const char* why = why_not_survive(call);
  if (why == nullptr) {
    keep_others_out();
    {
      const Guard guard;
      forget_placeholders();
      guard.stack()->flush();
    }
    service_leave_duty();
    const int fd = base::move_fd_high(write_ticket(my_slot));
    ticket_fd.store(fd);
    if (fd > 0) {
      base::keep_across_exec(true);
      return fd;
    }
    call_exec_off();
    Guard::may_exit = false;
    why = "no memory file can be made for them";
  }
  tell_lost(survivors, why);
  return 0;
}

}  // namespace

// A member that hands nothing on, and is not the last one that lives, leaves its references to the service of the others: the lock on its
// slot's byte goes with life_fd, which is close-on-exec, and only if the exec succeeds. The last one says goodbye itself.
int64_t before_exec(zps_call* call) noexcept {
  int64_t place = 0;
  if (file_limit_is_kept() && will_exec(*call)) hand_file_limit_on();
  if (!kernel_only() && the_stack() == nullptr && may_leave_place() && will_exec(*call)) {
    if (engine->leaves_hook(call) == nullptr) make_stack_for_bound_sockets();
    if (the_stack() == nullptr) place = leave_place(*call);
  }
  if (in_vfork_child()) {
    const int64_t ticket = place != 0 ? place : hand_on_from_vfork(*call);
    if (ticket == 0 && will_exec(*call)) lower_address_limit();
    return ticket;
  }
  if (netstack::has_kept_rights() && will_exec(*call)) netstack::let_rights_go();
  if (kernel_only() || the_stack() == nullptr || !will_exec(*call)) return place;
  if (const Survivors survivors = count_survivors(); survivors.of_stack + survivors.bound > 0 || hands_on_unix_socket()) {
    const int64_t ticket = hand_on(*call, survivors.of_stack);
    if (ticket > 0) return ticket;
  }
  lower_address_limit();
  if (!service_none_but_this()) return 0;
  netstack::Stack* stack;
  {
    Guard guard;
    stack = guard.stack();
    for_each_entry(my_slot, [](int fd, Counted*) { table_clear(fd); });
  }
  linger(stack, kFarewellNs);
  return 0;
}

void call_exec_off() noexcept {
  if (exec_began_ns.exchange(0) == 0) return;
  base::keep_across_exec(false);
  if (const int fd = ticket_fd.exchange(-1); fd >= 0) (void)base::close_high_fd(fd);
  exiting.store(false);
}

void after_failed_exec() noexcept {
  take_place_back();
  raise_address_limit();
  if (in_vfork_child()) return take_back_in_vfork();
  if (exec_began_ns.load() == 0) return;
  call_exec_off();
  Guard::may_exit = false;
}

}  // namespace shim
