// SipHash-2-4 of a few words: the keyed function that RFC 6528 wants for initial sequence numbers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace netstack {

// `words` are hashed as a message of 8 * count bytes (Aumasson, Bernstein: SipHash, 2012).
inline uint64_t siphash(const uint64_t key[2], const uint64_t* words, int count) noexcept {
  uint64_t v0 = key[0] ^ 0x736f6d6570736575, v1 = key[1] ^ 0x646f72616e646f6d;
  uint64_t v2 = key[0] ^ 0x6c7967656e657261, v3 = key[1] ^ 0x7465646279746573;
  const auto rotate = [](uint64_t x, int bits) { return x << bits | x >> (64 - bits); };
  const auto round = [&] {
    v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);
    v2 += v3, v3 = rotate(v3, 16) ^ v2;
    v0 += v3, v3 = rotate(v3, 21) ^ v0;
    v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);
  };
  const auto absorb = [&](uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  };
  for (int i = 0; i < count; i++) absorb(words[i]);
  absorb(static_cast<uint64_t>(count) * 8 << 56);
  v2 ^= 0xff;
  for (int i = 0; i < 4; i++) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

}  // namespace netstack
