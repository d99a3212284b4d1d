// Mode symbols: libc's functions are exchanged, and no instruction is.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

namespace zpoline {

// From here on the objects that are loaded now, and those of later dlopen()s, call the engine's functions in place of libc's where somebody
// wants their system calls. The hook is open and has said what it claims.
void exchange_symbols() noexcept;

}  // namespace zpoline
