// The service: one thread per process that looks after the stack when nobody else does, and after members that died.
// SPDX-License-Identifier: BSD-3-Clause
//
// A stack is driven by whoever waits (wait.h). The service steps in for what is left: timers, acknowledgements and retransmission
// while the program computes; the wire's control events; descriptors of members that were killed; data that was written
// by a program which then does not wait. Each process holds the byte of its slot in a memory file (life_fd) by a POSIX record lock, which
// the kernel drops when the process ends, however it ends: a byte that nobody holds belongs to a dead process, also while that is a zombie.
//
// One process of the family is on duty. It holds byte 0 as well, and notes the time of each turn. The others' threads look in turn, some
// forty times a second all together: if byte 0 is free the one on duty has ended, and if its last turn is long ago it is stopped or frozen
// (or gets no processor). Either way the next takes the duty up; one who comes back to find another on duty goes back into the row. Two on
// duty at once do no harm, only too much.
//
// Nothing that a member was about to do outside of the lock may be lost with it: whoever is on duty repeats wake-ups that a sleeper has not
// followed, and has others watch the wire when those who should have let frames lie.
//
// The thread is made lazily: with the stack, and in a forked child when it waits and has lived for kYouthNs, or finds nobody on duty. Most
// children of a server that forks for each connection do not live so long, and the thread took a tenth of the time of those that fork,
// answer one request and exit.
//
// libc does not know the thread, so its setuid() does not reach it (base/own_thread.h), and credentials are each thread's own. When the
// program gives up what it cannot take back, the thread ends before the call returns, and whoever made the call makes the next: nothing in
// the process has more rights than the program.
//
// Known limits: supplementary groups and the bounding set are followed with the next change of user or capabilities only, and in mode
// `symbols`, where libc's own calls are not seen, nothing is; a new user who may have no more threads (RLIMIT_NPROC) goes without this one,
// and one line says so if no other process is on duty; a record lock is dropped when the process closes any descriptor of the file, so
// life_fd has one number only.
#pragma once

#include <cstdint>

namespace shim {

struct ProcessSlot;

// From the start: this process's threads own locks under the tag of its slot, and whether a process lives is asked here.
void service_introduce() noexcept;
// Makes life_fd and takes this process's byte of it. With the family's lock held, while the stack is being made. False on failure.
[[nodiscard]] bool service_prepare() noexcept;
// Takes the byte of a slot for this process, the child of a fork.
void service_hold_slot(const ProcessSlot* slot) noexcept;
// Gives the byte back before the slot: whoever gets the slot next must find it free though this process is still there.
void service_leave_slot(const ProcessSlot* slot) noexcept;
// Starts the thread, if it does not run in this process. Without the lock.
void service_start() noexcept;
// This thread's identity has changed: if something is lost for good, the service's thread loses it too. Without the lock.
void service_follow() noexcept;
// The child of a fork has no service thread yet.
void service_forget() noexcept;
// Starts the thread in a forked child that has none and is due to have one: one load if there is nothing to do.
void service_ensure() noexcept;
// When a wait has to ask for that again; UINT64_MAX (kForever) if it need not.
[[nodiscard]] uint64_t service_due_ns() noexcept;
// Whether no member lives but this process, if it still is one: what is left to do for the family is its own then. Members that are dead
// but were not seen to yet take nothing over; they are freed, and handshakes that are under way are refused. Without the lock.
[[nodiscard]] bool service_none_but_this() noexcept;
// Keeps the service away from the lock while this process exits.
void service_stop() noexcept;
// The duty is anybody's: a record lock would survive an exec, and the thread does not.
void service_leave_duty() noexcept;

}  // namespace shim
