// Frames to pbufs and back.
//
// A received frame (each piece of one) becomes a custom pbuf that lies in the frame's own scratch memory and points to its bytes;
// freeing the pbuf releases the frame. When the wire runs low on free frames (programs that do not read), payload is copied into the
// arena instead and the frame goes back at once, so that ACKs can always be received.
#include "netstack/lwip/wire_netif.h"

#include <cstring>

#include "base/check.h"
#include "lwip/etharp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip4.h"
#include "lwip/priv/tcp_priv.h"
#include "netif/ethernet.h"
#include "netstack/lwip/lwip_stack.h"

namespace netstack {
namespace {

struct FramePbuf {
  pbuf_custom custom;
  void* handle;
};
static_assert(sizeof(FramePbuf) <= kFramePrivateBytes);

constexpr size_t kEthernetHeader = 14;
constexpr size_t kIpHeader = 20;
constexpr size_t kTcpHeader = 20;
constexpr size_t kFlagsAt = kEthernetHeader + kIpHeader + 13;
constexpr size_t kOffsetAt = kEthernetHeader + kIpHeader + 12;
constexpr uint8_t kNoOptions = 5 << 4;
constexpr size_t kPlainHeaders = kEthernetHeader + kIpHeader + kTcpHeader;
constexpr uint32_t kWorthReferring = 1024;  // pieces cost more than a copy of less
constexpr size_t kMssAt = kEthernetHeader + kIpHeader + kTcpHeader;  // lwIP's first option
constexpr uint32_t kCopyBreakBytes = 128;  // shorter frames are mostly ACKs, released before input returns

Wire& wire_of(netif* interface) noexcept { return *static_cast<Wire*>(interface->state); }

void release_frame(pbuf* p) noexcept { the_stack->wire().release(reinterpret_cast<FramePbuf*>(p)->handle); }

pbuf* wrap_frame(const RxFrame& frame) noexcept {
  auto* wrapped = static_cast<FramePbuf*>(frame.scratch);
  pbuf& p = wrapped->custom.pbuf;
  p.next = nullptr;
  p.payload = frame.data;
  p.tot_len = p.len = static_cast<u16_t>(frame.length);
  p.type_internal = PBUF_REF;
  p.flags = PBUF_FLAG_IS_CUSTOM;
  p.ref = 1;
  p.if_idx = 0;
  wrapped->custom.custom_free_function = release_frame;
  wrapped->handle = frame.handle;
  return &p;
}

// What the `count` pieces of one frame hold together.
uint32_t bytes_of(const RxFrame* pieces, int count) noexcept {
  uint32_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += pieces[i].length;
  return bytes;
}

void release_pieces(Wire& wire, const RxFrame* pieces, int count) noexcept {
  for (int i = 0; i < count; i++) wire.release(pieces[i].handle);
}

// The pieces of one frame as a chain.
pbuf* wrap_pieces(const RxFrame* pieces, int count) noexcept {
  pbuf* chain = nullptr;
  for (int i = count; i-- > 0;) {
    pbuf* const p = wrap_frame(pieces[i]);
    p->next = chain;
    if (chain != nullptr) p->tot_len = static_cast<u16_t>(p->tot_len + chain->tot_len);
    chain = p;
  }
  return chain;
}

// The frame's bytes in the arena and its pieces back on the wire; nullptr if there is no room (they go back all the same).
// What is received may fill three quarters of the arena: the rest is for ACKs and for what programs must send before they read on.
pbuf* copy_pieces(Wire& wire, const RxFrame* pieces, int count) noexcept {
  const base::Heap& arena = the_stack->arena();
  const bool room = arena.used() < arena.capacity() / 4 * 3;
  pbuf* p = room ? pbuf_alloc(PBUF_RAW, static_cast<u16_t>(bytes_of(pieces, count)), PBUF_RAM) : nullptr;
  if (p != nullptr) {
    auto* to = static_cast<uint8_t*>(p->payload);
    for (int i = 0; i < count; i++) {
      memcpy(to, pieces[i].data, pieces[i].length);
      to += pieces[i].length;
    }
  }
  release_pieces(wire, pieces, count);
  return p;
}

// What the input loop wants to know of a frame before lwIP sees it.
struct Headers {
  bool plain_ip;  // IPv4 to our own MAC, complete header
  bool fragment;
  bool tcp;
  bool other_ip;    // IPv4, but not TCP
  uint32_t bucket;  // of the connection table, if tcp
};

template <class T>
T field(const uint8_t* at) noexcept {
  T value;
  memcpy(&value, at, sizeof value);
  return value;
}

Headers look_at(const netif& interface, const RxFrame& frame) noexcept {
  Headers headers{};
  const uint8_t* d = frame.data;
  if (frame.length < kEthernetHeader + kIpHeader || field<uint16_t>(d + 12) != PP_HTONS(ETHTYPE_IP)) return headers;
  headers.other_ip = d[23] != IP_PROTO_TCP;
  headers.plain_ip = memcmp(d, interface.hwaddr, 6) == 0;
  headers.fragment = (field<uint16_t>(d + 20) & PP_HTONS(0x3fff)) != 0;
  if (d[14] != 0x45 || d[23] != IP_PROTO_TCP || frame.length < kEthernetHeader + kIpHeader + 4) return headers;
  headers.tcp = true;
  headers.bucket = the_stack->demux().locate(field<uint32_t>(d + 30), field<uint32_t>(d + 26), lwip_ntohs(field<uint16_t>(d + 36)),
                                             lwip_ntohs(field<uint16_t>(d + 34)));
  return headers;
}

void input_one(netif& interface, const RxFrame& frame, const Headers& headers, pbuf* p) noexcept {
  if (headers.fragment) the_stack->keep_house();
  const u16_t checks = interface.chksum_flags, mtu = interface.mtu;
  if (headers.other_ip && mtu == the_stack->gso_max_size()) interface.mtu = the_stack->frame_mtu();  // what answers it must fit a frame
  the_stack->puts_off = headers.tcp;  // and not what waited for a neighbour's address
  if (the_stack->tcp_checksum_offload()) interface.chksum_flags |= NETIF_CHECKSUM_CHECK_IP;  // but not what loops back, whose sum nobody fills in
  if (!frame.checksum_verified || headers.fragment) interface.chksum_flags |= the_stack->checks_of_unchecked();
  if (headers.plain_ip) {
    p->if_idx = netif_get_index(&interface);
    p->payload = static_cast<uint8_t*>(p->payload) + kEthernetHeader;
    p->len = static_cast<u16_t>(p->len - kEthernetHeader);
    p->tot_len = static_cast<u16_t>(p->tot_len - kEthernetHeader);
    (void)ip4_input(p, &interface);
  } else if (interface.input(p, &interface) != ERR_OK) {
    pbuf_free(p);
  }
  interface.chksum_flags = checks;
  interface.mtu = mtu;
  the_stack->puts_off = true;
  the_stack->finish_input();
}

// An ARP request for somebody else: packets may be waiting for the answer, and must not wait for ever.
bool asks_for_neighbour(const pbuf& p) noexcept {
  const auto* d = static_cast<const uint8_t*>(p.payload);
  return p.len >= 42 && field<uint16_t>(d + 12) == PP_HTONS(ETHTYPE_ARP) && d[21] == 1 && field<uint32_t>(d + 28) != field<uint32_t>(d + 38);
}

bool is_tcp(const uint8_t* frame, uint32_t length) noexcept {
  return length >= kEthernetHeader + kIpHeader && field<uint16_t>(frame + 12) == PP_HTONS(ETHTYPE_IP) && frame[14] == 0x45 && frame[23] == IP_PROTO_TCP;
}

// Says in a SYN how much a segment may hold that comes to us. lwIP would say as much as it sends itself.
void announce_segments(uint8_t* frame, uint32_t length, uint32_t gro_max_size) noexcept {
  if (length < kMssAt + 4 || frame[kMssAt] != LWIP_TCP_OPT_MSS) return;
  const u16_t mss = lwip_htons(static_cast<u16_t>(gro_max_size - kIpHeader - kTcpHeader));
  memcpy(frame + kMssAt + 2, &mss, sizeof mss);
}

// A segment whose payload lies in few pieces stays where it is until the wire has sent it: nothing that lwIP holds goes away within a flush.
// False: it is not such a segment.
bool send_by_reference(Wire& wire, const TxFrame& frame, const pbuf& p) noexcept {
  if (!the_stack->tcp_checksum_offload() || p.len < kPlainHeaders) return false;
  const auto* headers = static_cast<const uint8_t*>(p.payload);
  if (!is_tcp(headers, p.tot_len) || headers[kOffsetAt] != kNoOptions) return false;
  Piece pieces[kMostPieces];
  int count = 0;
  if (p.len > kPlainHeaders) pieces[count++] = {headers + kPlainHeaders, p.len - static_cast<uint32_t>(kPlainHeaders)};
  for (const pbuf* q = &p; q->len != q->tot_len;) {
    q = q->next;
    if (count == kMostPieces) return false;
    pieces[count++] = {q->payload, q->len};
  }
  memcpy(frame.data, headers, kPlainHeaders);
  wire.send_tcp_with(frame.handle, kPlainHeaders, pieces, count);
  return true;
}

// One that is longer than a frame. It is copied if it lies in many pieces, or if it may be gone before the next flush.
bool send_long(Wire& wire, const TxFrame& frame, pbuf* p) noexcept {
  if (the_stack->flushing() && send_by_reference(wire, frame, *p)) return true;
  pbuf* const whole = pbuf_clone(PBUF_RAW, PBUF_RAM, p);
  if (whole == nullptr) return false;
  the_stack->keep_until_flushed(whole);
  return send_by_reference(wire, frame, *whole);
}

// What lwIP leaves out because the wire does it for TCP.
void fill_ip_checksum(uint8_t* frame, uint32_t length) noexcept {
  if (length < kEthernetHeader + kIpHeader || field<uint16_t>(frame + 12) != PP_HTONS(ETHTYPE_IP)) return;
  const u16_t header = static_cast<u16_t>((frame[kEthernetHeader] & 0xf) * 4);
  if (kEthernetHeader + header > length) return;
  memset(frame + kEthernetHeader + 10, 0, 2);
  const u16_t sum = inet_chksum(frame + kEthernetHeader, header);
  memcpy(frame + kEthernetHeader + 10, &sum, sizeof sum);
}

err_t link_output(netif* interface, pbuf* p) noexcept {
  Wire& wire = wire_of(interface);
  TxFrame frame;
  if (p->tot_len > interface->mtu + kEthernetHeader) return ERR_IF;
  const bool is_long = p->tot_len > the_stack->frame_mtu() + kEthernetHeader;
  if (is_long && the_stack->put_off(static_cast<const uint8_t*>(p->payload))) return ERR_MEM;
  if (wire.backlog() > 4 * kBurst || !wire.allocate(&frame)) {
    the_stack->output_starved();
    return ERR_MEM;
  }
  if (asks_for_neighbour(*p)) the_stack->keep_house();
  if (is_long) {
    if (send_long(wire, frame, p)) return ERR_OK;
    wire.release(frame.handle);
    the_stack->output_starved();
    return ERR_MEM;
  }
  if (the_stack->flushing() && p->tot_len >= kWorthReferring && send_by_reference(wire, frame, *p)) return ERR_OK;
  uint8_t* to = frame.data;
  const uint32_t length = p->tot_len;
  for (const pbuf* q = p;; q = q->next) {
    memcpy(to, q->payload, q->len);
    if (q->len == q->tot_len) break;
    to += q->len;
  }
  const uint32_t gro_max_size = the_stack->gro_max_size();
  const bool tcp_checksum_offload = the_stack->tcp_checksum_offload();
  const bool tcp = (tcp_checksum_offload || gro_max_size != 0) && is_tcp(frame.data, length);
  if (tcp && gro_max_size != 0 && (frame.data[kFlagsAt] & TCP_SYN) != 0) announce_segments(frame.data, length, gro_max_size);
  if (tcp && tcp_checksum_offload) {
    wire.send_tcp(frame.handle, length);
  } else {
    if (tcp_checksum_offload) fill_ip_checksum(frame.data, length);
    wire.send(frame.handle, length);
  }
  return ERR_OK;
}

}  // namespace

err_t wire_netif_init(netif* interface) noexcept {
  const WireFacts& facts = wire_of(interface).facts();
  CHECK(facts.gso_max_size <= TCP_MSS + kIpHeader + kTcpHeader);
  interface->name[0] = 'z';
  interface->name[1] = 'p';
  interface->output = etharp_output;
  interface->linkoutput = link_output;
  interface->hwaddr_len = 6;
  memcpy(interface->hwaddr, facts.mac, 6);
  const uint16_t wanted = the_stack->setup().mtu;
  interface->mtu = wanted != 0 && wanted < facts.mtu ? wanted : facts.gso_max_size != 0 ? facts.gso_max_size : facts.mtu;
  interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
  u16_t checksums = facts.link_needs_checksum ? NETIF_CHECKSUM_ENABLE_ALL : NETIF_CHECKSUM_DISABLE_ALL;
  if (facts.tcp_checksum_offload) checksums &= static_cast<u16_t>(~(NETIF_CHECKSUM_GEN_TCP | NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_CHECK_IP | the_stack->checks_of_unchecked()));
  NETIF_SET_CHECKSUM_CTRL(interface, checksums);
  return ERR_OK;
}

// The loop looks ahead: connection state is what misses the cache, and a burst names it all in advance.
void input_frames(netif& interface, Wire& wire, RxFrame* frames, int count) noexcept {
  constexpr int kFrameAhead = 4, kPcbAhead = 6, kOwnerAhead = 3;
  const bool low = wire.free_frames() < wire.total_frames() / 4;
  const TcpDemux& demux = the_stack->demux();
  Headers headers[kBurst];
  for (int i = 0; i < count && i < kFrameAhead; i++) __builtin_prefetch(frames[i].data);
  for (int i = 0; i < count; i++) {
    if (i + kFrameAhead < count) __builtin_prefetch(frames[i + kFrameAhead].data);
    __builtin_prefetch(frames[i].scratch, 1);
    headers[i] = frames[i].continues ? Headers{} : look_at(interface, frames[i]);
  }
  for (int i = 0; i < count && i < kPcbAhead; i++) {
    if (headers[i].tcp) demux.prefetch_pcb(headers[i].bucket);
  }
  for (int i = 0; i < count;) {
    if (i + kPcbAhead < count && headers[i + kPcbAhead].tcp) demux.prefetch_pcb(headers[i + kPcbAhead].bucket);
    if (i + kOwnerAhead < count && headers[i + kOwnerAhead].tcp) demux.prefetch_owner(headers[i + kOwnerAhead].bucket, sizeof(LwipStream));
    int pieces = 1;
    while (i + pieces < count && frames[i + pieces].continues) pieces++;
    const uint32_t bytes = bytes_of(frames + i, pieces);
    if (bytes > 0xffff) {
      release_pieces(wire, frames + i, pieces);
    } else {
      pbuf* p = low && bytes > kCopyBreakBytes ? copy_pieces(wire, frames + i, pieces) : wrap_pieces(frames + i, pieces);
      if (p != nullptr) input_one(interface, frames[i], headers[i], p);
    }
    i += pieces;
  }
}

}  // namespace netstack
