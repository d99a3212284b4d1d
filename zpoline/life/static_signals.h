// Signals of static programs, whose handlers run with another thread pointer than the engine.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <csignal>

namespace zpoline {

using Handler = void (*)(int, siginfo_t*, void*);

// signals.cc, with the engine's thread pointer.
void on_signal(int number, siginfo_t* info, void* context) noexcept;
// What the kernel calls in a static program.
void on_signal_static(int number, siginfo_t* info, void* context) noexcept;
// In on_signal(), which will not return: the interrupted code's thread pointer is back.
void leave_interrupted() noexcept;
// Calls a handler of the program, static or not.
void call_handler(Handler handler, int number, siginfo_t* info, void* context) noexcept;

}  // namespace zpoline
