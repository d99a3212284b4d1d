// memcpy, memmove, memset and memcmp for code inside the hook: legacy SSE2 only.
// SPDX-License-Identifier: BSD-3-Clause
//
// libc's versions use AVX where the CPU has it; the hook's entry keeps xmm0-15 and nothing above, so
// everything in the hook's libraries calls these instead (hidden, linked statically). Short lengths are done with two
// overlapping moves, longer ones in 16-byte steps; from kRepFrom on `rep movsb` (ERMS) takes over.
// Built with -fno-builtin and without loop recognition, or the compiler would turn them into calls of themselves.
#include <cstddef>
#include <cstdint>
#include <emmintrin.h>

namespace {

using Word16 [[gnu::may_alias, gnu::aligned(1)]] = uint16_t;
using Word32 [[gnu::may_alias, gnu::aligned(1)]] = uint32_t;
using Word64 [[gnu::may_alias, gnu::aligned(1)]] = uint64_t;

constexpr size_t kRepFrom = 2048;

inline __m128i load(const unsigned char* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline void store(unsigned char* p, __m128i v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }

// Moves `count` bytes with one load and one store from each end; good for any overlap, as both loads come first.
template <class T>
inline void move_ends(unsigned char* to, const unsigned char* from, size_t count) {
  const T head = *reinterpret_cast<const T*>(from);
  const T tail = *reinterpret_cast<const T*>(from + count - sizeof(T));
  *reinterpret_cast<T*>(to) = head;
  *reinterpret_cast<T*>(to + count - sizeof(T)) = tail;
}

// Up to 32 bytes, any overlap.
inline void move_short(unsigned char* to, const unsigned char* from, size_t count) {
  if (count >= 16) {
    const __m128i head = load(from), tail = load(from + count - 16);
    store(to, head);
    store(to + count - 16, tail);
  } else if (count >= 8) {
    move_ends<Word64>(to, from, count);
  } else if (count >= 4) {
    move_ends<Word32>(to, from, count);
  } else if (count >= 2) {
    move_ends<Word16>(to, from, count);
  } else if (count == 1) {
    *to = *from;
  }
}

inline void copy_forward(unsigned char* to, const unsigned char* from, size_t count) {
  const __m128i tail = load(from + count - 16);
  unsigned char* const last = to + count - 16;
  while (to + 32 <= last) {
    const __m128i a = load(from), b = load(from + 16);
    store(to, a);
    store(to + 16, b);
    to += 32;
    from += 32;
  }
  while (to < last) {
    store(to, load(from));
    to += 16;
    from += 16;
  }
  store(last, tail);
}

inline void copy_backward(unsigned char* to, const unsigned char* from, size_t count) {
  const __m128i head = load(from);
  while (count > 16) {
    count -= 16;
    store(to + count, load(from + count));
  }
  store(to, head);
}

}  // namespace

extern "C" {

[[gnu::visibility("hidden")]] void* memcpy(void* to, const void* from, size_t count) {
  auto* t = static_cast<unsigned char*>(to);
  auto* f = static_cast<const unsigned char*>(from);
  if (count <= 32) {
    move_short(t, f, count);
  } else if (count >= kRepFrom) {
    void* destination = to;
    asm volatile("rep movsb" : "+D"(destination), "+S"(from), "+c"(count) : : "memory");
  } else {
    copy_forward(t, f, count);
  }
  return to;
}

[[gnu::visibility("hidden")]] void* memmove(void* to, const void* from, size_t count) {
  auto* t = static_cast<unsigned char*>(to);
  auto* f = static_cast<const unsigned char*>(from);
  if (count <= 32) {
    move_short(t, f, count);
  } else if (t + count <= f || f + count <= t) {
    return memcpy(to, from, count);
  } else if (t < f) {
    for (; count >= 16; count -= 16, t += 16, f += 16) store(t, load(f));
    move_short(t, f, count);
  } else {
    copy_backward(t, f, count);
  }
  return to;
}

[[gnu::visibility("hidden")]] void* memset(void* to, int value, size_t count) {
  auto* t = static_cast<unsigned char*>(to);
  if (count >= kRepFrom) {
    void* destination = to;
    asm volatile("rep stosb" : "+D"(destination), "+c"(count) : "a"(value) : "memory");
    return to;
  }
  if (count >= 16) {
    const __m128i pattern = _mm_set1_epi8(static_cast<char>(value));
    unsigned char* const last = t + count - 16;
    for (; t < last; t += 16) store(t, pattern);
    store(last, pattern);
    return to;
  }
  const uint64_t pattern = 0x0101'0101'0101'0101u * static_cast<unsigned char>(value);
  if (count >= 8) {
    *reinterpret_cast<Word64*>(t) = pattern;
    *reinterpret_cast<Word64*>(t + count - 8) = pattern;
  } else if (count >= 4) {
    *reinterpret_cast<Word32*>(t) = static_cast<uint32_t>(pattern);
    *reinterpret_cast<Word32*>(t + count - 4) = static_cast<uint32_t>(pattern);
  } else if (count >= 2) {
    *reinterpret_cast<Word16*>(t) = static_cast<uint16_t>(pattern);
    *reinterpret_cast<Word16*>(t + count - 2) = static_cast<uint16_t>(pattern);
  } else if (count == 1) {
    *t = static_cast<unsigned char>(value);
  }
  return to;
}

[[gnu::visibility("hidden")]] int memcmp(const void* left, const void* right, size_t count) {
  auto* a = static_cast<const unsigned char*>(left);
  auto* b = static_cast<const unsigned char*>(right);
  for (; count >= 16; count -= 16, a += 16, b += 16) {
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(load(a), load(b))) != 0xffff) break;
  }
  for (; count > 0; count--, a++, b++) {
    if (*a != *b) return *a < *b ? -1 : 1;
  }
  return 0;
}

}  // extern "C"
