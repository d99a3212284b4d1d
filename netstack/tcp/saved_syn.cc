// Copies the headers together and undoes what lwIP did to them.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/saved_syn.h"

#include <cstring>
#include <new>

#include "lwip/ip.h"
#include "lwip/prot/ethernet.h"
#include "netstack/lwip/lwip_core.h"

namespace netstack {
namespace {

constexpr size_t kFrameHeader = SIZEOF_ETH_HDR - ETH_PAD_SIZE;

// What comes from the stack itself had no frame.
void copy_frame_header(uint8_t* to, const uint8_t* source_mac, bool v6) noexcept {
  if (source_mac != nullptr) {
    memcpy(to, source_mac - ETH_HWADDR_LEN, kFrameHeader);
    return;
  }
  memset(to, 0, kFrameHeader);
  const u16_t type = v6 ? PP_HTONS(ETHTYPE_IPV6) : PP_HTONS(ETHTYPE_IP);
  memcpy(to + 2 * ETH_HWADDR_LEN, &type, sizeof type);
}

}  // namespace

SavedSyn* save_syn(LwipCore& core, const tcp_hdr& header, bool with_frame) noexcept {
  const bool v6 = ip_current_is_v6() != 0;
  const void* const ip = v6 ? static_cast<const void*>(ip6_current_header()) : ip4_current_header();
  const size_t frame_bytes = with_frame ? kFrameHeader : 0, ip_bytes = ip_current_header_tot_len(), tcp_bytes = TCPH_HDRLEN_BYTES(&header);
  const bool is_contiguous = reinterpret_cast<const uint8_t*>(ip) + ip_bytes == reinterpret_cast<const uint8_t*>(&header);
  const size_t bytes = frame_bytes + ip_bytes + tcp_bytes;
  void* const memory = is_contiguous ? core.arena().allocate(sizeof(SavedSyn) + bytes) : nullptr;
  if (memory == nullptr) return nullptr;
  auto* const saved = new (memory) SavedSyn{static_cast<uint32_t>(bytes)};
  if (with_frame) copy_frame_header(saved->headers, core.input.source_mac(), v6);
  memcpy(saved->headers + frame_bytes, ip, ip_bytes + tcp_bytes);
  tcp_hdr wire = header;
  wire.src = lwip_htons(wire.src);
  wire.dest = lwip_htons(wire.dest);
  wire.seqno = lwip_htonl(wire.seqno);
  wire.ackno = lwip_htonl(wire.ackno);
  wire.wnd = lwip_htons(wire.wnd);
  memcpy(saved->headers + frame_bytes + ip_bytes, &wire, sizeof wire);
  return saved;
}

void free_saved_syn(LwipCore& core, SavedSyn** saved) noexcept {
  if (*saved == nullptr) return;
  core.arena().release(*saved);
  *saved = nullptr;
}

}  // namespace netstack
