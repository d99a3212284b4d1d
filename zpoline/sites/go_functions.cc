// Finding Go's table of functions in a file or in memory, and looking addresses up in it.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/go_functions.h"

#include <elf.h>

#include <cstring>

#include "zpoline/sites/sections.h"

namespace zpoline {
namespace {

template <class T>
T load(uint64_t address) noexcept {
  T value;
  memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

// A header's first 8 bytes: magic, two zeros, least bytes of an instruction, bytes of an address.
constexpr uint64_t first_word(uint32_t magic) noexcept { return magic | uint64_t{1} << 48 | uint64_t{8} << 56; }

// Where a header keeps what: 0 for a word that it does not have.
struct Version {
  uint64_t first;
  uint8_t text;       // word of the address that the table counts from
  uint8_t functions;  // word of the table's offset from the header; 0: it begins behind the number of functions
  uint8_t entry_bytes;
};
constexpr Version kVersions[] = {{first_word(0xfffffffb), 0, 0, 16},
                                 {first_word(0xfffffffa), 0, 7, 16},
                                 {first_word(0xfffffff0), 3, 8, 8},
                                 {first_word(0xfffffff1), 3, 8, 8}};
constexpr size_t kHeaderBytes = 72;
constexpr size_t kMostFunctions = 1u << 24;

const Version* version_at(uint64_t header) noexcept {
  const auto first = load<uint64_t>(header);
  for (const Version& version : kVersions) {
    if (version.first == first) return &version;
  }
  return nullptr;
}

struct Segment {
  Range memory;
  uint32_t flags;
};

Segment segment_of(const dl_phdr_info& object, uint64_t address) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    const uint64_t begin = object.dlpi_addr + segment.p_vaddr;
    const Range memory{begin, begin + segment.p_filesz};
    if (segment.p_type == PT_LOAD && memory.holds(address)) return {memory, segment.p_flags};
  }
  return {};
}

// Calls visit(address) for each aligned word of the object's data until it says true.
template <class Visit>
bool any_word(const dl_phdr_info& object, uint32_t flags, Visit visit) noexcept {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) || (segment.p_flags & flags) != flags) continue;
    const uint64_t begin = (object.dlpi_addr + segment.p_vaddr + 7) & ~uint64_t{7};
    const uint64_t end = object.dlpi_addr + segment.p_vaddr + segment.p_filesz;
    for (uint64_t at = begin; at + 8 <= end; at += 8) {
      if (visit(at)) return true;
    }
  }
  return false;
}

// The module's descriptor (runtime.moduledata) begins with the header's address; the words of it that are looked at here.
constexpr size_t kTableWord = 16, kLeastWord = 20, kTextWord = 22, kModuleBytes = 24 * 8;

uint64_t text_from_module(const dl_phdr_info& object, uint64_t header, uint64_t table) noexcept {
  uint64_t text = 0;
  (void)any_word(object, PF_W, [&](uint64_t at) {
    if (load<uint64_t>(at) != header || at + kModuleBytes > segment_of(object, at).memory.end) return false;
    const auto least = load<uint64_t>(at + kLeastWord * 8);
    const auto candidate = load<uint64_t>(at + kTextWord * 8);
    if (load<uint64_t>(at + kTableWord * 8) != table || candidate + load<uint32_t>(table) != least) return false;
    text = candidate;
    return true;
  });
  return text;
}

// What Go's linker calls the table's section; other linkers, which it leaves its work to if it is told so, may put it into one that all
// have.
constexpr const char* kTableNames[] = {".gopclntab", ".data.rel.ro.gopclntab"};
// Sections that they leave alone.
constexpr const char* kGoNames[] = {".go.buildinfo", ".note.go.buildid"};

template <size_t n>
[[nodiscard]] bool is_one_of(const char* const (&names)[n], const char* name) noexcept {
  for (const char* candidate : names) {
    if (strcmp(candidate, name) == 0) return true;
  }
  return false;
}

}  // namespace

GoFunctions::GoFunctions(const dl_phdr_info& object) noexcept {
  if (look_in_file(object) == InFile::unknown) look_in_memory(object);
}

GoFunctions::InFile GoFunctions::look_in_file(const dl_phdr_info& object) noexcept {
  InFile in_file = InFile::has_none;
  const bool readable = Sections(object).visit([&](const Sections::Section& section) {
    if (is_one_of(kTableNames, section.name) && accept(object, section.begin)) in_file = InFile::found;
    if (in_file == InFile::found) return true;
    if (is_one_of(kTableNames, section.name) || is_one_of(kGoNames, section.name)) in_file = InFile::unknown;
    return false;
  });
  return readable ? in_file : InFile::unknown;
}

void GoFunctions::look_in_memory(const dl_phdr_info& object) noexcept {
  (void)any_word(object, PF_R, [&](uint64_t at) { return version_at(at) != nullptr && accept(object, at); });
}

// True if a header of a table that makes sense lies there.
bool GoFunctions::accept(const dl_phdr_info& object, uint64_t header) noexcept {
  const Segment segment = segment_of(object, header);
  if (header + kHeaderBytes > segment.memory.end || (segment.flags & PF_X)) return false;
  const Version* version = version_at(header);
  if (version == nullptr) return false;
  const auto word = [header](size_t i) { return load<uint64_t>(header + 8 * i); };
  const uint64_t count = word(1);
  const uint64_t table = header + (version->functions != 0 ? word(version->functions) : 16);
  if (count == 0 || count > kMostFunctions || table < header || table + (count + 1) * version->entry_bytes > segment.memory.end)
    return false;
  table_ = reinterpret_cast<const uint8_t*>(table);
  count_ = count;
  entry_bytes_ = version->entry_bytes;
  addresses_from_ = version->text != 0 ? word(version->text) : 0;
  if (version->text != 0 && addresses_from_ == 0) addresses_from_ = text_from_module(object, header, table);
  const Range text{address_of(0), address_of(count)};
  const Segment code = segment_of(object, text.begin);
  if (text.begin >= text.end || !(code.flags & PF_X) || text.end > code.memory.end) return false;
  text_ = text;
  return true;
}

uint64_t GoFunctions::address_of(size_t function) const noexcept {
  const auto entry = reinterpret_cast<uint64_t>(table_) + function * entry_bytes_;
  return entry_bytes_ == 16 ? load<uint64_t>(entry) : addresses_from_ + load<uint32_t>(entry);
}

Range GoFunctions::find(uint64_t code) const noexcept {
  if (!text_.holds(code)) return {};
  size_t low = 0;
  size_t high = count_;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (address_of(middle) <= code ? low : high) = middle;
  }
  return {address_of(low), address_of(low + 1)};
}

}  // namespace zpoline
