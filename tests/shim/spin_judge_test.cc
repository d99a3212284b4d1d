// Whether waits spin: by what spins brought, and by time that is missing.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/spin_judge.h"

#include <gtest/gtest.h>

namespace shim {
namespace {

// Waits until one spins; how many did not.
int waits_until_spin(SpinJudge& judge) {
  int waits = 0;
  while (!judge.should_spin()) waits++;
  return waits;
}

SpinJudge in_vain_for_long() {
  SpinJudge judge;
  for (int i = 0; i < 100; i++) judge.in_vain();
  return judge;
}

// A thread waits, and `others` more of the family between two of its waits.
void wait_often(GivingWay& thread, std::atomic<uint32_t>& waits, uint32_t others) {
  for (int i = 0; i < 200; i++) {
    waits += others;
    thread.note(waits);
  }
}

constexpr uint64_t kSecondNs = 1'000'000'000, kMillisecondNs = 1'000'000;

TEST(GivingWay, KnowsWhetherOthersWaitAsOften) {
  GivingWay thread;
  std::atomic<uint32_t> waits{0};
  EXPECT_TRUE(thread.is_alone());
  wait_often(thread, waits, 0);
  EXPECT_TRUE(thread.is_alone());
  wait_often(thread, waits, 1);
  EXPECT_FALSE(thread.is_alone());
  wait_often(thread, waits, 0);
  EXPECT_TRUE(thread.is_alone());
}

TEST(GivingWay, AnotherThatWaitsNowAndThenIsNone) {
  GivingWay thread;
  std::atomic<uint32_t> waits{0};
  for (int i = 0; i < 1000; i++) {
    if (i % 100 == 0) waits++;
    thread.note(waits);
    EXPECT_TRUE(thread.is_alone()) << i;
  }
}

TEST(GivingWay, WhoIsAloneGivesNothingToWhoTakesLong) {
  GivingWay thread;
  EXPECT_TRUE(thread.should(kSecondNs));
  EXPECT_FALSE(thread.was_too_long(kSecondNs, kMillisecondNs / 10));
  EXPECT_TRUE(thread.was_too_long(kSecondNs, 3 * kMillisecondNs));
  EXPECT_FALSE(thread.should(kSecondNs + 40 * kMillisecondNs));
  EXPECT_TRUE(thread.should(kSecondNs + 50 * kMillisecondNs));
}

TEST(GivingWay, TheTurnsOfMembersMayBeLong) {
  GivingWay thread;
  std::atomic<uint32_t> waits{0};
  wait_often(thread, waits, 8);
  EXPECT_FALSE(thread.was_too_long(kSecondNs, 3 * kMillisecondNs));
  EXPECT_TRUE(thread.should(kSecondNs));
}

TEST(SpinJudge, SpinsFromTheStartAndWhileSpinsAreAnswered) {
  SpinJudge judge;
  for (int i = 0; i < 1000; i++) {
    ASSERT_EQ(waits_until_spin(judge), 0);
    judge.answered();
  }
}

TEST(SpinJudge, ForgivesASpinInVainNowAndThen) {
  SpinJudge judge;
  for (int i = 0; i < 1000; i++) {
    ASSERT_EQ(waits_until_spin(judge), 0) << i;
    if (i % 4 == 0) judge.in_vain(); else judge.answered();
  }
}

TEST(SpinJudge, StopsAfterAFewSpinsInVain) {
  SpinJudge judge;
  int spins = 0;
  while (judge.should_spin()) {
    judge.in_vain();
    spins++;
  }
  EXPECT_GE(spins, 3);
  EXPECT_LE(spins, 8);
}

TEST(SpinJudge, TriesMoreAndMoreSeldomWithABound) {
  SpinJudge judge = in_vain_for_long();
  int longest = 0;
  for (int i = 0; i < 20; i++) {
    longest = waits_until_spin(judge);
    judge.in_vain();
  }
  EXPECT_GE(longest, 200);
  EXPECT_LE(longest, 300);
}

TEST(SpinJudge, AnAnsweredTryIsFollowedByTheNextUntilSpinningIsTheRuleAgain) {
  SpinJudge judge = in_vain_for_long();
  EXPECT_GT(waits_until_spin(judge), 0);
  for (int i = 0; i < 100; i++) {
    judge.answered();
    ASSERT_EQ(waits_until_spin(judge), 0) << i;
  }
  judge.in_vain();
  EXPECT_EQ(waits_until_spin(judge), 0) << "it has become the rule";
}

TEST(SpinJudge, OneOfFourAnsweredIsTooFew) {
  SpinJudge judge;
  int skipped = 0;
  for (int i = 0; i < 400; i++) {
    skipped += waits_until_spin(judge);
    if (i % 4 == 0) judge.answered(); else judge.in_vain();
  }
  EXPECT_GT(skipped, 10 * 400);
}

constexpr uint64_t kNow = 1'000'000'000;
constexpr uint64_t kSlice = 3'000'000;
constexpr uint32_t kMe = 100, kOther = 101;

TEST(CrowdedProcessors, TimeLostToAnotherMemberCrowdsThatProcessorForAMultipleOfIt) {
  static CrowdedProcessors crowded;
  EXPECT_FALSE(crowded.enter(3, kMe, kNow));
  EXPECT_FALSE(crowded.enter(3, kOther, kNow + 1));
  crowded.note(3, kMe, kNow + kSlice, kSlice);
  EXPECT_TRUE(crowded.enter(3, kMe, kNow + kSlice));
  EXPECT_TRUE(crowded.enter(3, kOther, kNow + 3 * kSlice));
  EXPECT_FALSE(crowded.enter(3, kMe, kNow + 10 * kSlice));
  EXPECT_FALSE(crowded.enter(2, kMe, kNow + kSlice));
}

TEST(CrowdedProcessors, TimeLostToStrangersDoesNot) {
  static CrowdedProcessors crowded;
  EXPECT_FALSE(crowded.enter(3, kMe, kNow));
  EXPECT_FALSE(crowded.enter(2, kOther, kNow + 1));
  crowded.note(3, kMe, kNow + kSlice, kSlice);
  EXPECT_FALSE(crowded.enter(3, kMe, kNow + kSlice));
}

TEST(CrowdedProcessors, AStopDoesNotLast) {
  static CrowdedProcessors crowded;
  EXPECT_FALSE(crowded.enter(0, kOther, kNow));
  crowded.note(0, kMe, kNow, 3'600'000'000'000);
  EXPECT_TRUE(crowded.enter(0, kMe, kNow));
  EXPECT_FALSE(crowded.enter(0, kMe, kNow + 1'000'000'000));
}

}  // namespace
}  // namespace shim
