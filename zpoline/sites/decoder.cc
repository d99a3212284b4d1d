// The opcode maps behind decoder.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/sites/decoder.h"

#include <cstring>
#include <initializer_list>

namespace zpoline {
namespace {

// What follows an opcode. kZ is 2 bytes with a 66 prefix, else 4.
enum Form : uint8_t {
  kModRm = 1,
  kImm8 = 2,
  kImm16 = 4,
  kImmZ = 8,
  kBad = 16,
};

struct Map {
  uint8_t form[256] = {};
};

constexpr void fill(Map& map, int from, int to, uint8_t form) {
  for (int i = from; i <= to; i++) map.form[i] = form;
}

constexpr Map make_one_byte_map() {
  Map map;
  for (int row = 0; row < 0x40; row += 8) {
    fill(map, row, row + 3, kModRm);
    map.form[row + 4] = kImm8;
    map.form[row + 5] = kImmZ;
    fill(map, row + 6, row + 7, kBad);  // prefixes and the escape are taken before the map is asked
  }
  fill(map, 0x60, 0x62, kBad);
  map.form[0x63] = kModRm;
  map.form[0x68] = kImmZ;
  map.form[0x69] = kModRm | kImmZ;
  map.form[0x6a] = kImm8;
  map.form[0x6b] = kModRm | kImm8;
  fill(map, 0x70, 0x7f, kImm8);
  map.form[0x80] = kModRm | kImm8;
  map.form[0x81] = kModRm | kImmZ;
  map.form[0x82] = kBad;
  map.form[0x83] = kModRm | kImm8;
  fill(map, 0x84, 0x8f, kModRm);
  map.form[0x9a] = kBad;
  map.form[0xa8] = kImm8;
  map.form[0xa9] = kImmZ;
  fill(map, 0xb0, 0xb7, kImm8);
  fill(map, 0xb8, 0xbf, kImmZ);
  fill(map, 0xc0, 0xc1, kModRm | kImm8);
  map.form[0xc2] = map.form[0xca] = kImm16;
  map.form[0xc6] = kModRm | kImm8;
  map.form[0xc7] = kModRm | kImmZ;
  map.form[0xc8] = kImm16 | kImm8;
  map.form[0xcd] = kImm8;
  map.form[0xce] = kBad;
  fill(map, 0xd0, 0xd3, kModRm);
  fill(map, 0xd4, 0xd6, kBad);
  fill(map, 0xd8, 0xdf, kModRm);
  fill(map, 0xe0, 0xe7, kImm8);
  fill(map, 0xe8, 0xe9, kImmZ);
  map.form[0xea] = kBad;
  map.form[0xeb] = kImm8;
  fill(map, 0xf6, 0xf7, kModRm);
  fill(map, 0xfe, 0xff, kModRm);
  return map;
}

constexpr Map make_two_byte_map() {
  Map map;
  fill(map, 0, 255, kModRm);
  for (int none :
       {0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x37, 0x77, 0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa})
    map.form[none] = 0;
  fill(map, 0xc8, 0xcf, 0);
  for (int bad : {0x04, 0x0a, 0x0c, 0x24, 0x25, 0x26, 0x27, 0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x7a, 0x7b, 0xa6, 0xa7})
    map.form[bad] = kBad;
  for (int imm : {0x0f, 0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6}) map.form[imm] = kModRm | kImm8;
  fill(map, 0x80, 0x8f, kImmZ);
  return map;
}

constexpr Map kOneByte = make_one_byte_map();
constexpr Map kTwoByte = make_two_byte_map();

struct Reader {
  const uint8_t* code;
  size_t available;
  size_t at = 0;
  bool overrun = false;

  uint8_t take() noexcept {
    if (at >= available || at >= 15) {
      overrun = true;
      return 0;
    }
    return code[at++];
  }
  int64_t take_signed(int bytes) noexcept {
    if (at + bytes > available || at + bytes > 15) {
      overrun = true;
      return 0;
    }
    int64_t value = 0;
    memcpy(&value, code + at, bytes);
    at += bytes;
    const int shift = 64 - 8 * bytes;
    return static_cast<int64_t>(static_cast<uint64_t>(value) << shift) >> shift;
  }
};

struct Prefixes {
  bool operand16 = false;
  bool address32 = false;
  bool repne = false;
  bool rep = false;
  uint8_t rex = 0;
};

struct Operand {
  uint8_t mod = 0;
  uint8_t reg = 0;
  uint8_t rm = 0;
  bool stack_base = false;
  bool indexed = false;
  int64_t displacement = 0;
};

Operand take_operand(Reader& in, uint8_t rex) noexcept {
  Operand operand;
  const uint8_t modrm = in.take();
  operand.mod = modrm >> 6;
  operand.reg = (modrm >> 3 & 7) | (rex & 4 ? 8 : 0);
  operand.rm = modrm & 7;
  if (operand.mod == 3) return operand;
  uint8_t base = operand.rm;
  if (operand.rm == 4) {
    const uint8_t sib = in.take();
    base = sib & 7;
    operand.indexed = (sib >> 3 & 7) != 4 || (rex & 2);
    operand.stack_base = base == 4 && !(rex & 1);
  }
  if (operand.mod == 1) operand.displacement = in.take_signed(1);
  if (operand.mod == 2 || (operand.mod == 0 && base == 5)) operand.displacement = in.take_signed(4);
  return operand;
}

void note_frame(Instruction& out, const Operand& operand, uint8_t rex) noexcept {
  if (operand.mod == 3 || operand.displacement >= 0) return;
  if (operand.stack_base) out.below_rsp = true;
  if (operand.rm == 5 && operand.mod != 0 && !(rex & 1)) out.below_rbp = true;
}

// VEX, EVEX and XOP: after their payload always an opcode, nearly always a ModRM, sometimes an 8-bit immediate.
Instruction decode_vector(Reader& in, uint8_t first) noexcept {
  Instruction out;
  uint8_t map = 1;
  uint8_t rex = 0;
  if (first == 0xc5) {
    if (!(in.take() & 0x80)) rex |= 4;
  } else {
    const uint8_t p0 = in.take();
    map = p0 & (first == 0x62 ? 0x07 : 0x1f);
    rex = ((p0 & 0x80 ? 0 : 4) | (p0 & 0x40 ? 0 : 2) | (p0 & 0x20 ? 0 : 1));
    (void)in.take();
    if (first == 0x62) (void)in.take();
  }
  const uint8_t opcode = in.take();
  const bool known = first == 0x8f ? map >= 8 && map <= 10 : first == 0x62 ? map != 0 && map != 4 && map != 7 : map >= 1 && map <= 3;
  if (in.overrun || !known) return out;
  if (!(map == 1 && opcode == 0x77 && first != 0x62)) {
    Operand operand = take_operand(in, rex);
    // EVEX displacements are scaled; their sign is all that matters here.
    note_frame(out, operand, rex);
  }
  if (map == 3 || map == 8 || (map == 1 && (kTwoByte.form[opcode] & kImm8))) (void)in.take();
  if (map == 10) (void)in.take_signed(4);
  if (in.overrun) return out;
  out.kind = Kind::other;
  out.length = static_cast<uint8_t>(in.at);
  return out;
}

void classify_one_byte(Instruction& out, uint8_t opcode, const Operand& operand, const Prefixes& prefixes, int64_t immediate) noexcept {
  const bool wide = prefixes.rex & 8;
  if ((opcode & 0xf0) == 0x70 || (opcode >= 0xe0 && opcode <= 0xe3)) out.kind = Kind::branch;
  if (opcode == 0xe9 || opcode == 0xeb) out.kind = Kind::jump;
  if (opcode == 0xe8) out.kind = Kind::call;
  if (opcode == 0xc7 && operand.mod == 3 && operand.reg == 7 && operand.rm == 0) out.kind = Kind::branch;  // xbegin
  if (out.kind != Kind::other) {
    out.target = out.length + immediate;
    return;
  }
  if (opcode == 0xc2 || opcode == 0xc3 || opcode == 0xca || opcode == 0xcb || opcode == 0xcf || opcode == 0xf4) out.kind = Kind::end;
  if (opcode == 0xff && (operand.reg & 7) == 4) out.kind = operand.mod == 0 && operand.rm == 5 ? Kind::tail_jump : Kind::indirect_jump;
  if (opcode == 0xff && (operand.reg & 7) == 5) out.kind = Kind::tail_jump;
  const bool plain = !prefixes.operand16 && !(prefixes.rex & 1);
  if (plain && (opcode == 0xb8 && !wide)) out.kind = Kind::load_eax, out.immediate = static_cast<uint32_t>(immediate);
  if (plain && opcode == 0xc7 && operand.mod == 3 && operand.reg == 0 && operand.rm == 0 && immediate >= 0)
    out.kind = Kind::load_eax, out.immediate = static_cast<uint32_t>(immediate);
  if (plain && (opcode == 0x31 || opcode == 0x33) && operand.mod == 3 && operand.reg == 0 && operand.rm == 0) out.kind = Kind::load_eax;

  const bool on_rsp = wide && operand.mod == 3 && operand.rm == 4 && !(prefixes.rex & 1);
  if ((opcode == 0x81 || opcode == 0x83) && on_rsp) {
    if ((operand.reg == 5 && immediate > 0) || (operand.reg == 0 && immediate < 0) || operand.reg == 4) out.lowers_rsp = true;
  }
  if (opcode == 0x29 && on_rsp) out.lowers_rsp = true;
  if (opcode == 0x8d && wide && operand.reg == 4 && out.below_rsp) out.lowers_rsp = true, out.below_rsp = false;
  if (opcode == 0x89 && wide && operand.mod == 3 && operand.reg == 4 && operand.rm == 5 && !(prefixes.rex & 1)) out.frames_rbp = true;
  if (opcode == 0x8b && wide && operand.mod == 3 && operand.reg == 5 && operand.rm == 4 && !(prefixes.rex & 1)) out.frames_rbp = true;
}

void classify_two_byte(Instruction& out, uint8_t opcode, int64_t immediate) noexcept {
  if (opcode == 0x05) out.kind = Kind::syscall;
  if (opcode == 0x34) out.kind = Kind::sysenter;
  if (opcode == 0x0b || opcode == 0xb9 || opcode == 0xff || opcode == 0x07 || opcode == 0x35) out.kind = Kind::end;
  if ((opcode & 0xf0) == 0x80) {
    out.kind = Kind::branch;
    out.target = out.length + immediate;
  }
}

// The byte after which no prefix follows.
uint8_t take_prefixes(Reader& in, Prefixes& prefixes) noexcept {
  for (;;) {
    const uint8_t byte = in.take();
    if (in.overrun) return 0;
    if ((byte & 0xf0) == 0x40) {
      prefixes.rex = byte;  // counts only if the opcode comes next
      continue;
    }
    switch (byte) {
      case 0x66: prefixes.operand16 = true; break;
      case 0x67: prefixes.address32 = true; break;
      case 0xf2: prefixes.repne = true; break;
      case 0xf3: prefixes.rep = true; break;
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
      case 0x64:
      case 0x65:
      case 0xf0: break;
      default: return byte;
    }
    prefixes.rex = 0;
  }
}

int64_t take_immediate(Reader& in, uint8_t form, bool operand16) noexcept {
  int64_t immediate = 0;
  if (form & kImm16) immediate = in.take_signed(2);
  if (form & kImm8) immediate = in.take_signed(1);
  if (form & kImmZ) immediate = in.take_signed(operand16 ? 2 : 4);
  return immediate;
}

Instruction decode_two_byte(Reader& in, const Prefixes& prefixes) noexcept {
  Instruction out;
  const uint8_t opcode = in.take();
  if (opcode == 0x38 || opcode == 0x3a) {
    (void)in.take();
    note_frame(out, take_operand(in, prefixes.rex), prefixes.rex);
    if (opcode == 0x3a) (void)in.take();
    if (in.overrun) return out;
    out.length = static_cast<uint8_t>(in.at);
    out.kind = Kind::other;
    return out;
  }
  const uint8_t form = kTwoByte.form[opcode];
  if (in.overrun || (form & kBad)) return out;
  if (form & kModRm) {
    Operand operand = take_operand(in, prefixes.rex);
    if (opcode >= 0x20 && opcode <= 0x23) operand.mod = 3;  // control registers: mod is ignored
    note_frame(out, operand, prefixes.rex);
  }
  // A near branch keeps its 32-bit displacement with a 66 prefix (Intel; compilers never emit that).
  const int64_t immediate = take_immediate(in, form, false);
  if (opcode == 0x78 && (prefixes.operand16 || prefixes.repne)) (void)in.take_signed(2);  // extrq, insertq
  if (in.overrun) return out;
  out.length = static_cast<uint8_t>(in.at);
  out.kind = Kind::other;
  classify_two_byte(out, opcode, immediate);
  return out;
}

}  // namespace

Instruction decode(const uint8_t* code, size_t available) noexcept {
  Reader in{code, available};
  Prefixes prefixes;
  const uint8_t opcode = take_prefixes(in, prefixes);
  if (in.overrun) return {};
  if (opcode == 0x0f) return decode_two_byte(in, prefixes);
  if (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) return decode_vector(in, opcode);
  if (opcode == 0x8f && in.at < available && (code[in.at] & 0x1f) >= 8) return decode_vector(in, opcode);
  const uint8_t form = kOneByte.form[opcode];
  if (form & kBad) return {};

  Instruction out;
  Operand operand;
  const bool wide = prefixes.rex & 8;
  if (form & kModRm) {
    operand = take_operand(in, prefixes.rex);
    note_frame(out, operand, prefixes.rex);
  }
  int64_t immediate = 0;
  if (opcode >= 0xb8 && opcode <= 0xbf && wide) {
    immediate = in.take_signed(8);
  } else if (opcode >= 0xa0 && opcode <= 0xa3) {
    immediate = in.take_signed(prefixes.address32 ? 4 : 8);
  } else if (opcode == 0xe8 || opcode == 0xe9) {
    immediate = in.take_signed(4);
  } else if ((opcode == 0xf6 || opcode == 0xf7) && (operand.reg & 7) < 2) {
    immediate = take_immediate(in, opcode == 0xf6 ? kImm8 : kImmZ, prefixes.operand16 && !wide);
  } else {
    immediate = take_immediate(in, form, prefixes.operand16 && !wide);
  }
  if (in.overrun) return {};
  out.length = static_cast<uint8_t>(in.at);
  out.kind = Kind::other;
  classify_one_byte(out, opcode, operand, prefixes, immediate);
  return out;
}

}  // namespace zpoline
