// Where open file descriptions and epoll items lie: fixed pools right behind the family.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "shim/family/family.h"
#include "shim/files/async_io.h"
#include "shim/files/datagram_socket.h"
#include "shim/files/epoll_file.h"
#include "shim/files/file.h"

namespace shim {

struct FilePools {
  Pool<Socket, 131072, 1024> sockets;
  Pool<EpollFile, 8192, 128> epolls;
  Pool<EpollItem, 262144, 2048> items;
  Pool<AsyncNotice, 16384, 128> notices;
  Pool<DatagramSocket, 65536, 256> datagrams;
};

// Those of a family, and of this process's.
[[nodiscard]] inline FilePools& files_of(Family* of) noexcept { return *reinterpret_cast<FilePools*>(of + 1); }
[[nodiscard]] inline FilePools& files() noexcept { return files_of(family); }

// In the child of a fork before there is a stack: nobody else waits on what it has got.
void forget_sleepers() noexcept;

}  // namespace shim
