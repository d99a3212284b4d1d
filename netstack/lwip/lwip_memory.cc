// What lwIP takes from its platform: memory, random numbers, checksums, and the place where failed assertions go.
// SPDX-License-Identifier: BSD-3-Clause
#include <cstring>

#include "base/log.h"
#include "netstack/lwip/lwip_core.h"

using netstack::the_core;

extern "C" {

// What is refused is asked for again in the next turn: lwIP itself forgets that it could not send.
void* zps_lwip_allocate(size_t bytes) {
  const bool allowed = bytes <= netstack::MemoryBudget::kHeaderBytes || the_core->memory.takes_data();
  void* const piece = allowed ? the_core->arena().allocate(bytes) : nullptr;
  if (piece == nullptr) [[unlikely]] the_core->output.set_starved(true);
  return piece;
}

void* zps_lwip_allocate_cleared(size_t count, size_t bytes) {
  void* piece = zps_lwip_allocate(count * bytes);
  if (piece != nullptr) memset(piece, 0, count * bytes);
  return piece;
}

void zps_lwip_release(void* piece) { the_core->arena().release(piece); }

uint32_t zps_lwip_random() { return the_core->random(); }

void zps_lwip_assert_failed(const char* message, const char* file, int line) {
  if (the_core->count_assertion() == 1) base::log(base::LogLevel::error, "lwIP: %s:%d: %s", file, line, message);
}

// The Internet checksum's sum (RFC 1071), not complemented: 64 bits at a time with end-around carry, then folded.
uint16_t zps_lwip_checksum(const void* data, int length) {
  const auto* p = static_cast<const unsigned char*>(data);
  const auto load = [](const unsigned char* from) {
    uint64_t value;
    __builtin_memcpy(&value, from, sizeof value);
    return value;
  };
  unsigned __int128 wide = 0;
  for (; length >= 32; length -= 32, p += 32) {
    wide += load(p);
    wide += load(p + 8);
    wide += load(p + 16);
    wide += load(p + 24);
  }
  for (; length >= 8; length -= 8, p += 8) wide += load(p);
  if (length > 0) {
    uint64_t tail = 0;
    __builtin_memcpy(&tail, p, static_cast<size_t>(length));
    wide += tail;
  }
  uint64_t sum = static_cast<uint64_t>(wide) + static_cast<uint64_t>(wide >> 64);
  if (sum < static_cast<uint64_t>(wide)) sum++;
  sum = (sum & 0xffff'ffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

}  // extern "C"
