// Makes the sequence of a world out of a seed and the world's number.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "tests/diff/random/operation.h"

namespace random_sequences {

std::vector<Operation> generate(uint64_t seed, uint64_t world);

}  // namespace random_sequences
