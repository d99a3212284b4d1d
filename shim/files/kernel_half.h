// The kernel's half of an epoll set: what is registered there, and what its events mean.
// SPDX-License-Identifier: BSD-3-Clause
//
// A registration that is in both halves (a listener on both sides, a nested set), or in the kernel's while its socket's side is
// undecided, is one registration to the program. If it is a one-shot (EPOLLONESHOT), whichever half tells first ends it in both. So in the
// kernel's half it does not have the program's data but a mark that leads to the item: an event with a mark is judged with the lock held,
// is dropped if the item has fired already, and else disarms the item and gets the program's data. This needs no call into
// the kernel where the item fires in the stack's half, which may be in a process that has other numbers or none for the set and the file;
// where it has them the kernel's half is cleared as well, so that it does not wake anybody for nothing.
//
// Known limits: a one-shot that goes to the kernel for good by a call in a process that has another number for the file is lost.
#pragma once

#include <sys/epoll.h>

#include "shim/files/epoll_file.h"

namespace shim {

// EPOLL_CTL_ADD or EPOLL_CTL_MOD in the kernel's half, through the caller's number of the set. 0 or a negative errno.
[[nodiscard]] long kernel_half_control(int set_fd, int operation, EpollItem* item, uint32_t events, uint64_t data) noexcept;
// Takes an item out of the kernel's half, if this process can name both.
void leave_kernel_half(EpollItem* item) noexcept;
// The kernel's half has an item to itself from now on: its file is the kernel's for good.
void hand_over(EpollItem* item) noexcept;
// Takes out of what the kernel reported what is not for the program, and gives the rest its data. How many are left; `count` may be an
// error. Without the lock.
[[nodiscard]] long settle_events(EpollFile* set, epoll_event* events, long count) noexcept;
// The same with the lock held.
[[nodiscard]] long settle_events_locked(EpollFile* set, epoll_event* events, long count) noexcept;

}  // namespace shim
