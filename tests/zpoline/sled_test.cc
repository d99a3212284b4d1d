// The sled, number by number: executed on paper with the decoder, both ways at each conditional jump.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <array>
#include <set>

#include "zpoline/sites/decoder.h"
#include "zpoline/sites/page_zero.h"

namespace {

using zpoline::Kind;

bool is_exit(int at) { return (at >= 337 && at <= 417 && (at - 337) % 8 == 0) || (at >= 533 && at <= 613 && (at - 533) % 8 == 0); }

bool is_free(int nr) { return nr >= 337 && nr < 424; }

class Sled : public ::testing::Test {
 protected:
  Sled() { zpoline::write_sled(page_.data()); }

  // Follows `at` to an exit; the number of jumps on the longest way, or -1 if some way goes wrong. `conditional` tells of a jg.
  int follow(int at, bool& conditional, int depth = 0) {
    if (is_exit(at)) return 0;
    if (at >= 516 || depth > 16) return -1;
    const auto instruction = zpoline::decode(page_.data() + at, page_.size() - static_cast<size_t>(at));
    const int target = at + static_cast<int>(instruction.target);
    if (instruction.kind == Kind::jump) {
      const int rest = follow(target, conditional, depth + 1);
      return rest < 0 ? -1 : rest + 1;
    }
    if (instruction.kind != Kind::branch) return -1;
    conditional = true;
    const int taken = follow(target, conditional, depth + 1);
    const int fallen = follow(at + instruction.length, conditional, depth + 1);
    return taken < 0 || fallen < 0 ? -1 : std::max(taken, fallen) + 1;
  }

  std::array<uint8_t, zpoline::kPageBytes> page_{};
};

TEST_F(Sled, EveryNumberReachesAnExit) {
  for (int nr = 0; nr < 512; nr++) {
    if (is_free(nr)) continue;                     // below
    if (nr == 336 && page_[nr] == 0x67) continue;  // a prefix of the exit behind it
    bool conditional = false;
    const int jumps = follow(nr, conditional);
    EXPECT_GE(jumps, 0) << "number " << nr;
    EXPECT_LE(jumps, 8) << "number " << nr;
  }
}

TEST_F(Sled, TheDataPathTakesThreePlainJumpsAtMost) {
  for (int nr : {0, 1, 7, 19, 20, 44, 45, 46, 47, 232, 281, 441}) {
    bool conditional = false;
    EXPECT_LE(follow(nr, conditional), 3) << "number " << nr;
    EXPECT_FALSE(conditional) << "number " << nr;
  }
}

TEST_F(Sled, FreeNumbersEnterOrFault) {
  for (int nr = 337; nr < 424; nr++) {
    bool conditional = false;
    if (page_[nr] == 0xf4 || page_[nr] == 0x6c || is_exit(nr)) continue;
    EXPECT_GE(follow(nr, conditional), 0) << "number " << nr;
  }
  EXPECT_EQ(page_[337], 0xe9);
}

TEST_F(Sled, NumbersBehindTheSledEnterOrFault) {
  // hlt, insb and the far jump of an exit are all that may be executed there.
  for (int nr = 512; nr < 4096; nr++) {
    if (nr == 512 || is_exit(nr)) continue;
    if (nr == 513) continue;  // the displacement of the jump at 512: a REX prefix of the hlt behind it
    EXPECT_TRUE(page_[nr] == 0xf4 || page_[nr] == 0x6c) << "number " << nr << " executes " << int{page_[nr]};
  }
  EXPECT_EQ(page_[512], 0xeb);
  EXPECT_EQ(page_[513], 0x43);
}

}  // namespace
