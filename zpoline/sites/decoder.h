// Lengths and control flow of x86-64 instructions: just enough to prove where instructions begin.
// SPDX-License-Identifier: BSD-3-Clause
//
// A general disassembler answers a hundred times more than the proof needs and takes about 300 ns per instruction;
// libc's functions that hold a system call are some 40 000 instructions, so that alone would be over the start-up
// budget. This one knows the opcode maps (one byte, 0F, 0F38, 0F3A, VEX, EVEX, XOP), prefixes, ModRM, SIB,
// displacements and immediates, and names the few kinds that steer control flow. Tests compare it, instruction by
// instruction, with Capstone and with libopcodes over whole libraries.
//
// Source: Intel SDM volume 2, appendix A (opcode maps); AMD APM volume 3 for XOP and 3DNow!.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zpoline {

enum class Kind : uint8_t {
  invalid,        // not an instruction of 64-bit mode, or cut off by the end of the code
  other,          // falls through
  jump,           // direct, unconditional: `target`
  branch,         // direct, conditional: `target`
  call,           // direct: `target`
  indirect_jump,  // through a register or a computed table slot
  tail_jump,      // through a fixed slot (jmp *slot(%rip)): leaves the function
  end,            // ret, iret, hlt, ud2: nothing follows
  syscall,        // 0f 05, also with prefixes
  sysenter,       // 0f 34
  load_eax,       // mov $imm32,%eax, mov $imm32,%rax or xor %eax,%eax: `immediate`
};

struct Instruction {
  uint8_t length = 0;
  Kind kind = Kind::invalid;
  bool below_rsp = false;   // touches or forms an address below rsp (a red-zone user)
  bool below_rbp = false;   // has a memory operand at a negative distance from rbp
  bool frames_rbp = false;  // mov %rsp,%rbp
  bool lowers_rsp = false;  // sub $n,%rsp and its like: the frame is real, nothing lies below rsp
  uint32_t immediate = 0;
  int64_t target = 0;  // of jump, branch and call: distance from the start of this instruction
};

// Decodes the instruction at `code`, of which `available` bytes may be read.
[[nodiscard]] Instruction decode(const uint8_t* code, size_t available) noexcept;

}  // namespace zpoline
