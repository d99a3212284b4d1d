// What a family's memory holds of files, for who maps it.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/file_pools.h"
#include "shim/family/family_memory.h"
#include "shim/files/epoll_file.h"

namespace shim {

static_assert(alignof(FilePools) <= alignof(Family));

const size_t shared_bytes = sizeof(Family) + sizeof(FilePools);

FamilyLevels family_levels() noexcept {
  return {family->processes.load(std::memory_order_relaxed),
          family->chunks.in_use(),
          family->waiters.in_use(),
          family->nodes.in_use(),
          files().sockets.in_use(),
          files().epolls.in_use(),
          files().items.in_use(),
          files().datagrams.in_use()};
}

void extents_of_files(Family* of, bool mapped, Extent* out) noexcept {
  FilePools& pools = files_of(of);
  out[0] = extent_of(pools.sockets, mapped);
  out[1] = extent_of(pools.epolls, mapped);
  out[2] = extent_of(pools.items, mapped);
  out[3] = extent_of(pools.notices, mapped);
  out[4] = extent_of(pools.datagrams, mapped);
}

void forget_sleepers() noexcept {
  files().epolls.for_each([](EpollFile* set) { set->bare_waiters = 0; });
}

}  // namespace shim
