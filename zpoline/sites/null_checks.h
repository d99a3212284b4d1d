// Programs that leave their null checks to the fault of a read near NULL.
#pragma once

namespace zpoline {

// What in this program does so ("Java", "Go"), or nullptr if nothing is known to. Looks at the objects that are loaded now.
[[nodiscard]] const char* relies_on_null_faults() noexcept;

}  // namespace zpoline
