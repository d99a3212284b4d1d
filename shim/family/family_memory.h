// Where a family lies: at one place of the address space, private until it has a stack, and no more of it than is used.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. What processes share has to have its address before the first fork, and room for a hundred thousand sockets. But most
// programs never have a stack: in them it is 90 MB that count against RLIMIT_AS, and that mlockall() fills and pins. And they fork: a shell
// forks all day, perhaps under a filter (seccomp) that allows nothing more.
//
// How. The family's place is chosen once, in a part of the address space where the kernel puts nothing by itself (below all that it hands
// out downwards from the stack). At first only the beginning of each pool is mapped there, and the first slot: 1 MB. The rest comes when a
// pool reaches its end, at the latest before the first fork of a process with a stack: nothing that two members use may be mapped later.
// Where the address space is limited to less (RLIMIT_AS), an eighth of each pool and of the slots comes, and that is all there will be.
// Until there is a stack the memory is private, so that a fork copies it as it copies everything and needs no call; then it is exchanged
// for shared memory with the same contents, under the lock that is around every change.
//
// If something lies at the chosen place, all of it is mapped wherever there is room.
//
// Invariants: 1 a family of several processes gets no more memory; 2 whoever changes anything in it holds the lock, but for its own word: a
// mark that a waiter sets there while the memory is exchanged may be lost, and its sleep is a bounded one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shim/family/family.h"

namespace shim {

// A part of the family's memory: from `begin` on, `early` bytes are there from the start, `eighth` where all cannot be had, and `used` have
// been written to.
struct Extent {
  uintptr_t begin;
  size_t early, eighth;
  size_t used;
};
template <class P>
[[nodiscard]] Extent extent_of(const P& pool, bool mapped) noexcept {
  return {reinterpret_cast<uintptr_t>(&pool), P::early_bytes(), P::eighth_bytes(), mapped ? pool.used_bytes() : 0};
}

// What files/ keeps behind the family: how long all of it is, and its extents, kFileExtents of them; without `used` if it is not mapped.
extern const size_t shared_bytes;
inline constexpr int kFileExtents = 5;
void extents_of_files(Family* of, bool mapped, Extent* out) noexcept;

// Whether families at these addresses lie over each other.
[[nodiscard]] bool family_would_overlap(uintptr_t one, uintptr_t other) noexcept;
// This process may join a family there: its own is not to be in the way.
void avoid_family_at(uintptr_t address) noexcept;
// Maps an empty family whose only member is this process, as `family`. False if the kernel refuses.
[[nodiscard]] bool map_family() noexcept;
// In the child of a fork before there was a stack: a family of its own, with what its parent's had. Makes no system call.
void become_first_member() noexcept;
// What may come later, mapped for a process that is forked in between and has to see it then, and taken out of this one's address space
// again, which may be limited. With the lock held, while there is one process. False if there is no room: such a process would not see it.
[[nodiscard]] bool map_what_may_come() noexcept;
void unmap_what_may_come() noexcept;
// Makes the memory one that forked processes share, with the lock held, before there is a stack. False if the kernel refuses: nothing has
// changed.
[[nodiscard]] bool share_family() noexcept;

// Where it is, for a program that this process executes; and there: maps it in place of this process's own, which stays mapped if that
// fails (false). Its pieces must be in a file of the shared memory, `offset` >= 0.
struct FamilyPlace {
  uintptr_t address;
  long offset;
  uint32_t foreseen;  // how many eighths the keeper knows
};
[[nodiscard]] FamilyPlace family_place() noexcept;
[[nodiscard]] bool attach_family(const FamilyPlace& place) noexcept;
// Unmaps this process's own, which is private, to make room for one that lies there: `family` is null then. In the only thread.
void unmap_family() noexcept;

}  // namespace shim
