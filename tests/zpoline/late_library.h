// What a late library and the test that loads it agree on.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

struct LateAnswers {
  long answer;          // LATE_ANSWER
  long in_constructor;  // the probe of 41, made by the constructor
  long probed;          // the probes of `answer`
  long probed_full;
  long process;  // getpid(), through an IRELATIVE function
};

// A page that the test maps: the resolver meets another thread there. `wanted`: 0 no meeting, 1 asked for by the test, 2 the resolver has
// given the sites and waits, 3 the other thread runs them, 4 it may stop, 5 it has stopped.
struct LateMeeting {
  int wanted;
  int rows;        // of kLateShapes sites each
  uint64_t sites;  // functions of one argument that make the call kProbeGeneral, kLateSiteBytes apart
};
constexpr uint64_t kLateMeeting = 0x5ee0'0000'0000;
constexpr int kLateShapes = 4;
constexpr int kLateSiteBytes = 128;
constexpr int kLateLoadAt[kLateShapes] = {0, 57, 0, 60};  // where in a function the eight bytes begin that load and system call are in

extern "C" LateAnswers late_answers();
