// Probes of the network cards on the PCI bus: who has each, and what would give it to a program.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "apps/zpstack/probes/probes.h"
#include "base/absent_drivers.h"

namespace tool {
namespace {

namespace fs = std::filesystem;

const fs::path kFunctions = "/sys/bus/pci/devices";

// The last name of where a link leads to; empty if there is none.
std::string linked(const fs::path& link) {
  std::error_code error;
  return fs::read_symlink(link, error).filename().string();
}

// What the kernel calls the interfaces of a function, or of the virtio device in it: with a comma in front of each.
std::string interfaces_of(const fs::path& function) {
  std::string names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(function / "net", error)) names += ", " + entry.path().filename().string();
  for (const auto& entry : fs::directory_iterator(function, error)) {
    if (entry.path().filename().string().rfind("virtio", 0) == 0) names += interfaces_of(entry.path());
  }
  return names;
}

std::string id_of(const fs::path& function) {
  const auto number = [&](const char* file) {
    const std::string text = first_line((function / file).string());
    return text.size() > 2 ? text.substr(2) : text;
  };
  return number("vendor") + ":" + number("device");
}

std::string commands_for(const std::string& address, const std::string& driver) {
  const std::string function = (kFunctions / address).string();
  std::string commands = fmt::format("`modprobe vfio-pci; echo vfio-pci >{}/driver_override; ", function);
  if (!driver.empty()) commands += fmt::format("echo {} >{}/driver/unbind; ", address, function);
  return commands + fmt::format("echo {} >/sys/bus/pci/drivers_probe`", address);
}

Finding probe_function(const std::string& address, bool needed) {
  const fs::path function = kFunctions / address;
  const std::string driver = linked(function / "driver"), group = linked(function / "iommu_group");
  const std::string who = driver.empty() ? "nobody's" : driver + "'s";
  const std::string detail = fmt::format("{}, {}{}", id_of(function), who, interfaces_of(function));
  const std::string vendor = first_line((function / "vendor").string()), device = first_line((function / "device").string());
  if (const base::AbsentDriver* const absent = base::absent_driver(vendor.c_str(), device.c_str()); absent != nullptr) {
    return {address, lack(needed), fmt::format("{}; DPDK's driver of it, {}, {}, so no device wire", detail, absent->name, absent->why),
            "optional: `ZPS_WIRE=host:` and its interface, on the kernel's driver"};
  }
  if (group.empty() || first_line((function / "iommu_group/name").string()) == "vfio-noiommu") {
    return {address, lack(needed), detail + "; no IOMMU in front of it, so no device wire",
            "optional: `intel_iommu=on` on the kernel's command line, or the hypervisor's IOMMU"};
  }
  if (driver != "vfio-pci") {
    const std::string kind = driver.empty() ? "optional: " : "optional, and the kernel loses it: ";
    return {address, lack(needed), detail, kind + commands_for(address, driver)};
  }
  const std::string file = "/dev/vfio/" + group;
  if (access(file.c_str(), R_OK | W_OK) != 0)
    return {address, lack(needed), detail + "; " + file + " may not be opened", "run as root, or `chown` it"};
  return {address, State::ok, detail + ": for ZPS_WIRE=device:" + address, ""};
}

}  // namespace

std::vector<Finding> probe_devices(const base::Config& config) {
  const std::string wire = config.wire, kind = "device:";
  std::string wanted = wire.rfind(kind, 0) == 0 ? wire.substr(kind.size()) : "";
  if (wanted.size() == 7) wanted = "0000:" + wanted;
  std::vector<std::string> addresses;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(kFunctions, error)) {
    if (first_line((entry.path() / "class").string()).rfind("0x02", 0) == 0) addresses.push_back(entry.path().filename().string());
  }
  std::sort(addresses.begin(), addresses.end());
  std::vector<Finding> findings;
  for (const std::string& address : addresses) findings.push_back(probe_function(address, address == wanted));
  if (!wanted.empty() && std::find(addresses.begin(), addresses.end(), wanted) == addresses.end())
    findings.push_back({wanted, State::missing, "no network card is at this address of the PCI bus",
                        "ZPS_WIRE with one of those that are listed"});
  return findings;
}

}  // namespace tool
