// Network cards that DPDK has drivers for, which are not among those of the wire "device"; and why.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstring>

namespace base {

struct AbsentDriver {
  const char* vendor;  // as in /sys: "0x15b3"
  const char* device;  // nullptr: any
  const char* name;
  const char* why;
};

inline constexpr char kBesideTheKernels[] = "works beside the kernel's own, through libibverbs";
inline constexpr char kNeedsThread[] = "has its answers from a thread of DPDK's";
inline constexpr AbsentDriver kAbsentDrivers[] = {
    {"0x15b3", nullptr, "mlx5", kBesideTheKernels}, {"0x1414", nullptr, "mana", kBesideTheKernels},
    {"0x8086", "0x1889", "iavf", kNeedsThread},     {"0x8086", "0x154c", "iavf", kNeedsThread},
    {"0x8086", "0x1571", "iavf", kNeedsThread},     {"0x8086", "0x37cd", "iavf", kNeedsThread},
    {"0x8086", "0x374d", "iavf", kNeedsThread},
};

// For a function with these identifiers, as a line of /sys each; nullptr: none.
[[nodiscard]] inline const AbsentDriver* absent_driver(const char* vendor, const char* device) noexcept {
  const auto begins = [](const char* line, const char* with) { return strncmp(line, with, strlen(with)) == 0; };
  for (const AbsentDriver& driver : kAbsentDrivers) {
    if (begins(vendor, driver.vendor) && (driver.device == nullptr || begins(device, driver.device))) return &driver;
  }
  return nullptr;
}

}  // namespace base
