// Descriptors of the stack's in messages of Unix sockets (SCM_RIGHTS).
// SPDX-License-Identifier: BSD-3-Clause
//
// Each takes the call as the program made it, for a socket that is the kernel's, and returns kPass where the kernel alone can do it: what
// is sent has no file of ours, or there is no room for control messages. How a file travels is in shim/family/in_flight.h.
//
// Known limits: control messages of more than 1280 bytes that have a file of ours are refused (ENOBUFS); a socket that neither side has got
// yet travels as the kernel's where the other end's process is not known to be of this family.
#pragma once

#include "zpoline/hook.h"

namespace shim {

[[nodiscard]] long send_rights(const zps_call& call) noexcept;
[[nodiscard]] long send_many_rights(const zps_call& call) noexcept;
[[nodiscard]] long receive_rights(const zps_call& call) noexcept;
[[nodiscard]] long receive_many_rights(const zps_call& call) noexcept;

}  // namespace shim
