// How the tool gives up: one line for a person, thrown to main().
#pragma once

#include <stdexcept>

namespace tool {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tool
