// A hook that, when the program ends, compares all its executable file mappings with their files.
// SPDX-License-Identifier: BSD-3-Clause
//
// Every difference must be a whole `0f 05` that became `ff d0` (a call) or `f4 05` (a trap), or a whole `b8 number 0f 05` that became `e9
// distance` with the two bytes behind it as they were or `ff d0`, or an `31 c0 0f 05` before `cmp $-4096,%rax` that became, with that, `e9
// distance`. Such a jump must lead to a stub in memory that is private, anonymous, executable and not writable, and each byte of the stub
// must be what that site needs. libcrypto, libssl and the programs named by the tests hold no system call of their own, so a difference
// there is wrong.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "zpoline/hook.h"

namespace {

struct Totals {
  long rewritten = 0;
  long jumps = 0;
  long wrong = 0;
};

template <class T>
T load(const uint8_t* at) {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

// Where the distance that ends at `end` leads.
uint64_t target(const uint8_t* end) { return reinterpret_cast<uint64_t>(end) + static_cast<uint64_t>(int64_t{load<int32_t>(end - 4)}); }

struct Mapping {
  unsigned long begin, end, offset;
  char permissions[8];
  char path[300];
};
Mapping mappings[2048];
size_t mapping_count = 0;

void read_mappings() {
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[4400];
  while (maps != nullptr && mapping_count < sizeof mappings / sizeof mappings[0] && fgets(line, sizeof line, maps) != nullptr) {
    Mapping& mapping = mappings[mapping_count];
    mapping.path[0] = '\0';
    if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %299s", &mapping.begin, &mapping.end, mapping.permissions, &mapping.offset, mapping.path) >=
        4)
      mapping_count++;
  }
  if (maps != nullptr) fclose(maps);
}

// True if [address, address + bytes) lies in one mapping that is r-xp and whose name contains `name` ("": has none).
bool is_code(uint64_t address, size_t bytes, const char* name) {
  for (size_t i = 0; i < mapping_count; i++) {
    const Mapping& mapping = mappings[i];
    if (address < mapping.begin || address + bytes > mapping.end) continue;
    const bool named = *name == '\0' ? mapping.path[0] == '\0' : strstr(mapping.path, name) != nullptr;
    return strcmp(mapping.permissions, "r-xp") == 0 && named;
  }
  return false;
}

constexpr const char* kCompare = "\x48\x3d\0\xf0\xff\xff";

// A stub as zpoline/sites/stubs.cc describes it, for the site at `site` whose system call ends at `next`.
bool is_stub_of(const uint8_t* site, uint32_t number, uint64_t next, bool compares) {
  const auto* stub = reinterpret_cast<const uint8_t*>(target(site + 5));
  constexpr size_t kStubBytes = 48;
  constexpr uint32_t kExit = 60;  // jumps: it may have no stack
  if (!is_code(reinterpret_cast<uint64_t>(stub), kStubBytes, "")) return false;
  const bool head = memcmp(stub, "\x48\x8d\xa4\x24\x78\xff\xff\xff\xb8", 9) == 0 && load<uint32_t>(stub + 9) == number &&
                    memcmp(stub + 13, "\x48\x8d\x0d", 3) == 0 && memcmp(stub + 20, number == kExit ? "\xff\x25" : "\xff\x15", 2) == 0 &&
                    memcmp(stub + 26, "\x48\x8d\xa4\x24\x88\0\0\0", 8) == 0;
  const uint8_t* end = stub + (compares ? 45 : 39);
  if (!head || (compares && memcmp(stub + 34, kCompare, 6) != 0) || end[-5] != 0xe9) return false;
  for (const uint8_t* rest = end; rest < stub + kStubBytes; rest++) {
    if (*rest != 0xcc) return false;
  }
  if (target(stub + 20) != next || target(end) != next + (compares ? 6 : 0)) return false;
  const auto* slot = reinterpret_cast<const uint8_t*>(target(stub + 26));
  return is_code(reinterpret_cast<uint64_t>(slot), sizeof(uint64_t), "") && is_code(load<uint64_t>(slot), 1, "libzpstack.so");
}

// The length of the site that became a jump at `text`, 0 if there is none.
size_t jump_bytes(const uint8_t* text, const uint8_t* file) {
  const auto at = reinterpret_cast<uint64_t>(text);
  if (text[0] != 0xe9) return 0;
  if (file[0] == 0xb8 && file[5] == 0x0f && file[6] == 0x05) {
    const bool call = text[5] == 0xff && text[6] == 0xd0;
    const bool same = text[5] == 0x0f && text[6] == 0x05;
    return (call || same) && is_stub_of(text, load<uint32_t>(file + 1), at + 7, false) ? 7 : 0;
  }
  const bool compared =
      memcmp(file, "\x31\xc0\x0f\x05", 4) == 0 && memcmp(file + 4, kCompare, 6) == 0 && memcmp(text + 5, kCompare + 1, 5) == 0;
  return compared && is_stub_of(text, 0, at + 4, true) ? 10 : 0;
}

bool must_be_untouched(const char* path) {
  for (const char* name : {"libcrypto", "libssl", "/nginx", "/redis", "/bash"}) {
    if (strstr(path, name) != nullptr) return true;
  }
  return false;
}

void compare(const uint8_t* text, size_t bytes, const uint8_t* file, const char* path, Totals& totals) {
  for (size_t i = 0; i < bytes; i++) {
    if (text[i] == file[i]) continue;
    const bool call = i + 1 < bytes && file[i] == 0x0f && file[i + 1] == 0x05 && text[i] == 0xff && text[i + 1] == 0xd0;
    const bool trap = i + 1 < bytes && file[i] == 0x0f && file[i + 1] == 0x05 && text[i] == 0xf4 && text[i + 1] == 0x05;
    const size_t jump = !call && i + 10 <= bytes ? jump_bytes(text + i, file + i) : 0;
    if ((!call && !trap && jump == 0) || must_be_untouched(path)) {
      totals.wrong++;
      fprintf(stderr, "selfcheck: %s differs at +0x%zx\n", path, i);
      return;
    }
    totals.rewritten++;
    totals.jumps += jump > 0 ? 1 : 0;
    i += jump > 0 ? jump - 1 : 1;
  }
}

void before_exit(int64_t) {
  Totals totals;
  read_mappings();
  for (size_t i = 0; i < mapping_count; i++) {
    const Mapping& mapping = mappings[i];
    if (mapping.permissions[0] != 'r' || mapping.permissions[2] != 'x' || mapping.path[0] != '/') continue;
    const size_t bytes = mapping.end - mapping.begin;
    const int fd = open(mapping.path, O_RDONLY | O_CLOEXEC);
    const auto* file = static_cast<const uint8_t*>(mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, fd, static_cast<off_t>(mapping.offset)));
    if (file != MAP_FAILED) compare(reinterpret_cast<const uint8_t*>(mapping.begin), bytes, file, mapping.path, totals);
    else totals.wrong++;
    munmap(const_cast<uint8_t*>(file), bytes);
    close(fd);
  }
  fprintf(stderr, "selfcheck: %ld rewritten, %ld wrong, %ld of them jumps\n", totals.rewritten, totals.wrong, totals.jumps);
}

int64_t on_syscall(zps_call*) { return ZPS_PASS; }

}  // namespace

extern "C" [[gnu::visibility("default")]] int zps_hook_open(const zps_engine*, zps_hook* hook) {
  hook->abi = ZPS_HOOK_ABI;
  hook->on_syscall = on_syscall;
  for (int nr = 0; nr < ZPS_NR_COUNT; nr++) hook->claim[nr] = ZPS_CLAIM_GENERAL;  // as many sites as possible
  hook->claim[60] = ZPS_CLAIM_NONE;                                               // the engine's own way of exit
  hook->before_exit = before_exit;
  return 0;
}
