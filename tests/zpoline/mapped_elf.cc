// Reads the program headers and copies each PT_LOAD to its place.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/zpoline/mapped_elf.h"

#include <sys/mman.h>

#include <cstring>
#include <fstream>

namespace tests {

MappedElf::MappedElf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  ElfW(Ehdr) header;
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return;
  segments_.resize(header.e_phnum);
  file.seekg(static_cast<std::streamoff>(header.e_phoff));
  file.read(reinterpret_cast<char*>(segments_.data()), static_cast<std::streamsize>(segments_.size() * sizeof segments_[0]));
  uint64_t low = UINT64_MAX;
  uint64_t high = 0;
  for (const auto& segment : segments_) {
    if (segment.p_type != PT_LOAD) continue;
    low = std::min<uint64_t>(low, segment.p_vaddr & ~4095ull);
    high = std::max<uint64_t>(high, segment.p_vaddr + segment.p_memsz);
  }
  bytes_ = high - low;
  memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory_ == MAP_FAILED) return;
  char* base = static_cast<char*>(memory_) - low;
  for (const auto& segment : segments_) {
    if (segment.p_type != PT_LOAD) continue;
    file.seekg(static_cast<std::streamoff>(segment.p_offset));
    file.read(base + segment.p_vaddr, static_cast<std::streamsize>(segment.p_filesz));
  }
  info_.dlpi_addr = reinterpret_cast<ElfW(Addr)>(base);
  info_.dlpi_name = path.c_str();
  info_.dlpi_phdr = segments_.data();
  info_.dlpi_phnum = static_cast<ElfW(Half)>(segments_.size());
  ok_ = true;
}

MappedElf::~MappedElf() {
  if (memory_ != nullptr && memory_ != MAP_FAILED) munmap(memory_, bytes_);
}

}  // namespace tests
