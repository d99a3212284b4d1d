// Where functions of a loaded object begin and end: from its unwind table in memory, else from its dynamic symbols, else from Go's table.
// SPDX-License-Identifier: BSD-3-Clause
//
// Unwind tables survive stripping, cover C, C++, Rust and most hand-written assembly, and are mapped with the object: nothing
// is opened or read. PT_GNU_EH_FRAME holds a table sorted by address, so a lookup is a binary search and only the
// entries of functions that hold a candidate are ever touched. Symbols are in no order: the first question about them puts them into
// chains, one for each page of addresses (a program such as node exports 75,000).
//
// Sources: Linux Standard Base 5, "Exception Frames"; DWARF 4 section 7.6; System V gABI, "Symbol Table".
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "zpoline/sites/go_functions.h"

namespace zpoline {

constexpr size_t kMaxFunctionBytes = 1u << 20;  // larger ones are not looked into

struct Function {
  const uint8_t* begin = nullptr;
  const uint8_t* end = nullptr;  // one past the last byte; begin == end: not found
  bool has_landing_pads = false;
  bool small_stack = false;  // it may run on a stack with room for little more than itself

  [[nodiscard]] bool contains(const uint8_t* p) const noexcept { return p >= begin && p < end; }
};

// Symbols that the next FunctionTables use if their object has none in memory; none: null, 0. They are the caller's.
void lend_symbols(const ElfW(Sym) * symbols, size_t count) noexcept;

// A view of one object that dl_iterate_phdr() reported; valid while the object stays loaded.
class FunctionTable {
 public:
  explicit FunctionTable(const dl_phdr_info& object) noexcept;
  ~FunctionTable();
  FunctionTable(const FunctionTable&) = delete;
  FunctionTable& operator=(const FunctionTable&) = delete;

  // The function around `code`, or an empty one.
  [[nodiscard]] Function find(const uint8_t* code) const noexcept;

  // The object's Go code, as far as find() had to look for it.
  [[nodiscard]] Range go_text() const noexcept { return go_ ? go_->text() : Range{}; }

  // Calls visit(address) for every exported function that begins inside `function`: entries besides its first byte.
  template <class Visit>
  void for_each_entry(const Function& function, Visit visit) const noexcept {
    for_each_function(function.begin, function.end, [&](const ElfW(Sym) & symbol) {
      const uint8_t* at = base_ + symbol.st_value;
      if (function.contains(at)) visit(at);
    });
  }

  // Calls visit(address) for every symbol with an address, of whatever kind.
  template <class Visit>
  void for_each_label(Visit visit) const noexcept {
    for (size_t i = 0; i < symbol_count_; i++) {
      if (symbols_[i].st_shndx != SHN_UNDEF && ELF64_ST_TYPE(symbols_[i].st_info) != STT_TLS) visit(base_ + symbols_[i].st_value);
    }
  }

 private:
  static constexpr size_t kPages = 16384;
  [[nodiscard]] static size_t page_of(uint64_t value) noexcept { return value / 4096; }

  // Calls visit(symbol) for every exported function that begins in [begin, end), and for others.
  template <class Visit>
  void for_each_function(const uint8_t* begin, const uint8_t* end, Visit visit) const noexcept {
    if (first_ == nullptr && !chain_symbols()) {
      for (size_t i = 0; i < symbol_count_; i++) {
        if (is_function(symbols_[i])) visit(symbols_[i]);
      }
      return;
    }
    const size_t last = page_of(static_cast<uint64_t>(end - base_ - 1));
    for (size_t page = page_of(static_cast<uint64_t>(begin - base_)); page <= last; page++) {
      for (uint32_t i = first_[page % kPages]; i != 0; i = next_[i]) visit(symbols_[i]);
    }
  }

  [[nodiscard]] bool chain_symbols() const noexcept;
  [[nodiscard]] static bool is_function(const ElfW(Sym) & symbol) noexcept;
  [[nodiscard]] Function find_in_unwind_table(const uint8_t* code) const noexcept;
  [[nodiscard]] Function find_in_symbols(const uint8_t* code) const noexcept;
  [[nodiscard]] Function find_in_go(const uint8_t* code) const noexcept;
  void read_unwind_header(const uint8_t* header) noexcept;
  void read_dynamic(const ElfW(Dyn) * dynamic) noexcept;

  struct Row {
    int32_t begin;  // both are distances from the header
    int32_t entry;
  };

  const dl_phdr_info& object_;
  const uint8_t* base_ = nullptr;
  mutable std::optional<GoFunctions> go_;
  const uint8_t* header_ = nullptr;
  const Row* rows_ = nullptr;
  size_t row_count_ = 0;
  const ElfW(Sym) * symbols_ = nullptr;
  size_t symbol_count_ = 0;
  mutable uint32_t* first_ = nullptr;  // kPages of them: the first symbol of a page, 0 at a chain's end
  mutable uint32_t* next_ = nullptr;   // symbol_count_ of them, behind first_
};

}  // namespace zpoline
