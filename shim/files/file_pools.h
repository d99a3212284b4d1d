// Where open file descriptions and epoll items lie: fixed pools right behind the family, in the same mapping.
#pragma once

#include "shim/family/family.h"
#include "shim/files/epoll_file.h"
#include "shim/files/file.h"

namespace shim {

struct FilePools {
  Pool<Socket, 131072> sockets;
  Pool<EpollFile, 8192> epolls;
  Pool<EpollItem, 262144> items;
};

// Those of a family, and of this process's.
[[nodiscard]] inline FilePools& files_of(Family* of) noexcept { return *reinterpret_cast<FilePools*>(of + 1); }
[[nodiscard]] inline FilePools& files() noexcept { return files_of(family); }

// For a fork before there is a stack: fills the pools of the child's family with what this process's hold.
void copy_files(Family* to) noexcept;

}  // namespace shim
