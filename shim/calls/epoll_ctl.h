// What the two halves of epoll_ctl share: the one for nearly all calls, which uses no vector register, and the complete one.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cerrno>

#include "base/user_copy.h"
#include "shim/files/epoll_file.h"
#include "shim/files/user_memory.h"
#include "zpoline/hook.h"

namespace shim {

// epoll_ctl in every case.
long control_anyhow(const zps_call& call) noexcept;

// The registration of a number of `file` with `set`, or nullptr.
[[nodiscard]] inline EpollItem* find_item(const EpollFile* set, File* file, int fd) noexcept {
  for (FileLink* link = file->registrations.front(); link != nullptr; link = file->registrations.after(link)) {
    EpollItem* item = static_cast<EpollItem*>(link);
    if (item->set == set && item->fd == fd) return item == file->parked ? nullptr : item;
  }
  return nullptr;
}

// An event as the program passed it; -EFAULT as its word.
[[nodiscard]] inline zps_word_pair load_event(int64_t user) noexcept {
  const void* from = reinterpret_cast<const void*>(user);
  return plausible(from, sizeof(epoll_event)) ? zps_user_load_pair(from) : zps_word_pair{-EFAULT, 0};
}

}  // namespace shim

// Runs handler(call) with xmm0-15 kept around it.
extern "C" long zps_keep_vectors(const zps_call& call, long (*handler)(const zps_call& call) noexcept) noexcept;
