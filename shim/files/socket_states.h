// How a socket changes its states outside of a connection, as several calls do it.
// SPDX-License-Identifier: BSD-3-Clause
//
// With the lock held; `fd` is a number of the socket in this process.
#pragma once

#include "shim/files/file.h"

namespace shim {

// There is no connection and no attempt (any more): the placeholder answers again, with the same in sk_shutdown as the socket.
void return_to_placeholder(int fd, Socket* socket) noexcept;

// It is the kernel's from now on, for good, and so are its registrations.
void give_to_kernel(int fd, Socket* socket) noexcept;

// tcp_disconnect() sets sk_shutdown to 0: the placeholder's, which has noted what was told before there was a connection, too.
void forget_shutdown(int fd, Socket* socket) noexcept;

// tcp_disconnect() of a connection, an attempt, or what is left of one: the stream stays and has no connection, until another attempt
// or listen() needs the socket.
void disconnect_stream(int fd, Socket* socket) noexcept;

// A listener of the stack becomes a socket again, whoever waits for it is woken, and the placeholder blocks if the program wants it. The
// kernel's side of a dual one is the caller's.
void end_listening(int fd, Socket* socket) noexcept;

}  // namespace shim
