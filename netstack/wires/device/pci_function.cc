// Looks at /sys/bus/pci and /dev/vfio; the errors say what would mend them.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/device/pci_function.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/absent_drivers.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

bool is_hex(const char* text, const char* form) noexcept {
  for (; *form != '\0'; form++, text++) {
    if (*form == 'x' ? strchr("0123456789abcdef", *text) == nullptr || *text == '\0' : *text != *form) return false;
  }
  return *text == '\0';
}

// Where a link in the function's folder leads to, by its last name; empty if there is none.
struct Name {
  char text[64];
};
Name linked(const char* address, const char* link) noexcept {
  Name name{};
  char target[256];
  const base::Error path = base::make_error("/sys/bus/pci/devices/%s/%s", address, link);
  const long length = kernel_call(SYS_readlinkat, AT_FDCWD, as_arg(path.text), as_arg(target), static_cast<long>(sizeof target - 1));
  if (length <= 0) return name;
  target[length] = '\0';
  const char* const last = strrchr(target, '/');
  const char* const from = last != nullptr ? last + 1 : target;
  memcpy(name.text, from, strnlen(from, sizeof name.text - 1));
  return name;
}

// The first line of a file in the function's folder; empty if there is none.
struct Line {
  char text[32];
};
Line line_of(const char* address, const char* file) noexcept {
  Line line{};
  const base::Error path = base::make_error("/sys/bus/pci/devices/%s/%s", address, file);
  const long fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(path.text), O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return line;
  (void)kernel_call(SYS_read, fd, as_arg(line.text), static_cast<long>(sizeof line.text - 1));
  (void)kernel_call(SYS_close, fd);
  line.text[strcspn(line.text, "\n")] = '\0';
  return line;
}

// Why a function that is not vfio-pci's cannot be had.
base::Error not_ours(const char* address, const char* driver) noexcept {
  for (const char* uio : {"uio_pci_generic", "igb_uio"}) {
    if (strcmp(driver, uio) == 0)
      return base::make_error("wire device: %s is %s's, by which a device reaches all memory: vfio-pci has to have it (zpstack doctor says "
                              "how)", address, driver);
  }
  return base::make_error("wire device: %s is %s%s and has to be vfio-pci's (zpstack doctor says how)", address,
                          driver[0] != '\0' ? "the kernel's, driver " : "nobody's", driver);
}

// Who was killed a moment ago has its group until the last of its processes is gone, and one of them tells the peers first.
long open_when_free(const char* file) noexcept {
  constexpr int kMostLooks = 400;
  constexpr timespec kBetween{0, 5'000'000};
  for (int look = 1;; look++) {
    const long fd = kernel_call(SYS_openat, AT_FDCWD, as_arg(file), O_RDWR | O_CLOEXEC, 0);
    if (fd != -EBUSY || look == kMostLooks) return fd;
    (void)kernel_call(SYS_nanosleep, as_arg(&kBetween), 0);
  }
}

}  // namespace

base::Result<PciFunction> find_pci_function(const char* text) noexcept {
  PciFunction function{};
  if (is_hex(text, "xx:xx.x")) memcpy(function.address, base::make_error("0000:%s", text).text, 13);
  else if (is_hex(text, "xxxx:xx:xx.x")) memcpy(function.address, text, 13);
  else if (is_hex(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"))
    return base::make_error("wire device: %s is on Hyper-V's bus; DPDK's driver for it, netvsc, is not here: use host:interface", text);
  else return base::make_error("wire device: \"%s\" is no PCI address as 0000:00:05.0 (zpstack doctor lists them)", text);

  const char* const address = function.address;
  struct stat folder {};
  const base::Error path = base::make_error("/sys/bus/pci/devices/%s", address);
  if (kernel_call(SYS_newfstatat, AT_FDCWD, as_arg(path.text), as_arg(&folder), 0) != 0)
    return base::make_error("wire device: there is no PCI function %s (zpstack doctor lists those that there are)", address);
  const Line vendor = line_of(address, "vendor"), device = line_of(address, "device");
  if (const base::AbsentDriver* const absent = base::absent_driver(vendor.text, device.text); absent != nullptr)
    return base::make_error("wire device: DPDK's driver of %s, %s, %s, and is not here: use host:interface on the kernel's driver", address,
                            absent->name, absent->why);
  const Name driver = linked(address, "driver"), group = linked(address, "iommu_group");
  if (group.text[0] == '\0')
    return base::make_error("wire device: no IOMMU is in front of %s: without one the device would reach all memory, and vfio-pci does not "
                            "take it", address);
  if (strcmp(line_of(address, "iommu_group/name").text, "vfio-noiommu") == 0)
    return base::make_error("wire device: no IOMMU is in front of %s, and vfio has it in its no-IOMMU mode, in which it would reach all "
                            "memory: that is not done here. host:interface works on the kernel's driver", address);
  if (strcmp(driver.text, "vfio-pci") != 0) return not_ours(address, driver.text);
  const base::Error file = base::make_error("/dev/vfio/%s", group.text);
  const long fd = open_when_free(file.text);
  if (fd == -EBUSY) return base::make_error("wire device: %s is in use by another process", address);
  if (fd == -EACCES || fd == -EPERM) return base::make_error("wire device: %s may not be opened: run as root, or chown it", file.text);
  if (fd < 0) return base::make_error("wire device: %s cannot be opened: error %ld", file.text, -fd);
  (void)kernel_call(SYS_close, fd);
  if (strcmp(vendor.text, "0x8086") == 0 && strcmp(device.text, "0x10d3") == 0)
    function.interrupts = "msi";  // the driver leaves the vectors of an 82574L at nothing
  return function;
}

}  // namespace netstack
