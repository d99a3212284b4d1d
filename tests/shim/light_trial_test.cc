// Whether processors are asked to sleep lightly because sending is cheaper then.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/light_trial.h"

#include <gtest/gtest.h>

namespace shim {
namespace {

constexpr uint64_t kMomentNs = 100'000'000, kSecondNs = 1'000'000'000;
constexpr uint64_t kMany = 1000;

// A server under load on a machine where a message costs so much while idle processors sleep deeply, and so much while they do not.
struct Load {
  uint64_t dark_cost, light_cost;
  LightTrial trial{};
  uint64_t now_ns = 0;
  bool light = false;
  int light_moments = 0;

  void moments(uint64_t ns, uint64_t messages = kMany) {
    for (const uint64_t end_ns = now_ns + ns; now_ns < end_ns;) {
      now_ns += kMomentNs;
      light_moments += light ? 1 : 0;
      light = trial.judge(now_ns, light, messages, messages * (light ? light_cost : dark_cost));
    }
  }
};

TEST(LightTrial, StaysLightWhereSendingIsCheaperThen) {
  Load load{.dark_cost = 30'000, .light_cost = 15'000};
  load.moments(60 * kSecondNs);
  EXPECT_TRUE(load.light);
  EXPECT_GE(load.light_moments, 590);  // of 600: now and then one is dark, to compare with
}

TEST(LightTrial, TriesMoreAndMoreSeldomWhereItIsNot) {
  Load load{.dark_cost = 15'000, .light_cost = 14'500};
  load.moments(600 * kSecondNs);
  EXPECT_FALSE(load.light);
  EXPECT_GE(load.light_moments, 10);
  EXPECT_LE(load.light_moments, 30);  // of 6000
}

TEST(LightTrial, NoticesThatItHasCeasedToHelp) {
  Load load{.dark_cost = 30'000, .light_cost = 15'000};
  load.moments(5 * kSecondNs);
  ASSERT_TRUE(load.light);
  load.dark_cost = 15'000;  // the client has more to do now, and its processor is awake anyway
  load.light_moments = 0;
  load.moments(60 * kSecondNs);
  EXPECT_LE(load.light_moments, 110);
}

TEST(LightTrial, WhatWasLightForAnotherReasonIsNoMomentToCompareWith) {
  Load load{.dark_cost = 30'000, .light_cost = 15'000, .light = true};
  load.moments(5 * kMomentNs);
  EXPECT_TRUE(load.light);
  EXPECT_EQ(load.light_moments, 4);  // all but the second
}

TEST(LightTrial, EndsWithTheLoad) {
  Load load{.dark_cost = 30'000, .light_cost = 15'000};
  load.moments(kSecondNs);
  ASSERT_TRUE(load.light);
  load.moments(kMomentNs, 3);
  EXPECT_FALSE(load.light);
  load.moments(kMomentNs, 0);
  EXPECT_FALSE(load.light);
  load.moments(3 * kMomentNs);
  EXPECT_TRUE(load.light);
}

}  // namespace
}  // namespace shim
