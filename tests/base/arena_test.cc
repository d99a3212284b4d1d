// The shared arena: alignment, reuse, exhaustion, sharing, and a random run against a model.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/arena.h"

using base::Arena;

namespace {

constexpr size_t kMegabyte = 1 << 20;

TEST(Arena, PiecesAreAlignedAndLargeEnough) {
  Arena* arena = Arena::map_shared(64 * kMegabyte);
  ASSERT_NE(nullptr, arena);
  for (size_t bytes = 0; bytes < 3000; bytes++) {
    void* piece = arena->allocate(bytes);
    ASSERT_NE(nullptr, piece);
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(piece) % 16);
    EXPECT_GE(Arena::size_of(piece), bytes);
    memset(piece, 0xab, Arena::size_of(piece));
    arena->release(piece);
  }
  for (size_t bytes = 4096; bytes < 16 * kMegabyte; bytes = bytes * 5 / 4 + 1) {
    void* piece = arena->allocate(bytes);
    ASSERT_NE(nullptr, piece) << bytes;
    EXPECT_GE(Arena::size_of(piece), bytes);
    EXPECT_LE(Arena::size_of(piece), bytes + bytes / 4 + 64) << "a class wastes a quarter at most";
    arena->reset();  // a freed piece serves its own class only
  }
  EXPECT_EQ(0u, arena->used());
}

TEST(Arena, FreedPiecesComeBack) {
  Arena* arena = Arena::map_shared(kMegabyte);
  void* first = arena->allocate(100);
  arena->release(first);
  EXPECT_EQ(first, arena->allocate(100));
  const size_t touched = arena->touched();
  for (int i = 0; i < 100'000; i++) arena->release(arena->allocate(500));
  EXPECT_LE(arena->touched(), touched + 1024);
}

TEST(Arena, ExhaustionIsANullPointer) {
  Arena* arena = Arena::map_shared(kMegabyte);
  std::vector<void*> pieces;
  while (void* piece = arena->allocate(1000)) pieces.push_back(piece);
  EXPECT_GT(pieces.size(), 700u);
  EXPECT_EQ(nullptr, arena->allocate(1000));
  EXPECT_EQ(nullptr, arena->allocate(size_t{1} << 40));
  for (void* piece : pieces) arena->release(piece);
  EXPECT_EQ(0u, arena->used());
  EXPECT_NE(nullptr, arena->allocate(1000));
  arena->reset();
  EXPECT_EQ(0u, arena->used());
  EXPECT_NE(nullptr, arena->allocate(kMegabyte / 2));
}

TEST(Arena, NullptrMayBeReleased) {
  Arena* arena = Arena::map_shared(kMegabyte);
  arena->release(nullptr);
  EXPECT_EQ(0u, arena->used());
}

TEST(ArenaDeath, DoubleReleaseIsCaught) {
  Arena* arena = Arena::map_shared(kMegabyte);
  void* piece = arena->allocate(10);
  arena->release(piece);
  EXPECT_DEATH(arena->release(piece), "kLive");
}

TEST(Arena, ChildrenShareIt) {
  Arena* arena = Arena::map_shared(kMegabyte);
  auto** slot = static_cast<char**>(arena->allocate(sizeof(char*)));
  const pid_t child = fork();
  if (child == 0) {
    *slot = static_cast<char*>(arena->allocate(100));
    strcpy(*slot, "from the child");
    _exit(0);
  }
  int status = 1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  EXPECT_STREQ("from the child", *slot);
  arena->release(*slot);
  arena->release(slot);
  EXPECT_EQ(0u, arena->used());
}

TEST(Arena, RandomRunKeepsContents) {
  Arena* arena = Arena::map_shared(16 * kMegabyte);
  std::mt19937 random(7);
  struct Piece {
    unsigned char* at;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Piece> live;
  for (int i = 0; i < 200'000; i++) {
    if (live.size() < 500 && random() % 2 == 0) {
      const size_t bytes = random() % (random() % 8 == 0 ? 60'000 : 2000);
      auto* at = static_cast<unsigned char*>(arena->allocate(bytes));
      if (at == nullptr) continue;
      const auto mark = static_cast<unsigned char>(random());
      memset(at, mark, bytes);
      live.push_back({at, bytes, mark});
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      const Piece piece = live.back();
      live.pop_back();
      for (size_t k = 0; k < piece.bytes; k += 97) ASSERT_EQ(piece.mark, piece.at[k]);
      arena->release(piece.at);
    }
  }
  for (const Piece& piece : live) arena->release(piece.at);
  EXPECT_EQ(0u, arena->used());
  EXPECT_LE(arena->touched(), arena->capacity());
}

}  // namespace
