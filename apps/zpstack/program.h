// Looks at a program before it is started: can LD_PRELOAD reach it?
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

namespace tool {

struct Program {
  std::string path;      // what execve() is to be given
  std::string obstacle;  // why the preloaded library would not reach it; empty if it would
  bool is_static = false;  // no loader reads LD_PRELOAD for it: the library is loaded in front of it
};

// Finds `name` as a shell would (PATH when it has no slash). Throws Failure when there is nothing to execute.
Program find_program(const std::string& name, const std::string& search_path);

}  // namespace tool
