// The last words of a daemon, whose stderr leads nowhere.
// SPDX-License-Identifier: BSD-3-Clause
//
// A daemon turns its descriptors to /dev/null (daemon(3)) and often listens only then: the line that says why it ends would be read by
// nobody. What such a program has to say goes to the system's log, and so does this: one datagram to /dev/log as syslog(3) sends it,
// facility daemon, severity error. Where no such socket is, or a filter forbids the way there, nothing happens.
#pragma once

#include <cstddef>

namespace base {

// Whether descriptor 2 is closed, or /dev/null.
[[nodiscard]] bool stderr_is_unseen() noexcept;
// A line without its end. Raw calls only; never waits.
void send_to_syslog(const char* line, size_t length) noexcept;

}  // namespace base
