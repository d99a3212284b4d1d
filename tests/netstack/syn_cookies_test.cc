// SYN cookies and the options that they carry, as plain functions.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/syn_cookies.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

using namespace netstack;

namespace {

constexpr uint64_t kKey[2] = {0x0123456789abcdef, 0xfedcba9876543210};
constexpr FourTuple kTuple{IpAddress::v4(0x0200'12c6), IpAddress::v4(0x0100'12c6), 80, 40000};

SynOptions options_of(std::vector<uint8_t> bytes) { return parse_syn_options(bytes.data(), static_cast<uint32_t>(bytes.size())); }

TEST(SynOptionList, IsRead) {
  EXPECT_EQ((SynOptions{536, SynOptions::kNoScale, false}), options_of({}));
  EXPECT_EQ((SynOptions{1460, 7, true, true, 1}), options_of({2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}));
  EXPECT_EQ((SynOptions{1460, 14, false}), options_of({1, 1, 2, 4, 5, 180, 3, 3, 200})) << "RFC 7323, 2.3: at most 14";
  EXPECT_EQ((SynOptions{48, SynOptions::kNoScale, false}), options_of({2, 4, 0, 1}));
  EXPECT_EQ((SynOptions{536, SynOptions::kNoScale, false}), options_of({0, 2, 4, 5, 180}));
}

TEST(SynOptionList, MalformedIsTheEnd) {
  const std::vector<std::vector<uint8_t>> lists = {
      {2}, {2, 4}, {2, 4, 5}, {2, 0, 5, 180}, {2, 1, 5, 180}, {2, 40, 5, 180}, {9, 0}, {3, 3}, {4, 3}};
  for (const auto& bytes : lists) {
    EXPECT_EQ((SynOptions{536, SynOptions::kNoScale, false}), options_of(bytes));
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100'000; i++) {
    std::vector<uint8_t> bytes(random() % 41);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 2 != 0 ? random() % 11 : random());
    const SynOptions found = options_of(bytes);
    EXPECT_GE(found.mss, SynOptions::kLeastMss);
    EXPECT_TRUE(found.scale <= 14 || found.scale == SynOptions::kNoScale);
  }
}

TEST(SynCookie, RemembersAndNeverPromisesMore) {
  for (const uint16_t mss : {48, 536, 1000, 1200, 1380, 1440, 1448, 1460, 9000, 16280, 65495}) {
    for (const int scale_offered : {255, 0, 1, 2, 5, 7, 8, 9, 14}) {
      const auto scale = static_cast<uint8_t>(scale_offered);
      for (const bool sack : {false, true}) {
        const uint32_t cookie = make_syn_cookie(kKey, kTuple, 12345, 100, {mss, scale, sack});
        SynOptions read;
        ASSERT_TRUE(read_syn_cookie(kKey, kTuple, 12345, 100, cookie, &read));
        EXPECT_TRUE(read.mss <= mss || read.mss == SynOptions::kDefaultMss);
        EXPECT_GE(read.mss * 2, mss < 16280 ? mss : 16280);
        EXPECT_EQ(scale == SynOptions::kNoScale, read.scale == SynOptions::kNoScale);
        EXPECT_LE(read.scale, scale);
        EXPECT_EQ(sack, read.sack);
      }
    }
  }
  SynOptions read;
  for (const uint8_t scale : {6, 7, 8}) {  // macOS, Linux, Windows
    ASSERT_TRUE(read_syn_cookie(kKey, kTuple, 1, 1, make_syn_cookie(kKey, kTuple, 1, 1, {1460, scale, true}), &read));
    EXPECT_EQ((SynOptions{1460, scale, true}), read);
  }
}

TEST(SynCookie, BelongsToOneConnectionForTwoMinutes) {
  const uint32_t cookie = make_syn_cookie(kKey, kTuple, 12345, 100, {1460, 7, true});
  SynOptions read;
  EXPECT_TRUE(read_syn_cookie(kKey, kTuple, 12345, 101, cookie, &read));
  EXPECT_FALSE(read_syn_cookie(kKey, kTuple, 12345, 102, cookie, &read));
  EXPECT_FALSE(read_syn_cookie(kKey, kTuple, 12345, 99, cookie, &read));
  EXPECT_FALSE(read_syn_cookie(kKey, kTuple, 12346, 100, cookie, &read));
  FourTuple others[4] = {kTuple, kTuple, kTuple, kTuple};
  others[0].local.words_be[3]++, others[1].peer.words_be[3]++, others[2].local_port++, others[3].peer_port++;
  for (const FourTuple& other : others) {
    EXPECT_FALSE(read_syn_cookie(kKey, other, 12345, 100, cookie, &read));
  }
  const uint64_t other_key[2] = {kKey[0], kKey[1] + 1};
  EXPECT_FALSE(read_syn_cookie(other_key, kTuple, 12345, 100, cookie, &read));
}

// 2 in 2^25 of random numbers are cookies; of 2^22 a handful at most.
TEST(SynCookie, IsHardToGuess) {
  std::mt19937 random(9);
  int hits = 0;
  SynOptions read;
  for (int i = 0; i < 1 << 22; i++) hits += read_syn_cookie(kKey, kTuple, 12345, 100, static_cast<uint32_t>(random()), &read);
  EXPECT_LE(hits, 6);
}

}  // namespace
