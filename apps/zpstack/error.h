// How the tool gives up: one line for a person, thrown to main().
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <stdexcept>

namespace tool {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tool
