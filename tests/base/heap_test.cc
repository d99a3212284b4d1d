// The shared heap: alignment, reuse, exhaustion, sharing; free memory that flows together whatever was there before; random runs against a
// model.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "base/heap.h"

using base::Heap;

namespace {

constexpr size_t kMegabyte = 1 << 20;

// Everything there is in pieces of `bytes`.
std::vector<void*> fill(Heap& heap, size_t bytes) {
  std::vector<void*> pieces;
  while (void* piece = heap.allocate(bytes)) pieces.push_back(piece);
  return pieces;
}

TEST(Heap, PiecesAreAlignedAndLargeEnough) {
  Heap* heap = Heap::map_shared(64 * kMegabyte);
  ASSERT_NE(nullptr, heap);
  const auto check = [&](size_t bytes) {
    void* piece = heap->allocate(bytes);
    ASSERT_NE(nullptr, piece) << bytes;
    EXPECT_EQ(0u, reinterpret_cast<uintptr_t>(piece) % 16);
    EXPECT_GE(Heap::size_of(piece), bytes);
    EXPECT_LE(Heap::size_of(piece), bytes + 32) << "nothing is rounded up but to 16 bytes";
    memset(piece, 0xab, Heap::size_of(piece));
    heap->release(piece);
  };
  for (size_t bytes = 0; bytes < 5000; bytes++) check(bytes);
  for (size_t bytes = 5000; bytes < 60 * kMegabyte; bytes = bytes * 5 / 4 + 1) check(bytes);
  EXPECT_EQ(0u, heap->used());
}

TEST(Heap, FreedPiecesComeBack) {
  Heap* heap = Heap::map_shared(kMegabyte);
  void* first = heap->allocate(100);
  heap->release(first);
  EXPECT_EQ(first, heap->allocate(100));
  heap->release(heap->allocate(500));
  const size_t touched = heap->touched();
  for (int i = 0; i < 100'000; i++) heap->release(heap->allocate(500));
  EXPECT_EQ(touched, heap->touched());
}

TEST(Heap, ExhaustionIsANullPointer) {
  Heap* heap = Heap::map_shared(kMegabyte);
  std::vector<void*> pieces = fill(*heap, 1000);
  EXPECT_GT(pieces.size(), 1000u);
  EXPECT_EQ(nullptr, heap->allocate(1000));
  EXPECT_EQ(nullptr, heap->allocate(size_t{1} << 40));
  for (void* piece : pieces) heap->release(piece);
  EXPECT_EQ(0u, heap->used());
  EXPECT_NE(nullptr, heap->allocate(1000));
  heap->reset();
  EXPECT_EQ(0u, heap->used());
  EXPECT_NE(nullptr, heap->allocate(kMegabyte / 4 * 3));
}

TEST(Heap, WhatOneSizeLeavesServesEveryOther) {
  Heap* heap = Heap::map_shared(4 * kMegabyte);
  const size_t sizes[] = {16, 40, 300, 1000, 1040, 1500, 4100, 16'000, 65'500, 1'000'000};
  std::map<size_t, size_t> fresh;
  for (const size_t bytes : sizes) {
    fresh[bytes] = fill(*heap, bytes).size();
    heap->reset();
  }
  std::mt19937 random(3);
  for (const size_t before : sizes) {
    for (const size_t bytes : sizes) {
      std::vector<void*> pieces = fill(*heap, before);
      std::shuffle(pieces.begin(), pieces.end(), random);
      for (void* piece : pieces) heap->release(piece);
      pieces = fill(*heap, bytes);
      EXPECT_GE(pieces.size() * 5, fresh[bytes] * 4) << bytes << " after " << before << ": what is set aside lies in between";
      for (void* piece : pieces) heap->release(piece);
    }
  }
}

// What stays keeps its place only: with one piece of a hundred left, nearly all of the rest serves.
TEST(Heap, WhatStaysCostsLittleMoreThanItself) {
  Heap* heap = Heap::map_shared(4 * kMegabyte);
  std::vector<void*> small = fill(*heap, 300), stay;
  for (size_t i = 0; i < small.size(); i++) {
    if (i % 100 == 0) {
      stay.push_back(small[i]);
    } else {
      heap->release(small[i]);
    }
  }
  std::vector<void*> large = fill(*heap, 8000);
  EXPECT_GT(large.size() * 8000, heap->capacity() / 3 * 2);
  for (void* piece : large) heap->release(piece);
  EXPECT_GE(fill(*heap, 300).size(), small.size() - stay.size());
}

TEST(Heap, WhatIsNotNeededIsNotTouched) {
  Heap* heap = Heap::map_shared(64 * kMegabyte);
  std::mt19937 random(11);
  std::vector<void*> live;
  size_t most = 0;
  for (int i = 0; i < 100'000; i++) {
    if (live.size() < 200 && random() % 2 == 0) {
      live.push_back(heap->allocate(random() % 8 == 0 ? 65'000 : random() % 3000));
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      heap->release(live.back());
      live.pop_back();
    }
    most = std::max(most, heap->used());
  }
  EXPECT_LE(heap->touched(), most + most / 2 + kMegabyte);
}

TEST(Heap, NullptrMayBeReleased) {
  Heap* heap = Heap::map_shared(kMegabyte);
  heap->release(nullptr);
  EXPECT_EQ(0u, heap->used());
}

TEST(HeapDeath, DoubleReleaseIsCaught) {
  Heap* heap = Heap::map_shared(kMegabyte);
  for (const size_t bytes : {10u, 10'000u}) {
    void* between[] = {heap->allocate(bytes), heap->allocate(bytes), heap->allocate(bytes)};
    heap->release(between[0]);
    heap->release(between[1]);
    EXPECT_DEATH(heap->release(between[0]), "kLive");
    EXPECT_DEATH(heap->release(between[1]), "kLive");
  }
}

TEST(Heap, ChildrenShareIt) {
  Heap* heap = Heap::map_shared(kMegabyte);
  auto** slot = static_cast<char**>(heap->allocate(sizeof(char*)));
  const pid_t child = fork();
  if (child == 0) {
    *slot = static_cast<char*>(heap->allocate(100));
    strcpy(*slot, "from the child");
    _exit(0);
  }
  int status = 1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  EXPECT_STREQ("from the child", *slot);
  heap->release(*slot);
  heap->release(slot);
  EXPECT_EQ(0u, heap->used());
}

struct Lengths {
  size_t most_live;
  size_t (*draw)(std::mt19937& random);
};

class HeapRun : public testing::TestWithParam<Lengths> {};

// Phases of growth and of shrinking, up to exhaustion; contents are kept, and in the end all of it is one piece again.
TEST_P(HeapRun, KeepsContentsAndFlowsTogether) {
  constexpr size_t kBytes = 8 * kMegabyte;
  Heap* heap = Heap::map_shared(kBytes);
  std::mt19937 random(7);
  struct Piece {
    unsigned char* at;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Piece> live;
  int exhausted = 0;
  for (int i = 0; i < 200'000; i++) {
    const bool growing = i / 20'000 % 2 == 0;
    if (live.empty() || (live.size() < GetParam().most_live && random() % 8 < (growing ? 6u : 2u))) {
      const size_t bytes = GetParam().draw(random);
      auto* at = static_cast<unsigned char*>(heap->allocate(bytes));
      if (at == nullptr) {
        exhausted++;
        continue;
      }
      ASSERT_TRUE(heap->contains(at, bytes));
      const auto mark = static_cast<unsigned char>(random());
      memset(at, mark, bytes);
      live.push_back({at, bytes, mark});
    } else {
      std::swap(live[random() % live.size()], live.back());
      const Piece piece = live.back();
      live.pop_back();
      for (size_t k = 0; k < piece.bytes; k += 97) ASSERT_EQ(piece.mark, piece.at[k]);
      ASSERT_TRUE(piece.bytes == 0 || piece.mark == piece.at[piece.bytes - 1]);
      heap->release(piece.at);
    }
  }
  EXPECT_GT(exhausted, 0);
  for (const Piece& piece : live) heap->release(piece.at);
  EXPECT_EQ(0u, heap->used());
  EXPECT_LE(heap->touched(), heap->capacity());
  EXPECT_NE(nullptr, heap->allocate(kBytes - 2 * sizeof(Heap)));
}

INSTANTIATE_TEST_SUITE_P(, HeapRun, testing::Values(
    Lengths{100'000, [](std::mt19937& random) -> size_t { return random() % 2000; }},
    Lengths{10'000, [](std::mt19937& random) -> size_t { return random() % (random() % 8 == 0 ? 70'000 : 1600); }},
    Lengths{10'000, [](std::mt19937& random) -> size_t { return size_t{1} << random() % 20; }}));

}  // namespace
