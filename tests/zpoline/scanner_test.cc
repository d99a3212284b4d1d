// The decoder and the proof of sites, checked against two disassemblers over whole programs and libraries.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/scanner.h"

#include <bfd.h>
#include <capstone/capstone.h>
#include <dis-asm.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tests/zpoline/mapped_elf.h"
#include "zpoline/sites/decoder.h"
#include "zpoline/sites/functions.h"

namespace {

using zpoline::Site;

const char* const kFiles[] = {
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/lib/x86_64-linux-gnu/libssl.so.3",
    "/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/bin/redis-server",
    "/usr/sbin/nginx",
    "/usr/bin/node",
    "/usr/bin/python3.11",
    "/usr/bin/openssl",
};

std::vector<Site> sites_of(const dl_phdr_info& object, zpoline::ScanCounts* counts = nullptr) {
  std::vector<Site> sites;
  const auto result = zpoline::scan_object(
      object, [](void* context, const Site& site) { static_cast<std::vector<Site>*>(context)->push_back(site); }, &sites);
  if (counts != nullptr) *counts = result;
  return sites;
}

class Capstone {
 public:
  Capstone() {
    EXPECT_EQ(cs_open(CS_ARCH_X86, CS_MODE_64, &handle_), CS_ERR_OK);
    instruction_ = cs_malloc(handle_);
  }
  ~Capstone() {
    cs_free(instruction_, 1);
    cs_close(&handle_);
  }
  // The length of the instruction at `code`, 0 if it is none; its mnemonic in `name`.
  size_t length(const uint8_t* code, size_t available, std::string* name = nullptr) {
    uint64_t address = 0;
    size_t left = available;
    if (!cs_disasm_iter(handle_, &code, &left, &address, instruction_)) return 0;
    if (name != nullptr) *name = instruction_->mnemonic;
    return instruction_->size;
  }

 private:
  csh handle_ = 0;
  cs_insn* instruction_ = nullptr;
};

int append_text(void* stream, const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  static_cast<std::string*>(stream)->append(text);
  return length;
}

int append_styled_text(void* stream, enum disassembler_style, const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  static_cast<std::string*>(stream)->append(text);
  return length;
}

class Opcodes {
 public:
  Opcodes() {
    init_disassemble_info(&info_, &text_, append_text, append_styled_text);
    info_.arch = bfd_arch_i386;
    info_.mach = bfd_mach_x86_64;
    disassemble_init_for_target(&info_);
    disassemble_ = disassembler(bfd_arch_i386, false, bfd_mach_x86_64, nullptr);
  }
  size_t length(const uint8_t* code, size_t available, std::string* text) {
    info_.buffer = const_cast<bfd_byte*>(code);
    info_.buffer_vma = 0;
    info_.buffer_length = available;
    text_.clear();
    const int length = disassemble_(0, &info_);
    *text = text_;
    return length < 0 || text_.find("(bad)") != std::string::npos ? 0 : static_cast<size_t>(length);
  }

 private:
  disassemble_info info_{};
  disassembler_ftype disassemble_ = nullptr;
  std::string text_;
};

class OverFiles : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (access(GetParam(), R_OK) != 0) GTEST_SKIP() << GetParam() << " is not installed";
  }
};

// Both disassemblers, started at the function's first byte, come upon every site as a system call.
TEST_P(OverFiles, TwoDisassemblersAgreeOnEverySite) {
  const tests::MappedElf file(GetParam());
  ASSERT_TRUE(file.ok());
  zpoline::ScanCounts counts;
  const auto sites = sites_of(file.info(), &counts);
  const zpoline::FunctionTable table(file.info());
  Capstone capstone;
  Opcodes opcodes;
  for (const Site& site : sites) {
    const auto function = table.find(site.address);
    ASSERT_TRUE(function.contains(site.address));
    for (int which = 0; which < 2; which++) {
      const uint8_t* at = function.begin;
      std::string name;
      while (at <= site.address) {
        const size_t left = static_cast<size_t>(function.end - at);
        const size_t length = which == 0 ? capstone.length(at, left, &name) : opcodes.length(at, left, &name);
        if (length == 0) at += 1;
        else if (at + length > site.address) break;
        else at += length;
      }
      EXPECT_EQ(name.rfind("sys", 0), 0u) << GetParam() << ": " << (which == 0 ? "capstone" : "libopcodes") << " sees " << name << " at +0x"
                                          << std::hex << site.address - reinterpret_cast<const uint8_t*>(file.info().dlpi_addr);
    }
  }
  printf("%s: %zu pairs, %zu sites, %zu functions, %zu instructions\n", GetParam(), counts.pairs, counts.sites, counts.functions,
         counts.instructions);
}

// No real system call that a disassembler finds by a straight walk through the functions is missed, and none too many is found.
TEST_P(OverFiles, KnownCounts) {
  const tests::MappedElf file(GetParam());
  const std::string path = GetParam();
  const auto sites = sites_of(file.info());
  if (path.find("libcrypto") != std::string::npos || path.find("libssl") != std::string::npos || path.find("nginx") != std::string::npos ||
      path.find("redis") != std::string::npos) {
    EXPECT_EQ(sites.size(), 0u);
  }
  if (path.find("libc.so") != std::string::npos) {
    EXPECT_GT(sites.size(), 400u);
  }
}

std::vector<const uint8_t*> exported_functions(const dl_phdr_info& object) {
  const ElfW(Addr) base = object.dlpi_addr;
  ElfW(Addr) symbols = 0, strings = 0;
  for (int i = 0; i < object.dlpi_phnum; i++) {
    if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    for (const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(base + object.dlpi_phdr[i].p_vaddr); entry->d_tag != DT_NULL; entry++) {
      if (entry->d_tag == DT_SYMTAB) symbols = entry->d_un.d_ptr < base ? base + entry->d_un.d_ptr : entry->d_un.d_ptr;
      if (entry->d_tag == DT_STRTAB) strings = entry->d_un.d_ptr < base ? base + entry->d_un.d_ptr : entry->d_un.d_ptr;
    }
  }
  std::vector<const uint8_t*> functions;
  for (const auto* symbol = reinterpret_cast<const ElfW(Sym)*>(symbols); reinterpret_cast<ElfW(Addr)>(symbol) < strings; symbol++) {
    if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && symbol->st_shndx != SHN_UNDEF)
      functions.push_back(reinterpret_cast<const uint8_t*>(base + symbol->st_value));
  }
  return functions;
}

// Every exported function is an entry of what lies at its address, and no other address is.
TEST_P(OverFiles, ExportedFunctionsAreEntries) {
  const tests::MappedElf file(GetParam());
  const zpoline::FunctionTable table(file.info());
  for (const uint8_t* at : exported_functions(file.info())) {
    size_t visits = 0;
    table.for_each_entry({at, at + 1}, [&](const uint8_t* entry) {
      EXPECT_EQ(entry, at);
      visits++;
    });
    ASSERT_GE(visits, 1u) << GetParam() << " +0x" << std::hex << at - reinterpret_cast<const uint8_t*>(file.info().dlpi_addr);
  }
}

// Lengths agree with Capstone on every instruction of (a part of) the text; where Capstone knows none, nothing is asked.
TEST_P(OverFiles, LengthsAgreeWithCapstone) {
  const tests::MappedElf file(GetParam());
  Capstone capstone;
  const zpoline::FunctionTable table(file.info());
  size_t compared = 0;
  size_t different = 0;
  for (int i = 0; i < file.info().dlpi_phnum; i++) {
    const ElfW(Phdr)& segment = file.info().dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    const auto* text = reinterpret_cast<const uint8_t*>(file.info().dlpi_addr + segment.p_vaddr);
    const size_t bytes = segment.p_filesz;
    const size_t step = bytes / 300 + 1;
    for (size_t probe = 0; probe < bytes; probe += step) {
      const auto function = table.find(text + probe);
      const uint8_t* at = function.begin;
      for (int n = 0; at < function.end && n < 300; n++) {
        const size_t left = static_cast<size_t>(function.end - at);
        const size_t theirs = capstone.length(at, left);
        if (theirs == 0) break;
        const auto ours = zpoline::decode(at, left);
        compared++;
        if (ours.length != theirs && different++ < 5) {
          ADD_FAILURE() << GetParam() << " +0x" << std::hex << at - reinterpret_cast<const uint8_t*>(file.info().dlpi_addr) << ": "
                        << std::dec << int{ours.length} << " bytes, capstone " << theirs;
        }
        at += theirs;
      }
    }
  }
  printf("%s: %zu instructions compared, %zu different\n", GetParam(), compared, different);
  EXPECT_EQ(different, 0u);
}

INSTANTIATE_TEST_SUITE_P(Installed, OverFiles, ::testing::ValuesIn(kFiles));

// Golden cases: bytes that look like a system call and are none, and such that are.
struct Golden {
  const char* name;
  std::vector<uint8_t> code;
  std::vector<int> sites;  // offsets of 0f 05
  int number;
  zpoline::Jump jump = zpoline::Jump::none;  // at the last of them
  int label = 0;                             // offset of a further symbol
};

constexpr auto kNone = zpoline::Jump::none;
constexpr auto kLoad = zpoline::Jump::load;
constexpr auto kCompare = zpoline::Jump::compare;

class GoldenCode : public ::testing::TestWithParam<Golden> {};

TEST_P(GoldenCode, SitesAreWhatTheyShouldBe) {
  // An object with one exported function that is the code.
  struct Object {
    uint8_t text[4096];
    ElfW(Sym) symbols[3];
    ElfW(Dyn) dynamic[3];
  };
  alignas(64) static Object built;
  built = Object{};
  uint8_t* const text = built.text;
  ElfW(Sym)* const symbols = built.symbols;
  memset(text, 0xcc, sizeof built.text);
  memcpy(text, GetParam().code.data(), GetParam().code.size());
  symbols[1].st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
  symbols[1].st_shndx = 1;
  symbols[1].st_size = GetParam().code.size();
  symbols[2].st_shndx = 1;
  symbols[2].st_value = static_cast<ElfW(Addr)>(GetParam().label);
  const auto base = reinterpret_cast<ElfW(Addr)>(text);
  built.dynamic[0] = {DT_SYMTAB, {reinterpret_cast<ElfW(Addr)>(symbols)}};
  built.dynamic[1] = {DT_STRTAB, {reinterpret_cast<ElfW(Addr)>(symbols + 3)}};
  ElfW(Phdr) segments[2] = {};
  segments[0].p_type = PT_LOAD;
  segments[0].p_flags = PF_R | PF_X;
  segments[0].p_filesz = segments[0].p_memsz = sizeof built.text;
  segments[1].p_type = PT_DYNAMIC;
  segments[1].p_vaddr = reinterpret_cast<ElfW(Addr)>(built.dynamic) - base;
  dl_phdr_info object{};
  object.dlpi_addr = base;
  object.dlpi_name = "golden";
  object.dlpi_phdr = segments;
  object.dlpi_phnum = 2;
  std::vector<int> found;
  int number = zpoline::kUnknownNumber;
  zpoline::Jump jump = zpoline::Jump::none;
  for (const Site& site : sites_of(object)) {
    found.push_back(static_cast<int>(site.address - text));
    number = site.number;
    jump = site.jump;
    EXPECT_TRUE(jump != kLoad || site.load == site.address - 5);
    EXPECT_TRUE(jump != kCompare || site.load == site.address - 2);
  }
  EXPECT_EQ(found, GetParam().sites);
  EXPECT_EQ(jump, GetParam().jump);
  EXPECT_EQ(number, GetParam().number);
}

INSTANTIATE_TEST_SUITE_P(
    Bytes, GoldenCode,
    ::testing::Values(
        Golden{"known number", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {5}, 0x27, kLoad},  // mov $39,%eax; syscall; ret
        // jmp to the mov: its first byte may be landed on
        Golden{"branch to the mov", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0x74, 0xf7}, {5}, 0x27, kLoad},
        // js into the mov, where f4 (hlt) is
        Golden{"branch into the mov", {0x78, 0x01, 0xb8, 0xf4, 1, 0, 0, 0x0f, 0x05, 0xc3}, {7}, 500},
        Golden{"symbol in the mov", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {5}, 0x27, kNone, 1},
        Golden{"symbol on the call", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {5}, 0x27, kNone, 5},
        Golden{"symbol in the call", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {5}, 0x27, kNone, 6},
        Golden{"symbol behind the call", {0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {5}, 0x27, kLoad, 7},
        // js over it; jmp *%rdx
        Golden{"computed jump", {0x78, 0x02, 0xff, 0xe2, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {9}, 0x27},
        // xor %eax,%eax; syscall; cmp $-4096,%rax; ja behind it; ret
        Golden{"zeroed and compared", {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0, 0xc3}, {2}, 0, kCompare},
        Golden{"of 32 bits compared", {0x31, 0xc0, 0x0f, 5, 0x90, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0, 0xc3}, {2}, 0},
        // the same with a branch back to the compare, and to the xor
        Golden{"branch to the compare", {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0xf8, 0xc3}, {2}, 0},
        Golden{"branch to the xor", {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0x77, 0xf4, 0xc3}, {2}, 0, kCompare},
        // a branch back that the flow does not reach
        Golden{"far branch to the compare",
               {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0xc3, 0xe9, 0xf4, 0xff, 0xff, 0xff},
               {2},
               0},
        Golden{"symbol on the compare", {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0xc3}, {2}, 0, kNone, 4},
        Golden{"symbol behind the compare", {0x31, 0xc0, 0x0f, 5, 0x48, 0x3d, 0, 0xf0, 0xff, 0xff, 0xc3}, {2}, 0, kCompare, 10},
        Golden{"prefixed after mov", {0xb8, 0x27, 0, 0, 0, 0x48, 0x0f, 0x05, 0xc3}, {6}, 0x27},
        Golden{"wide mov", {0x48, 0xc7, 0xc0, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {7}, 0x27},
        Golden{"zeroed", {0x31, 0xc0, 0x0f, 0x05, 0xc3}, {2}, 0},                                        // xor %eax,%eax; syscall
        Golden{"number in a register", {0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3}, {3}, -1},                   // mov %rdi,%rax; syscall
        Golden{"a branch lands between", {0x74, 0x05, 0xb8, 0x27, 0, 0, 0, 0x0f, 0x05, 0xc3}, {7}, -1},  // je over the mov
        Golden{"immediate", {0xb8, 0x0f, 0x05, 0, 0, 0xc3}, {}, -1},                                     // mov $0x50f,%eax
        Golden{"displacement", {0x8b, 0x87, 0x0f, 0x05, 0, 0, 0xc3}, {}, -1},                            // mov 0x50f(%rdi),%eax
        Golden{"data behind a jump", {0xeb, 0x02, 0x0f, 0x05, 0xc3}, {}, -1},                            // jmp over two bytes
        Golden{"data behind a return", {0xc3, 0x0f, 0x05, 0x90}, {}, -1}, Golden{"prefixed", {0x48, 0x0f, 0x05, 0xc3}, {1}, -1},
        Golden{"overlapping", {0x74, 0x01, 0xb8, 0x0f, 0x05, 0x90, 0x90, 0xc3}, {}, -1}),  // a branch into a mov's immediate
    [](const auto& golden) {
      std::string name = golden.param.name;
      for (char& c : name) c = c == ' ' ? '_' : c;
      return name;
    });

}  // namespace
