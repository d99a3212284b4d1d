// SYN cookies: packing, hashing, checking.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/syn_cookies.h"

#include <cstring>

#include "netstack/lwip/siphash.h"

namespace netstack {
namespace {

// What peers say: the default, tunnels, PPPoE, IPv6's and IPv4's Ethernet, FDDI, jumbo frames, the most that lwIP sends.
constexpr uint16_t kSizes[8] = {SynOptions::kDefaultMss, 1200, 1360, 1440, 1460, 4312, 8940, 16280};
constexpr uint8_t kScales[8] = {SynOptions::kNoScale, 0, 2, 4, 6, 7, 8, 10};
constexpr uint32_t kHashBits = 25;
constexpr uint32_t kHashMask = (1u << kHashBits) - 1;
// Tells this use of the key from others.
constexpr uint64_t kPurpose = 0x73796e2d636f6f6b;

uint32_t code_of_size(uint16_t mss) noexcept {
  uint32_t code = 7;
  while (code > 0 && kSizes[code] > mss) code--;
  return code;
}

uint32_t code_of_scale(uint8_t scale) noexcept {
  if (scale == SynOptions::kNoScale) return 0;
  uint32_t code = 7;
  while (code > 1 && kScales[code] > scale) code--;
  return code;
}

uint32_t sealed(const uint64_t key[2], const FourTuple& tuple, uint32_t peer_isn, uint32_t minute, uint32_t facts) noexcept {
  uint64_t words[7] = {
      0, 0, 0, 0, uint64_t{facts} << 32 | uint64_t{tuple.local_port} << 16 | tuple.peer_port, uint64_t{peer_isn} << 32 | minute, kPurpose};
  memcpy(words, tuple.local.words_be, sizeof tuple.local.words_be);
  memcpy(words + 2, tuple.peer.words_be, sizeof tuple.peer.words_be);
  return facts << kHashBits | (static_cast<uint32_t>(siphash(key, words, 7)) & kHashMask);
}

}  // namespace

SynOptions parse_syn_options(const uint8_t* options, uint32_t bytes) noexcept {
  enum : uint8_t { kEnd = 0, kNothing = 1, kMss = 2, kScale = 3, kSack = 4, kTimestamps = 8 };
  SynOptions found;
  for (uint32_t at = 0; at < bytes && options[at] != kEnd;) {
    if (options[at] == kNothing) {
      at++;
      continue;
    }
    const uint32_t length = at + 1 < bytes ? options[at + 1] : 0;
    if (length < 2 || at + length > bytes) break;
    const uint8_t* const value = options + at + 2;
    if (options[at] == kMss && length == 4) {
      const auto mss = static_cast<uint16_t>(value[0] << 8 | value[1]);
      if (mss != 0) found.mss = mss < SynOptions::kLeastMss ? SynOptions::kLeastMss : mss;
    } else if (options[at] == kScale && length == 3) {
      found.scale = value[0] > 14 ? 14 : value[0];  // RFC 7323, 2.3
    } else if (options[at] == kSack && length == 2) {
      found.sack = true;
    } else if (options[at] == kTimestamps && length == 10) {
      found.timestamps = true;
      found.stamp = uint32_t{value[0]} << 24 | uint32_t{value[1]} << 16 | uint32_t{value[2]} << 8 | value[3];
    }
    at += length;
  }
  return found;
}

uint32_t make_syn_cookie(const uint64_t key[2], const FourTuple& tuple, uint32_t peer_isn, uint32_t minute,
                         const SynOptions& options) noexcept {
  const uint32_t facts = code_of_size(options.mss) << 4 | code_of_scale(options.scale) << 1 | (options.sack ? 1 : 0);
  return sealed(key, tuple, peer_isn, minute, facts);
}

bool read_syn_cookie(const uint64_t key[2], const FourTuple& tuple, uint32_t peer_isn, uint32_t minute, uint32_t cookie,
                     SynOptions* options) noexcept {
  const uint32_t facts = cookie >> kHashBits;
  if (sealed(key, tuple, peer_isn, minute, facts) != cookie && sealed(key, tuple, peer_isn, minute - 1, facts) != cookie) return false;
  *options = {kSizes[facts >> 4], kScales[facts >> 1 & 7], (facts & 1) != 0, false, 0};
  return true;
}

}  // namespace netstack
