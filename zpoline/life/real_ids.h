// A real user or group other than the effective one, across an exec.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. ld.so ignores LD_PRELOAD in a program that the kernel marks AT_SECURE, and every program is that is executed with a real
// user or group other than the effective one (Linux: security/commoncap.c, cap_bprm_creds_from_file()). Daemons do that to themselves:
// squid's master is the user proxy with root's rights when it executes itself as the process that serves. That one would be on the kernel,
// and nobody would be told.
//
// How. If it is the file that this process runs, which is hooked here and so will be there, and the effective user is root, who may set all
// of this, then the real ids are the effective ones while the exec is made. The next engine sets them back before anything of the program
// runs; they come in a variable of the environment, which goes then. Of any other program one line says that it is not hooked.
//
// What AT_SECURE is for is done here: the variables that ld.so would have removed are, and none of ours comes from the new list, but from
// the start of this program, which was not AT_SECURE.
//
// Known limits: where /proc is not seen, the line comes.
//
// Sources: credentials(7); ld.so(8), secure-execution mode; glibc sysdeps/generic/unsecvars.h.
#pragma once

#include "zpoline/hook.h"

namespace zpoline {

// For the time of an exec: ends when that has failed.
class RealIds {
 public:
  // `stays_hooked`: whether the environment would make the next program one of ours.
  RealIds(const zps_call& call, bool stays_hooked) noexcept;
  ~RealIds();
  RealIds(const RealIds&) = delete;
  RealIds& operator=(const RealIds&) = delete;

  // Whether the next engine has something to set back, and what is added to the environment then.
  [[nodiscard]] bool differ() const noexcept { return *entry_ != '\0'; }
  [[nodiscard]] const char* entry() const noexcept { return entry_; }

 private:
  long user_ = 0, group_ = 0;
  char entry_[48] = {};
};

// Whether real and effective user or group differ now.
[[nodiscard]] bool is_other_than_effective() noexcept;

// True for a variable that ld.so removes from the environment of an AT_SECURE program.
[[nodiscard]] bool is_unsafe(const char* entry) noexcept;

// At the start of a program, in its only thread: sets back what came with the environment, which no longer has it afterwards.
void take_real_ids(char** environment) noexcept;

}  // namespace zpoline
