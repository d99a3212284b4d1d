// The tool's subcommands; each returns the exit status or throws Failure.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "apps/zpstack/settings.h"

namespace tool {

inline constexpr int kCannotRun = 127;

// Checks, then becomes the program: returns only by throwing.
[[noreturn]] void run_program(const std::vector<std::string>& command, Environment environment);

// 0 if what is in force will work on this machine, else 1.
int run_doctor(const Environment& environment, bool json);

enum class ConfigFormat { text, json, markdown };
int show_config(const Environment& environment, ConfigFormat format);
// `what` is host:port, host:port/udp; `program` may be empty.
int explain(const Environment& environment, const std::string& what, const std::string& program, bool json);

}  // namespace tool
