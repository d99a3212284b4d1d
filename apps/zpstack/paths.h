// Where the tool finds its companions: beside itself in a build tree, in the library directory once installed.
#pragma once

#include <string>

namespace tool {

// Absolute paths; empty if the file is not there. The core and the stack's image lie beside the preloaded library.
struct Libraries {
  std::string preload;
  std::string core;
  std::string searched;  // the places looked at, for the message
};

Libraries find_libraries();

}  // namespace tool
