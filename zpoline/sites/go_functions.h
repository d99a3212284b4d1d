// Where the functions of Go code begin and end, as the table says that Go's own unwinder reads.
// SPDX-License-Identifier: BSD-3-Clause
//
// Go's linker writes no unwind table for Go code. The runtime finds the function of a program counter in the pclntab, which no stripping
// removes: a header with a magic number, and a table of functions by address, the last of which ends at a last address. It lies in
// read-only data, in a position-independent program in data that are read-only after relocation. A program without cgo that has this ld.so,
// a plugin and a shared library of Go code have one as well.
//
//   magic       Go           addresses in the table    entry
//   0xfffffffb  1.2 to 1.15  absolute                  two 8-byte words: address, offset of the function's data
//   0xfffffffa  1.16, 1.17   absolute                  the same
//   0xfffffff0  1.18, 1.19   from the header's text    two 4-byte words
//   0xfffffff1  1.20 on      the same; from 1.26 on the header's text is 0, and the module's descriptor in the data has it
//
// Source: Go's src/internal/abi/symtab.go and src/runtime/symtab.go (pcHeader, moduledata).
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>

#include "zpoline/sites/maps.h"

namespace zpoline {

// A view of one loaded object; valid while it stays loaded. One at a time is made.
class GoFunctions {
 public:
  // Looks for the table: in the file's section headers, and, if they cannot be read or say only that it is Go, in the object's memory.
  explicit GoFunctions(const dl_phdr_info& object) noexcept;

  // The bytes from one function's begin to the next one's; empty: not Go's.
  [[nodiscard]] Range find(uint64_t code) const noexcept;
  // All of the object's Go code; empty if it has none.
  [[nodiscard]] Range text() const noexcept { return text_; }

 private:
  enum class InFile { has_none, found, unknown };
  [[nodiscard]] InFile look_in_file(const dl_phdr_info& object) noexcept;
  void look_in_memory(const dl_phdr_info& object) noexcept;
  bool accept(const dl_phdr_info& object, uint64_t header) noexcept;
  [[nodiscard]] uint64_t address_of(size_t function) const noexcept;

  const uint8_t* table_ = nullptr;
  size_t count_ = 0;
  size_t entry_bytes_ = 0;
  uint64_t addresses_from_ = 0;
  Range text_;
};

}  // namespace zpoline
