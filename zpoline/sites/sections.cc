// Opening an object's file and reading its section headers.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/sections.h"

#include <elf.h>
#include <fcntl.h>

namespace zpoline {

Sections::Sections(const dl_phdr_info& object) noexcept
    : fd_(base::kernel_call(SYS_openat, AT_FDCWD, base::as_arg(object.dlpi_name[0] == '\0' ? "/proc/self/exe" : object.dlpi_name),
                            O_RDONLY | O_CLOEXEC)),
      base_(object.dlpi_addr) {
  ElfW(Ehdr) elf;
  if (!read(&elf, sizeof elf, 0) || elf.e_shentsize != sizeof(ElfW(Shdr)) || elf.e_shstrndx >= elf.e_shnum) return;
  headers_ = elf.e_shoff;
  if (read_header(names_, elf.e_shstrndx)) count_ = elf.e_shnum;
}

Sections::~Sections() {
  if (fd_ >= 0) (void)base::kernel_call(SYS_close, fd_);
}

bool Sections::read(void* out, uint64_t bytes, uint64_t at) const noexcept {
  if (fd_ < 0) return false;
  return base::kernel_call(SYS_pread64, fd_, base::as_arg(out), static_cast<long>(bytes), static_cast<long>(at)) ==
         static_cast<long>(bytes);
}

bool Sections::read_header(ElfW(Shdr) & header, size_t i) const noexcept {
  return read(&header, sizeof header, headers_ + i * sizeof header);
}

bool Sections::describe(Section& section, const ElfW(Shdr) & header) const noexcept {
  section.begin = base_ + header.sh_addr;
  section.end = section.begin + header.sh_size;
  section.is_code = header.sh_flags & SHF_EXECINSTR;
  if (header.sh_name >= names_.sh_size) return false;
  const uint64_t left = names_.sh_size - header.sh_name;
  constexpr uint64_t kLongest = sizeof section.name - 1;
  return read(section.name, left < kLongest ? left : kLongest, names_.sh_offset + header.sh_name);
}

}  // namespace zpoline
