// Where the tool finds its companions: beside itself in a build tree, in the library directory once installed.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

namespace tool {

// The core and the stack's image lie beside the preloaded library.
struct Libraries {
  std::string preload;   // absolute path; empty if it was not found
  std::string missing;   // the name of a companion that is not there; empty if all are
  std::string searched;  // the places looked at, for the message
};

Libraries find_libraries();

}  // namespace tool
