// A PCI function as the kernel shows it in /sys: whether it can be had by us, and if not, why.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "base/result.h"

namespace netstack {

struct PciFunction {
  char address[16] = "";             // "0000:00:05.0"
  const char* interrupts = "msix";   // the kind of interrupts that DPDK's driver can sleep on
};

// Looks for the function that `text` names, with or without a domain, and whether vfio-pci has it and this process may open its group.
base::Result<PciFunction> find_pci_function(const char* text) noexcept;

}  // namespace netstack
