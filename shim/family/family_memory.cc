// Maps the pieces of a family, completes them, and exchanges them for shared memory.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/family_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "base/check.h"
#include "base/shared_memory.h"
#include "base/syscall.h"
#include "shim/family/locked_memory.h"
#include "shim/family/network.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uintptr_t kPage = 4096;
constexpr uintptr_t kPlace = 0x2000'0000'0000;       // with as much chance in it as the stack's address has
constexpr uintptr_t kChance = 0xff'ffff'f000;
constexpr uintptr_t kElsewhere = 0x80'0000'0000;
constexpr uintptr_t kNetworkPlace = 0x1000'0000'0000, kNetworkChance = 0xfff'ffff'f000;
constexpr int kOwnExtents = 5;
constexpr int kExtents = kOwnExtents + kFileExtents;

struct Piece {
  uintptr_t begin, end;
};

// So many eighths were mapped when the keeper was made, and a page of each gap, by which all of it can be mapped again: MREMAP_MAYMOVE of
// no byte makes a second mapping of what is shared (mremap(2)).
uint32_t foreseen = 0;
uintptr_t first_pages[kExtents];

uintptr_t page_of(uintptr_t address) noexcept { return address & ~(kPage - 1); }
uintptr_t page_up(uintptr_t address) noexcept { return page_of(address + kPage - 1); }
bool is_error(long result) noexcept { return result < 0 && result > -4096; }

// Where the family lies in the file of what is shared; -1: it does not (yet).
long file_offset = -1;

uintptr_t avoided = 0;  // where another family is or may come, which this process may join

bool map(Piece piece) noexcept {
  const long begin = static_cast<long>(piece.begin);
  const long at = kernel_call(SYS_mmap, begin, static_cast<long>(piece.end - piece.begin), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  return at == begin;
}

// Of the file, or without one; `family` is where it is.
long map_shared_piece(Piece piece, uintptr_t at) noexcept {
  const bool has_file = file_offset >= 0;
  const int flags = MAP_SHARED | MAP_NORESERVE | (has_file ? 0 : MAP_ANONYMOUS) | (at != 0 ? MAP_FIXED_NOREPLACE : 0);
  const long offset = has_file ? file_offset + static_cast<long>(piece.begin - reinterpret_cast<uintptr_t>(family)) : 0;
  return kernel_call(SYS_mmap, static_cast<long>(at), static_cast<long>(piece.end - piece.begin), PROT_READ | PROT_WRITE, flags,
                     has_file ? base::shared_fd() : -1, offset);
}

void unmap(Piece piece) noexcept {
  (void)kernel_call(SYS_munmap, static_cast<long>(piece.begin), static_cast<long>(piece.end - piece.begin));
}

// In ascending order. `used` is read only if the memory is there.
void list_extents(Family* of, bool mapped, Extent (&out)[kExtents]) noexcept {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(of);
  const size_t head = reinterpret_cast<uintptr_t>(&of->waiters) - begin;
  out[0] = {begin, head, head, reinterpret_cast<uintptr_t>(of->in_flight) - begin};
  out[1] = extent_of(of->waiters, mapped);
  out[2] = extent_of(of->nodes, mapped);
  out[3] = extent_of(of->chunks, mapped);
  out[4] = {reinterpret_cast<uintptr_t>(of->slots), sizeof(ProcessSlot), kSlots / 8 * sizeof(ProcessSlot), sizeof(ProcessSlot)};
  extents_of_files(of, mapped, out + kOwnExtents);
}

// The pages of each extent when so many eighths are there: 8, 1, or 0 for what is there from the start. One that begins in the last page of
// the one before is cut off there.
Piece pages_of(const Extent (&extents)[kExtents], int index, uint32_t eighths) noexcept {
  const Extent& extent = extents[index];
  const bool last = index == kExtents - 1;
  const uintptr_t limit = last ? page_up(extents[0].begin + shared_bytes) : page_of(extents[index + 1].begin);
  const uintptr_t end = eighths == 8 ? limit : page_up(extent.begin + (eighths == 0 ? extent.early : extent.eighth));
  return {page_of(extent.begin), end < limit ? end : limit};
}

// How many pieces those of all extents make.
int list_pieces(Family* of, uint32_t eighths, Piece (&out)[kExtents]) noexcept {
  Extent extents[kExtents];
  list_extents(of, false, extents);
  int count = 0;
  for (int i = 0; i < kExtents; i++) {
    const Piece piece = pages_of(extents, i, eighths);
    if (count > 0 && piece.begin <= out[count - 1].end) {
      out[count - 1].end = piece.end;
    } else {
      out[count++] = piece;
    }
  }
  return count;
}

// All of them or none.
template <class Map>
bool map_pieces(const Piece* pieces, int count, Map map_one) noexcept {
  for (int i = 0; i < count; i++) {
    if (map_one(pieces[i])) continue;
    while (i-- > 0) unmap(pieces[i]);
    return false;
  }
  return true;
}

// Programs of a network have families that are not to lie over each other, whoever joins whom: the stack's address has too little chance in
// it for that.
uintptr_t choose_place() noexcept {
  uintptr_t chance = 0;
  if (has_network() && kernel_call(SYS_getrandom, as_arg(&chance), sizeof chance, 0) == sizeof chance)
    return kNetworkPlace + (chance & kNetworkChance);
  const char here = 0;
  return kPlace + (reinterpret_cast<uintptr_t>(&here) & kChance);
}

Family* map_early() noexcept {
  uintptr_t place = choose_place();
  if (family_would_overlap(place, avoided)) place ^= kElsewhere;
  auto* fresh = reinterpret_cast<Family*>(place);
  Piece pieces[kExtents];
  const int count = list_pieces(fresh, 0, pieces);
  return map_pieces(pieces, count, map) ? fresh : nullptr;
}

Family* map_anywhere() noexcept {
  const long at =
      kernel_call(SYS_mmap, 0, static_cast<long>(shared_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (is_error(at)) return nullptr;
  auto* fresh = reinterpret_cast<Family*>(at);
  fresh->eighths = 8;
  return fresh;
}

// What comes between the pieces that are there from the start when there are so many eighths, by extent; may be empty.
void list_gaps(uint32_t eighths, Piece (&out)[kExtents]) noexcept {
  Extent extents[kExtents];
  list_extents(family, false, extents);
  for (int i = 0; i < kExtents; i++) out[i] = {pages_of(extents, i, 0).end, pages_of(extents, i, eighths).end};
}

// Memory that the keeper has already is mapped here once more.
bool map_gap(Piece gap, uintptr_t first_page) noexcept {
  if (first_page == 0 && the_stack() == nullptr) return map(gap);
  if (first_page == 0) return map_shared_piece(gap, gap.begin) == static_cast<long>(gap.begin);
  const long begin = static_cast<long>(gap.begin);
  return kernel_call(SYS_mremap, static_cast<long>(first_page), 0, static_cast<long>(gap.end - gap.begin), MREMAP_MAYMOVE | MREMAP_FIXED,
                     begin) == begin;
}

// All of them or none.
bool map_gaps(uint32_t eighths) noexcept {
  Piece gaps[kExtents];
  list_gaps(eighths, gaps);
  for (int i = 0; i < kExtents; i++) {
    if (gaps[i].begin >= gaps[i].end || map_gap(gaps[i], first_pages[i])) continue;
    while (i-- > 0) {
      if (gaps[i].begin < gaps[i].end) unmap(gaps[i]);
    }
    return false;
  }
  return true;
}

// Copies what lies in `piece` and was ever written to.
void copy_used(Piece piece, uintptr_t to, const Extent (&extents)[kExtents]) noexcept {
  for (const Extent& extent : extents) {
    if (extent.begin < piece.begin || extent.begin >= piece.end) continue;
    memcpy(reinterpret_cast<void*>(to + (extent.begin - piece.begin)), reinterpret_cast<const void*>(extent.begin), extent.used);
  }
}

}  // namespace

bool family_would_overlap(uintptr_t one, uintptr_t other) noexcept {
  const size_t bytes = page_up(shared_bytes);
  return one < other + bytes && other < one + bytes;
}

void avoid_family_at(uintptr_t address) noexcept { avoided = address; }

bool map_family() noexcept {
  family = map_early();
  if (family == nullptr) family = map_anywhere();
  if (family == nullptr) return false;
  become_first_member();
  return true;
}

void become_first_member() noexcept {
  new (&family->lock) base::BiasedLock();
  family->waiters.for_each([](Waiter* waiter) { free_waiter(waiter); });
  family->life_fd = -1;
  family->processes.store(1, std::memory_order_relaxed);
  family->slots[0].state.store(SlotState::live, std::memory_order_relaxed);
}

uint32_t map_more_of_family() noexcept {
  if (family->eighths > 0 || family->processes.load(std::memory_order_relaxed) != 1) return family->eighths;
  leave_future_unlocked();
  for (const uint32_t eighths : {8U, 1U}) {
    if (foreseen != 0 && eighths > foreseen) continue;
    if (!map_gaps(eighths)) continue;
    family->eighths = eighths;
    break;
  }
  return family->eighths;
}

bool map_what_may_come() noexcept {
  if (family->eighths > 0) return true;
  for (const uint32_t eighths : {8U, 1U}) {
    if (!map_gaps(eighths)) continue;
    foreseen = eighths;
    return true;
  }
  return false;
}

void unmap_what_may_come() noexcept {
  if (foreseen == 0) return;
  Piece gaps[kExtents];
  list_gaps(foreseen, gaps);
  for (int i = 0; i < kExtents; i++) {
    if (gaps[i].begin >= gaps[i].end) continue;
    const long page = kernel_call(SYS_mremap, static_cast<long>(gaps[i].begin), 0, kPage, MREMAP_MAYMOVE);
    if (!is_error(page)) first_pages[i] = static_cast<uintptr_t>(page);
    unmap(gaps[i]);
  }
}

bool share_family() noexcept {
  Piece pieces[kExtents];
  const int count = list_pieces(family, family->eighths, pieces);
  Extent extents[kExtents];
  list_extents(family, true, extents);
  uintptr_t fresh[kExtents];
  file_offset = base::reserve_shared(page_up(shared_bytes));
  for (int i = 0; i < count; i++) {
    const long at = map_shared_piece(pieces[i], 0);
    if (is_error(at)) {
      while (i-- > 0) unmap({fresh[i], fresh[i] + (pieces[i].end - pieces[i].begin)});
      return false;
    }
    fresh[i] = static_cast<uintptr_t>(at);
  }
  for (int i = 0; i < count; i++) {
    const long bytes = static_cast<long>(pieces[i].end - pieces[i].begin);
    copy_used(pieces[i], fresh[i], extents);
    const long moved = kernel_call(SYS_mremap, static_cast<long>(fresh[i]), bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
                                   static_cast<long>(pieces[i].begin));
    CHECK(moved == static_cast<long>(pieces[i].begin));
  }
  family->slots[0].pid = static_cast<int32_t>(kernel_call(SYS_getpid));
  return true;
}

FamilyPlace family_place() noexcept { return {reinterpret_cast<uintptr_t>(family), file_offset, foreseen}; }

void unmap_family() noexcept {
  Piece pieces[kExtents];
  const int count = list_pieces(family, family->eighths, pieces);
  for (int i = 0; i < count; i++) unmap(pieces[i]);
  family = nullptr;
}

bool attach_family(const FamilyPlace& place) noexcept {
  Family* const own = family;
  family = reinterpret_cast<Family*>(place.address);
  file_offset = place.offset;
  foreseen = place.foreseen;
  Piece pieces[kExtents];
  const int count = list_pieces(family, 0, pieces);
  const auto attach = [](Piece piece) { return map_shared_piece(piece, piece.begin) == static_cast<long>(piece.begin); };
  if (file_offset >= 0 && map_pieces(pieces, count, attach)) {
    if (family->eighths == 0 || map_gaps(family->eighths)) return true;
    for (int i = 0; i < count; i++) unmap(pieces[i]);
  }
  family = own;
  file_offset = -1;
  foreseen = 0;
  return false;
}

}  // namespace shim
