// The address of a thread-local variable of this library; see thread_storage.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/thread_storage.h"

#include <cstddef>
#include <cstdint>
#include <elf.h>

#include "base/log.h"
#include "base/thread_variables.h"

extern "C" [[gnu::visibility("hidden")]] const Elf64_Ehdr __ehdr_start;  // the linker's

namespace shim {
namespace {

constexpr size_t kAlign = 16;

struct Segment {
  const uint8_t* first_values;
  size_t value_bytes;  // the rest begins as zero
  size_t bytes, align;
};

Segment segment_of_variables() noexcept {
  const auto* const image = reinterpret_cast<const uint8_t*>(&__ehdr_start);
  const auto* const headers = reinterpret_cast<const Elf64_Phdr*>(image + __ehdr_start.e_phoff);
  for (int i = 0; i < __ehdr_start.e_phnum; i++) {
    const Elf64_Phdr& header = headers[i];
    if (header.p_type == PT_TLS) return {image + header.p_vaddr, header.p_filesz, header.p_memsz, header.p_align};
  }
  return {};
}

// What constructors of libraries use that this one is made of: the engine's storage is not known yet, and there is one thread.
alignas(kAlign) uint8_t early[512];
bool early_is_filled = false;

size_t filled_at = 0;           // the byte of the storage that says that it has its first values

// Not memcpy(), which has vector registers: this runs for calls around which none is kept.
void copy(uint8_t* to, const uint8_t* from, size_t bytes) noexcept {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

[[gnu::noinline]] void fill(uint8_t* storage, volatile bool* filled) noexcept {
  const Segment segment = segment_of_variables();
  copy(storage, segment.first_values, segment.value_bytes);
  *filled = true;
}

}  // namespace

bool take_thread_storage(const zps_engine& engine) noexcept {
  const Segment segment = segment_of_variables();
  if (segment.bytes >= engine.thread_storage_bytes || segment.bytes > sizeof early || segment.align > kAlign) {
    base::log(base::LogLevel::error, "%zu bytes of thread-local variables of libzpstack-core.so do not fit into the engine's %u",
              segment.bytes, engine.thread_storage_bytes);
    return false;
  }
  auto* const storage = static_cast<uint8_t*>(engine.thread_storage());
  if (early_is_filled) copy(storage, early, segment.bytes);
  filled_at = engine.thread_storage_bytes - 1;
  *(storage + filled_at) = early_is_filled;
  base::variables_from_fs = storage - base::thread_pointer();
  return true;
}

}  // namespace shim

// What a compiler hands over: whose variable, and where in its segment. Here they are all of one library.
struct VariableIndex {
  uint64_t module, offset;
};

extern "C" [[gnu::visibility("hidden")]] void* __tls_get_addr(const VariableIndex* index) noexcept {
  using namespace shim;
  if (base::variables_from_fs == 0) [[unlikely]] {
    if (!early_is_filled) fill(early, &early_is_filled);
    return early + index->offset;
  }
  uint8_t* const storage = base::thread_pointer() + base::variables_from_fs;
  auto* const filled = reinterpret_cast<volatile bool*>(storage + filled_at);
  if (!*filled) [[unlikely]] fill(storage, filled);
  return storage + index->offset;
}

// For the library of the devices' drivers, whose own are all of this one.
extern "C" [[gnu::visibility("default")]] void* zps_thread_variable(const VariableIndex* index) noexcept { return __tls_get_addr(index); }
