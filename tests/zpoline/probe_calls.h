// Call numbers that Linux does not have and the probe hook answers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

enum ProbeCall {
  kProbeGeneral = 500,  // trashes what a general-registers-only hook may; returns arg0 + 1
  kProbeSse = 501,      // trashes xmm0-15 as well
  kProbeFull = 502,     // trashes all vector state, mxcsr and x87
  kProbeSleep = 503,    // engine->sleep(read, arg0, arg1, arg2)
  kProbeWords = 504,    // how the first handler since the last look left the interrupted call: 0 none ran, 1 it ends, 2 it is restarted
  kProbeSpin = 505,     // *(int*)arg0 = 1, then waits until a signal is pending; returns *(int*)arg1 as it is then
  kProbeForks = 506,    // how often before_fork, after_fork_parent, after_fork_child ran: 1, 100, 10000 each
  kProbeInside = 507,   // returns `inside`
};
