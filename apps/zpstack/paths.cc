// The search for libzpstack.so, relative to the running tool.
// SPDX-License-Identifier: BSD-3-Clause
#include "apps/zpstack/paths.h"

#include <filesystem>
#include <system_error>

namespace tool {
namespace fs = std::filesystem;

Libraries find_libraries() {
  std::error_code ignored;
  const fs::path own_folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  Libraries found;
  for (const fs::path& folder : {own_folder, (own_folder.parent_path() / ZPS_INSTALL_LIBDIR).lexically_normal()}) {
    found.searched += (found.searched.empty() ? "" : ", ") + folder.string();
    if (!fs::is_regular_file(folder / "libzpstack.so", ignored)) continue;
    found.preload = folder / "libzpstack.so";
    for (const char* companion : {"libzpstack-core.so", "libzpstack-stack.so"}) {
      if (!fs::is_regular_file(folder / companion, ignored)) found.missing = companion;
    }
    break;
  }
  return found;
}

}  // namespace tool
