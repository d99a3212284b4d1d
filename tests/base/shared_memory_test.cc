// Memory of a family: in a file, with a list of what lies where, in the order in which it has to be mapped again.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/shared_memory.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>

namespace {

using base::SharedPart;

constexpr size_t kBytes = 3 * 4096;

uintptr_t address_of(const void* memory) { return reinterpret_cast<uintptr_t>(memory); }

TEST(SharedMemory, WhatIsListedIsInTheFile) {
  auto* const memory = static_cast<char*>(base::map_shared(kBytes));
  ASSERT_NE(memory, nullptr);
  ASSERT_TRUE(base::is_whole());
  ASSERT_EQ(base::shared_parts().size(), 1u);
  const SharedPart part = base::shared_parts()[0];
  EXPECT_EQ(part.address, address_of(memory));
  EXPECT_EQ(part.bytes, kBytes);
  strcpy(memory + 4096, "here");
  char read[5] = {};
  EXPECT_EQ(pread(part.fd, read, 4, static_cast<off_t>(part.offset) + 4096), 4);
  EXPECT_STREQ(read, "here");
  base::unmap_shared(memory, kBytes);
  EXPECT_TRUE(base::shared_parts().empty());
}

// One that lies over another comes behind it, whatever went before.
TEST(SharedMemory, WhatIsUnmappedLeavesTheOrderOfTheOthers) {
  void* const gone = base::map_shared(kBytes);
  auto* const under = static_cast<char*>(base::map_shared(kBytes));
  void* const over = base::map_shared(4096);
  ASSERT_NE(gone, nullptr);
  ASSERT_NE(under, nullptr);
  ASSERT_NE(over, nullptr);
  ASSERT_TRUE(base::move_shared(over, 4096, under + 4096));
  base::unmap_shared(gone, kBytes);
  ASSERT_EQ(base::shared_parts().size(), 2u);
  EXPECT_EQ(base::shared_parts()[0].address, address_of(under));
  EXPECT_EQ(base::shared_parts()[1].address, address_of(under + 4096));
  EXPECT_TRUE(base::shared_parts()[1].over);
}

// RLIMIT_FSIZE counts for it, and the kernel would send SIGXFSZ.
TEST(SharedMemory, WithoutAFileItIsMemoryAllTheSame) {
  const rlimit little{4096, 4096};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
  auto* const memory = static_cast<char*>(base::map_shared(kBytes));
  ASSERT_NE(memory, nullptr);
  strcpy(memory, "here");
  EXPECT_STREQ(memory, "here");
  EXPECT_FALSE(base::is_whole());
  EXPECT_TRUE(base::shared_parts().empty());
}

}  // namespace
