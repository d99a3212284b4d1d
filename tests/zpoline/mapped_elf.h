// An ELF file mapped as the loader would map it, without running anything of it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <link.h>

#include <string>
#include <vector>

namespace tests {

class MappedElf {
 public:
  explicit MappedElf(const std::string& path);
  ~MappedElf();
  MappedElf(const MappedElf&) = delete;
  MappedElf& operator=(const MappedElf&) = delete;

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] const dl_phdr_info& info() const { return info_; }

 private:
  bool ok_ = false;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  std::vector<ElfW(Phdr)> segments_;
  dl_phdr_info info_{};
};

}  // namespace tests
