// The section headers of a loaded object's file.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "base/syscall.h"

namespace zpoline {

// Reads them one by one. Nothing else of the engine needs the file: what is mapped has no section headers.
class Sections {
 public:
  explicit Sections(const dl_phdr_info& object) noexcept;
  ~Sections();
  Sections(const Sections&) = delete;
  Sections& operator=(const Sections&) = delete;

  struct Section {
    char name[32];  // cut off if it is longer
    uint64_t begin;
    uint64_t end;
    bool is_code;
  };

  // Calls visit(section) for each section that is mapped, until one says true. False if the headers cannot be read.
  template <class Visit>
  bool visit(Visit visit) const noexcept {
    for (size_t i = 0; i < count_; i++) {
      ElfW(Shdr) header;
      Section section{};
      if (!read_header(header, i) || !describe(section, header)) return false;
      if ((header.sh_flags & SHF_ALLOC) && visit(section)) return true;
    }
    return count_ > 0;
  }

 private:
  [[nodiscard]] bool read(void* out, uint64_t bytes, uint64_t at) const noexcept;
  [[nodiscard]] bool read_header(ElfW(Shdr) & header, size_t i) const noexcept;
  [[nodiscard]] bool describe(Section& section, const ElfW(Shdr) & header) const noexcept;

  long fd_;
  uint64_t base_;
  size_t count_ = 0;
  uint64_t headers_ = 0;
  ElfW(Shdr) names_{};
};

}  // namespace zpoline
