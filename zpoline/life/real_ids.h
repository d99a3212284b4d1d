// A real user or group other than the effective one, across an exec.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. ld.so ignores LD_PRELOAD in a program that the kernel marks AT_SECURE, and every program is that is executed with a real user or group
// other than the effective one (Linux: security/commoncap.c, cap_bprm_creds_from_file()). Daemons do that to themselves: squid's master is the user
// proxy with root's rights when it executes itself as the process that serves. That one would be on the kernel, and nobody would be told.
//
// How. If it is the file that this process runs, which is hooked here and so will be there, and the effective user is root, who may set all of this, then
// the real ids are the effective ones while the exec is made. The next engine sets them back before anything of the program runs; they
// come in a variable of the environment, which goes then. Of any other program one line says that it is not hooked.
//
// Nobody gets rights that he had not: AT_SECURE protects a program from the environment of a user who has fewer; this environment came from a process that
// was hooked itself, hence not of such a user, and has root's rights.
//
// Known limits: where /proc is not seen, the line comes.
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

  // What is to be added to the environment; nullptr: nothing.
  [[nodiscard]] const char* entry() const noexcept { return *entry_ != '\0' ? entry_ : nullptr; }

 private:
  long user_ = 0, group_ = 0;
  char entry_[48] = {};
};

// At the start of a program, in its only thread: sets back what came with the environment, which no longer has it afterwards.
void take_real_ids(char** environment) noexcept;

}  // namespace zpoline
