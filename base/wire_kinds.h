// The kinds of wire that there are, by name.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace base {

// Whether `text` begins as the description of a wire: its kind and what that wants after a colon. What follows a comma is the wire's
// business.
[[nodiscard]] bool names_wire(const char* text) noexcept;

}  // namespace base
