// What only the settings together can tell.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/config.h"

namespace base {

// An empty text if they fit together.
[[nodiscard]] Error check_together(const Config& config) noexcept;

}  // namespace base
