// Finds and loads the library of the drivers.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/device/drivers.h"

#include <cstdio>
#include <cstring>
#include <dlfcn.h>

namespace netstack {
namespace {

constexpr char kName[] = "libzpstack-device.so";
bool loaded = false;

}  // namespace

bool has_device_drivers() noexcept { return loaded; }

base::Result<bool> load_device_drivers() noexcept {
  if (loaded) return true;
  char path[4096];
  Dl_info here;
  if (dladdr(reinterpret_cast<void*>(&load_device_drivers), &here) == 0 || here.dli_fname == nullptr)
    return base::make_error("wire device: the folder of libzpstack-core.so is not known");
  const char* const slash = strrchr(here.dli_fname, '/');
  const int folder = slash == nullptr ? 0 : static_cast<int>(slash + 1 - here.dli_fname);
  if (snprintf(path, sizeof path, "%.*s%s", folder, here.dli_fname, kName) >= static_cast<int>(sizeof path))
    return base::make_error("wire device: the path of libzpstack-core.so is too long");
  loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) != nullptr;
  if (!loaded) return base::make_error("wire device: the drivers cannot be loaded: %s", dlerror());
  return true;
}

}  // namespace netstack
