// Reading .eh_frame_hdr, .eh_frame and .dynsym where they lie in memory.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/functions.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <cstring>
#include <initializer_list>

#include "base/syscall.h"

namespace zpoline {
namespace {

// Pointer encodings of the unwind table (LSB 10.5.1): low nibble the format, high nibble what it is relative to.
constexpr uint8_t kOmitted = 0xff;
constexpr uint8_t kRelativeToSelf = 0x10;
constexpr uint8_t kTableOfSigned32FromHeader = 0x3b;

template <class T>
T load(const uint8_t* p) noexcept {
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}

uint64_t take_uleb(const uint8_t*& p) noexcept {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t byte = *p++;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (!(byte & 0x80)) break;
  }
  return value;
}

// Reads one encoded pointer; `ok` becomes false for an encoding that compilers do not use here.
uint64_t take_encoded(const uint8_t*& p, uint8_t encoding, bool& ok) noexcept {
  const uint8_t* const self = p;
  uint64_t value = 0;
  switch (encoding & 0x0f) {
    case 0x00:
    case 0x04:
    case 0x0c: value = load<uint64_t>(p), p += 8; break;
    case 0x03: value = load<uint32_t>(p), p += 4; break;
    case 0x0b: value = static_cast<uint64_t>(static_cast<int64_t>(load<int32_t>(p))), p += 4; break;
    default: ok = false; return 0;
  }
  if ((encoding & 0x70) == kRelativeToSelf) return value + reinterpret_cast<uint64_t>(self);
  if ((encoding & 0x70) != 0) ok = false;
  return value;
}

const ElfW(Sym) * lent_symbols = nullptr;
size_t lent_count = 0;

struct Common {
  uint8_t pointer_encoding = 0;
  bool has_landing_pads = false;
  bool ok = false;
};

Common read_common_entry(const uint8_t* p) noexcept {
  Common common;
  if (load<uint32_t>(p) == 0xffffffff) return common;
  p += 8;
  const uint8_t version = *p++;
  const char* augmentation = reinterpret_cast<const char*>(p);
  p += strlen(augmentation) + 1;
  (void)take_uleb(p);  // code alignment
  (void)take_uleb(p);  // data alignment (signed, same length)
  if (version == 1) p++;
  else (void)take_uleb(p);  // return address register
  common.ok = true;
  if (augmentation[0] != 'z') return common;
  (void)take_uleb(p);
  for (const char* letter = augmentation + 1; *letter != '\0'; letter++) {
    if (*letter == 'R') common.pointer_encoding = *p++;
    if (*letter == 'L') p++, common.has_landing_pads = true;
    if (*letter == 'P') {
      const uint8_t encoding = *p++;
      (void)take_encoded(p, encoding & 0x7f, common.ok);
    }
  }
  return common;
}

}  // namespace

void lend_symbols(const ElfW(Sym) * symbols, size_t count) noexcept {
  lent_symbols = symbols;
  lent_count = count;
}

FunctionTable::FunctionTable(const dl_phdr_info& object) noexcept
    : object_(object), base_(reinterpret_cast<const uint8_t*>(object.dlpi_addr)) {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type == PT_GNU_EH_FRAME) read_unwind_header(base_ + segment.p_vaddr);
    if (segment.p_type == PT_DYNAMIC && lent_count == 0) read_dynamic(reinterpret_cast<const ElfW(Dyn)*>(base_ + segment.p_vaddr));
  }
  if (symbol_count_ != 0 || lent_count == 0) return;
  symbols_ = lent_symbols;
  symbol_count_ = lent_count;
}

void FunctionTable::read_unwind_header(const uint8_t* header) noexcept {
  const uint8_t frame_encoding = header[1];
  const uint8_t count_encoding = header[2];
  if (header[0] != 1 || header[3] != kTableOfSigned32FromHeader || count_encoding == kOmitted) return;
  bool ok = true;
  const uint8_t* p = header + 4;
  (void)take_encoded(p, frame_encoding, ok);
  row_count_ = take_encoded(p, count_encoding, ok);
  if (!ok) row_count_ = 0;
  header_ = header;
  rows_ = reinterpret_cast<const Row*>(p);
}

void FunctionTable::read_dynamic(const ElfW(Dyn) * dynamic) noexcept {
  // ld.so relocates the addresses in place for most objects, not for the vDSO and some read-only ones.
  const auto address = [this](ElfW(Addr) value) {
    return value < reinterpret_cast<ElfW(Addr)>(base_) ? base_ + value : reinterpret_cast<const uint8_t*>(value);
  };
  const uint8_t* symbols = nullptr;
  const uint8_t* strings = nullptr;
  for (; dynamic->d_tag != DT_NULL; dynamic++) {
    if (dynamic->d_tag == DT_SYMTAB) symbols = address(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_STRTAB) strings = address(dynamic->d_un.d_ptr);
  }
  // Linkers put the string table right behind the symbols; where they do not, the symbols are not used.
  if (symbols == nullptr || strings <= symbols) return;
  symbols_ = reinterpret_cast<const ElfW(Sym)*>(symbols);
  const size_t bytes = static_cast<size_t>(strings - symbols);
  if (bytes % sizeof(ElfW(Sym)) == 0) symbol_count_ = bytes / sizeof(ElfW(Sym));
}

FunctionTable::~FunctionTable() {
  if (first_ != nullptr)
    (void)base::kernel_call(SYS_munmap, base::as_arg(first_), static_cast<long>((kPages + symbol_count_) * sizeof *first_));
}

bool FunctionTable::chain_symbols() const noexcept {
  const size_t bytes = (kPages + symbol_count_) * sizeof *first_;
  const long memory = base::kernel_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory < 0) return false;
  first_ = reinterpret_cast<uint32_t*>(memory);
  next_ = first_ + kPages;
  for (size_t i = symbol_count_; i-- > 1;) {
    if (!is_function(symbols_[i])) continue;
    uint32_t& first = first_[page_of(symbols_[i].st_value) % kPages];
    next_[i] = first;
    first = static_cast<uint32_t>(i);
  }
  return true;
}

bool FunctionTable::is_function(const ElfW(Sym) & symbol) noexcept {
  const int type = ELF64_ST_TYPE(symbol.st_info);
  return (type == STT_FUNC || type == STT_GNU_IFUNC) && symbol.st_shndx != SHN_UNDEF;
}

Function FunctionTable::find(const uint8_t* code) const noexcept {
  for (const auto find_in : {&FunctionTable::find_in_unwind_table, &FunctionTable::find_in_symbols, &FunctionTable::find_in_go}) {
    const Function function = (this->*find_in)(code);
    if (function.begin != function.end) return function;
  }
  return {};
}

Function FunctionTable::find_in_unwind_table(const uint8_t* code) const noexcept {
  if (row_count_ == 0) return {};
  size_t low = 0;
  size_t high = row_count_;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (header_ + rows_[middle].begin <= code ? low : high) = middle;
  }
  const uint8_t* entry = header_ + rows_[low].entry;
  if (load<uint32_t>(entry) == 0xffffffff) return {};
  const uint8_t* back = entry + 4;
  const Common common = read_common_entry(back - load<int32_t>(back));
  bool ok = common.ok;
  const uint8_t* p = back + 4;
  const uint64_t begin = take_encoded(p, common.pointer_encoding, ok);
  const uint64_t bytes = take_encoded(p, common.pointer_encoding & 0x0f, ok);
  Function function;
  function.begin = reinterpret_cast<const uint8_t*>(begin);
  function.end = function.begin + bytes;
  function.has_landing_pads = common.has_landing_pads;
  // clone3 of glibc is described up to its `syscall` and not beyond (the child must not be unwound through it): the flow still
  // has to reach the pair from the function's start, through the `mov $number,%eax` that ends the description.
  constexpr int kLoadBytes = 5;
  constexpr uint8_t kLoadEax = 0xb8;
  if (ok && code == function.end && bytes > kLoadBytes && code[-kLoadBytes] == kLoadEax) function.end += 2;
  if (!ok || !function.contains(code)) return {};
  return function;
}

Function FunctionTable::find_in_symbols(const uint8_t* code) const noexcept {
  Function found;
  const uint8_t* lowest = code - base_ > static_cast<ptrdiff_t>(kMaxFunctionBytes) ? code - kMaxFunctionBytes : base_;
  for_each_function(lowest, code + 1, [&](const ElfW(Sym) & symbol) {
    Function function;
    function.begin = base_ + symbol.st_value;
    function.end = function.begin + symbol.st_size;
    if (function.contains(code) && function.begin > found.begin) found = function;
  });
  return found;
}

Function FunctionTable::find_in_go(const uint8_t* code) const noexcept {
  if (!go_) go_.emplace(object_);
  const Range range = go_->find(reinterpret_cast<uint64_t>(code));
  Function function;
  function.begin = reinterpret_cast<const uint8_t*>(range.begin);
  function.end = reinterpret_cast<const uint8_t*>(range.end);
  function.small_stack = true;
  return function;
}

}  // namespace zpoline
