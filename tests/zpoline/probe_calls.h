// Call numbers that Linux does not have and the probe hook answers.
#pragma once

enum ProbeCall {
  kProbeGeneral = 400,  // trashes what a general-registers-only hook may; returns arg0 + 1
  kProbeSse = 401,      // trashes xmm0-15 as well
  kProbeFull = 402,     // trashes all vector state, mxcsr and x87
  kProbeSleep = 403,    // engine->sleep(read, arg0, arg1, arg2)
  kProbeWords = 404,    // returns ran_no_restart and clears it
  kProbeSpin = 405,     // *(int*)arg0 = 1, then waits until a signal is pending; returns *(int*)arg1 as it is then
  kProbeForks = 406,    // how often before_fork, after_fork_parent, after_fork_child ran: 1, 100, 10000 each
  kProbeInside = 407,   // returns `inside`
};
