// Where functions of a loaded object begin and end: from its unwind table in memory, else from its dynamic symbols.
//
// Unwind tables survive stripping, cover C, C++, Rust and most hand-written assembly, and are mapped with the object: nothing
// is opened or read. PT_GNU_EH_FRAME holds a table sorted by address, so a lookup is a binary search and only the
// entries of functions that hold a candidate are ever touched.
//
// Sources: Linux Standard Base 5, "Exception Frames"; DWARF 4 section 7.6; System V gABI, "Symbol Table".
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

namespace zpoline {

struct Function {
  const uint8_t* begin = nullptr;
  const uint8_t* end = nullptr;  // one past the last byte; begin == end: not found
  bool has_landing_pads = false;

  [[nodiscard]] bool contains(const uint8_t* p) const noexcept { return p >= begin && p < end; }
};

// A view of one object that dl_iterate_phdr() reported; valid while the object stays loaded.
class FunctionTable {
 public:
  explicit FunctionTable(const dl_phdr_info& object) noexcept;

  // The function around `code`, or an empty one.
  [[nodiscard]] Function find(const uint8_t* code) const noexcept;

  // Calls visit(address) for every exported function that begins inside `function`: entries besides its first byte.
  template <class Visit>
  void for_each_entry(const Function& function, Visit visit) const noexcept {
    for (size_t i = 0; i < symbol_count_; i++) {
      if (!is_function(symbols_[i])) continue;
      const uint8_t* at = base_ + symbols_[i].st_value;
      if (function.contains(at)) visit(at);
    }
  }

  // Calls visit(address) for every symbol with an address, of whatever kind.
  template <class Visit>
  void for_each_label(Visit visit) const noexcept {
    for (size_t i = 0; i < symbol_count_; i++) {
      if (symbols_[i].st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbols_[i].st_info) != STT_TLS) visit(base_ + symbols_[i].st_value);
    }
  }

 private:
  [[nodiscard]] static bool is_function(const ElfW(Sym) & symbol) noexcept;
  [[nodiscard]] Function find_in_unwind_table(const uint8_t* code) const noexcept;
  [[nodiscard]] Function find_in_symbols(const uint8_t* code) const noexcept;
  void read_unwind_header(const uint8_t* header) noexcept;
  void read_dynamic(const ElfW(Dyn) * dynamic) noexcept;

  struct Row {
    int32_t begin;  // both are distances from the header
    int32_t entry;
  };

  const uint8_t* base_ = nullptr;
  const uint8_t* header_ = nullptr;
  const Row* rows_ = nullptr;
  size_t row_count_ = 0;
  const ElfW(Sym) * symbols_ = nullptr;
  size_t symbol_count_ = 0;
};

}  // namespace zpoline
