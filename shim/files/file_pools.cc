// The size of what a family shares, and the copy that a child without a stack gets.
#include "shim/files/file_pools.h"
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
          files().items.in_use()};
}

void copy_files(Family* to) noexcept {
  FilePools& copy = files_of(to);
  copy.sockets.copy_from(files().sockets);
  copy.epolls.copy_from(files().epolls);
  copy.epolls.for_each([](EpollFile* set) { set->bare_waiters = 0; });  // the child has one thread
  copy.items.copy_from(files().items);
}

}  // namespace shim
