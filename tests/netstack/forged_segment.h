// A TCP segment that nobody's stack would send, as a frame.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <arpa/inet.h>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory_wire.h"

namespace netstack_test {

inline uint16_t sum_of(const uint8_t* data, size_t length, uint32_t sum) {
  for (size_t i = 0; i + 1 < length; i += 2) sum += static_cast<uint32_t>(data[i] << 8 | data[i + 1]);
  if (length % 2 != 0) sum += static_cast<uint32_t>(data[length - 1] << 8);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

// From `source` (the client's address, if not given) to the server's.
struct Segment {
  uint16_t from, to;
  uint32_t seq, ack;
  uint8_t flags;
  std::vector<uint8_t> options = {}, data = {};
  uint16_t window = 1000;
  uint32_t source_be = inet_addr("198.18.0.1");
  uint16_t urgent = 0;

  std::vector<uint8_t> frame(const MemoryWire& source, const MemoryWire& target) const {
    std::vector<uint8_t> f(14 + 20 + 20 + options.size() + data.size());
    memcpy(&f[0], target.facts().mac, 6);
    memcpy(&f[6], source.facts().mac, 6);
    f[12] = 8;
    uint8_t* ip = &f[14];
    const auto put16 = [](uint8_t* at, uint32_t v) { at[0] = static_cast<uint8_t>(v >> 8), at[1] = static_cast<uint8_t>(v); };
    const auto put32 = [&](uint8_t* at, uint32_t v) { put16(at, v >> 16), put16(at + 2, v & 0xffff); };
    ip[0] = 0x45;
    put16(ip + 2, static_cast<uint32_t>(f.size() - 14));
    ip[8] = 64;
    ip[9] = 6;
    put32(ip + 12, ntohl(source_be));
    put32(ip + 16, ntohl(inet_addr("198.18.0.2")));
    put16(ip + 10, sum_of(ip, 20, 0));
    uint8_t* tcp = ip + 20;
    put16(tcp, from);
    put16(tcp + 2, to);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = static_cast<uint8_t>((20 + options.size()) / 4 << 4);
    tcp[13] = flags;
    put16(tcp + 14, window);
    put16(tcp + 18, urgent);
    std::copy(options.begin(), options.end(), tcp + 20);
    std::copy(data.begin(), data.end(), tcp + 20 + options.size());
    const size_t length = f.size() - 34;
    put16(tcp + 16, sum_of(tcp, length, static_cast<uint16_t>(~sum_of(ip + 12, 8, 6 + static_cast<uint32_t>(length)))));
    return f;
  }
};

inline constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16, kUrg = 32;

// What the stack answered: the fields of a TCP frame.
struct Seen {
  uint32_t peer_be, sequence, acknowledgement;
  uint16_t port, peer_port, window, urgent;
  uint8_t flags;
  uint8_t mac[6];  // of its destination
  std::vector<uint8_t> options;

  // False if the frame is no TCP segment.
  bool read(const uint8_t* f, uint32_t length) {
    const auto word = [&](size_t at) { return static_cast<uint32_t>(f[at] << 24 | f[at + 1] << 16 | f[at + 2] << 8 | f[at + 3]); };
    const auto half = [&](size_t at) { return static_cast<uint16_t>(f[at] << 8 | f[at + 1]); };
    if (length < 54 || f[12] != 8 || f[13] != 0 || f[23] != 6) return false;
    memcpy(mac, f, 6);
    memcpy(&peer_be, f + 30, 4);
    port = half(34), peer_port = half(36), sequence = word(38), acknowledgement = word(42), flags = f[47], window = half(48);
    urgent = half(52);
    const size_t end = 34u + static_cast<size_t>(f[46] >> 4) * 4;
    options.assign(f + 54, f + (end < length ? end : length));
    return true;
  }
};

}  // namespace netstack_test
