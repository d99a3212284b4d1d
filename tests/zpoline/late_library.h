// What a late library and the test that loads it agree on.
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
// given the site and waits, 3 the other thread runs the site, 4 it may stop, 5 it has stopped.
struct LateMeeting {
  int wanted;
  int which;  // of the sites, 0..3
  long (*site)();
};
constexpr uint64_t kLateMeeting = 0x5ee0'0000'0000;
constexpr int kLateSites = 4;

extern "C" LateAnswers late_answers();
