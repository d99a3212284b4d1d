// Frames to pbufs, and the loop that hands them to lwIP.
// SPDX-License-Identifier: BSD-3-Clause
//
// A received frame (each piece of one) becomes a custom pbuf that lies in the frame's own scratch memory and points to its bytes;
// freeing the pbuf releases the frame. When the wire runs low on free frames (programs that do not read), payload is copied into the
// arena instead and the frame goes back at once, so that ACKs can always be received. So is a small one where thousands wait for a
// program. If there is no room for it, TCP still sees the segment: what it acknowledges may be what makes room.
//
// A turn takes one burst, which is still in the cache when the program reads it. But a wire that fills up while the program works would
// lose what a thousand clients send at once, so it is emptied into the connections, as Linux's softirq does with a device's ring.
//
// The loop looks ahead: connection state is what misses the cache, and a burst names it all in advance. Each step's memory is asked for
// some frames before it is read: the frame, the table's slot, the PCB that the slot leads to, the endpoint that the PCB leads to. (What VPP
// and DPDK's pipelines do by vectors.)
#include "netstack/lwip/frame_input.h"

#include <cstring>

#include "base/check.h"
#include "lwip/ip4.h"
#include "lwip/ip6.h"
#include "lwip/prot/etharp.h"
#include "netstack/lwip/extension_headers.h"
#include "netstack/lwip/frame_fields.h"
#include "netstack/lwip/lwip_core.h"
#include "netstack/vlan_tag.h"

namespace netstack {
namespace {

struct FramePbuf {
  pbuf_custom custom;
  void* handle;
};
static_assert(sizeof(FramePbuf) <= kFramePrivateBytes);

constexpr uint32_t kCopyBreakBytes = 1024;  // what is shorter takes a fraction of its frame
constexpr int kMostPerTurn = 4096;          // frames, so that a turn ends while a peer goes on sending

void release_frame(pbuf* p) noexcept { the_core->wire().release(reinterpret_cast<FramePbuf*>(p)->handle); }

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

// It ends within its first headers, which lwIP reads all the same: what some frame before has left there.
bool is_cut(const pbuf& p) noexcept {
  if (p.len < kEthernetHeader + kIpHeader) return true;
  const auto type = field<uint16_t>(static_cast<const uint8_t*>(p.payload) + kEtherTypeAt);
  return (type == PP_HTONS(ETHTYPE_ARP) && p.len < kEthernetHeader + SIZEOF_ETHARP_HDR) ||
         (type == PP_HTONS(ETHTYPE_IPV6) && p.len < kEthernetHeader + kIp6Header);
}

// A fragment that holds something. One that does not would be a pbuf of no bytes at the end of a chain, behind where tot_len says that the
// chain ends. (ip_frag_queue() drops it as well.)
bool is_sound_fragment(const pbuf& p, bool v6) noexcept {
  const auto* const packet = static_cast<const uint8_t*>(p.payload) + kEthernetHeader;
  if (v6) return extension_headers_are_sound(packet, p.len - kEthernetHeader);
  return lwip_ntohs(field<uint16_t>(packet + kIpLengthAt - kEthernetHeader)) > (packet[0] & 0xf) * 4u;
}

bool has_tag(const RxFrame& frame) noexcept {
  return frame.length >= vlan_tag::kTaggedBytes && !frame.continues && field<uint16_t>(frame.data + kEtherTypeAt) == PP_HTONS(ETHTYPE_VLAN);
}

// A tag that names no VLAN is only about priorities (IEEE 802.1Q, 6.9.1), and its frame like any other.
void take_priority_out(RxFrame& frame) noexcept {
  if (vlan_tag::number_of(frame.data) != 0) return;
  vlan_tag::take_out(frame.data);
  frame.data += vlan_tag::kBytes;
  frame.length -= vlan_tag::kBytes;
}

template <size_t kBytes>
void prefetch_object(const void* object) noexcept {
  for (size_t i = 0; i < kBytes; i += 64) __builtin_prefetch(static_cast<const char*>(object) + i, 1);
}

void prefetch_state(const FrameView& view) noexcept {
  if (view.slot != nullptr && *view.slot != nullptr) prefetch_object<FrameView::kStateBytes>(*view.slot);
}

void prefetch_owner(const FrameView& view) noexcept {
  if (view.slot == nullptr || *view.slot == nullptr) return;
  prefetch_object<FrameView::kOwnerBytes>(field<const void*>(static_cast<const uint8_t*>(*view.slot) + view.owner_at));
}

}  // namespace

FrameInput::FrameInput(LwipCore& core) noexcept : core_(core), wire_(core.wire()) {}

void FrameInput::add(Protocol& protocol) noexcept {
  for (Protocol*& place : protocols_) {
    if (place != nullptr) continue;
    place = &protocol;
    return;
  }
  CHECK(!"no room for another protocol");
}

void FrameInput::release_pieces(const RxFrame* pieces, int count) noexcept {
  for (int i = 0; i < count; i++) wire_.release(pieces[i].handle);
}

// The frame's bytes in the arena and its pieces back on the wire; nullptr if there is no room, and nothing has happened.
pbuf* FrameInput::copy_pieces(const RxFrame* pieces, int count) noexcept {
  if (!core_.memory.takes_data()) return nullptr;
  pbuf* const p = pbuf_alloc(PBUF_RAW, static_cast<u16_t>(bytes_of(pieces, count)), PBUF_RAM);
  if (p == nullptr) return nullptr;
  auto* to = static_cast<uint8_t*>(p->payload);
  for (int i = 0; i < count; i++) {
    memcpy(to, pieces[i].data, pieces[i].length);
    to += pieces[i].length;
  }
  release_pieces(pieces, count);
  return p;
}

// What would stay in its frame, but must not if there are few frames and better did not if many wait.
void FrameInput::take_copy(const RxFrame* pieces, int count, const FrameView& view) noexcept {
  if (pbuf* const copy = copy_pieces(pieces, count); copy != nullptr) return take_one(*pieces, view, copy);
  const bool low = core_.memory.frames_low();
  if (low && (view.protocol != IP_PROTO_TCP || view.fragment)) return release_pieces(pieces, count);
  core_.memory.payload_is_lent = low;
  take_one(*pieces, view, wrap_pieces(pieces, count));
  core_.memory.payload_is_lent = false;
}

// Field by field in its place: a view that is built elsewhere and copied would be read back in larger pieces than it was written in, which
// stalls.
void FrameInput::look_at(const RxFrame& frame, FrameView& view) const noexcept {
  const uint8_t* d = view.bytes = frame.data;
  view.slot = nullptr;
  view.protocol = 0;
  view.plain_ip = view.fragment = view.other_ip = view.v6 = false;
  view.stays = true;
  if (frame.continues || frame.length < kEthernetHeader + kIpHeader) return;
  if (field<uint16_t>(d + kEtherTypeAt) != PP_HTONS(ETHTYPE_IP)) [[unlikely]] return look_at_v6(frame, view);
  view.other_ip = d[kProtocolAt] != IP_PROTO_TCP;
  view.plain_ip = memcmp(d, core_.interface().hwaddr, 6) == 0;
  view.fragment = (field<uint16_t>(d + kFragmentAt) & PP_HTONS(0x3fff)) != 0;
  if (d[kIpVersionAt] != kPlainIp || frame.length < kEthernetHeader + kIpHeader + 4) return;
  view.protocol = d[kProtocolAt];
  if (view.protocol != IP_PROTO_TCP || frame.length < kPlainHeaders) return;
  view.stays = lwip_ntohs(field<uint16_t>(d + kIpLengthAt)) > kIpHeader + (d[kTcpOffsetAt] >> 4) * 4u;
}

void FrameInput::look_at_v6(const RxFrame& frame, FrameView& view) const noexcept {
  const uint8_t* const d = frame.data;
  if (field<uint16_t>(d + kEtherTypeAt) != PP_HTONS(ETHTYPE_IPV6) || frame.length < kEthernetHeader + kIp6Header) return;
  view.v6 = true;
  view.other_ip = d[kNextHeaderAt] != IP_PROTO_TCP;
  view.plain_ip = memcmp(d, core_.interface().hwaddr, 6) == 0;
  view.fragment =
      view.other_ip && d[kNextHeaderAt] != IP6_NEXTH_ICMP6 && d[kNextHeaderAt] != IP6_NEXTH_UDP;  // it may be, behind other headers
  if (view.fragment || frame.length < kEthernetHeader + kIp6Header + 4) return;
  view.protocol = d[kNextHeaderAt];
  if (view.protocol != IP_PROTO_TCP || frame.length < kPlainHeaders6) return;
  view.stays = lwip_ntohs(field<uint16_t>(d + kIp6LengthAt)) > (d[kTcpOffset6At] >> 4) * 4u;
}

void FrameInput::take_one(const RxFrame& frame, const FrameView& view, pbuf* p) noexcept {
  LwipCore& core = core_;
  netif& interface = core.interface();
  if ((!view.plain_ip && is_cut(*p)) || (view.fragment && !is_sound_fragment(*p, view.v6))) [[unlikely]] return (void)pbuf_free(p);
  if (view.fragment) [[unlikely]] {
    core.link_timers.catch_up();  // before it comes: the time that nothing waited is none of its age
    core.link_timers.keep_running();
  }
  memcpy(header_, p->payload, sizeof header_);
  source_mac_ = header_ + ETH_HWADDR_LEN;
  const u16_t checks = interface.chksum_flags, mtu = interface.mtu;
  if (view.other_ip && mtu == core.gso_max_size()) interface.mtu = core.frame_mtu();  // what answers it must fit a frame
  core.output.may_defer = view.protocol == IP_PROTO_TCP;                               // and not what waited for a neighbour's address
  // What loops back is left out, whose sum nobody fills in.
  if (core.tcp_checksum_offload()) interface.chksum_flags |= NETIF_CHECKSUM_CHECK_IP;
  if (!frame.checksum_verified || view.fragment) interface.chksum_flags |= core.checks_of_unverified();
  if (view.plain_ip) {
    p->if_idx = netif_get_index(&interface);
    p->payload = static_cast<uint8_t*>(p->payload) + kEthernetHeader;
    p->len = static_cast<u16_t>(p->len - kEthernetHeader);
    p->tot_len = static_cast<u16_t>(p->tot_len - kEthernetHeader);
    (void)(view.v6 ? ip6_input(p, &interface) : ip4_input(p, &interface));
  } else if (interface.input(p, &interface) != ERR_OK) {
    pbuf_free(p);
  }
  interface.chksum_flags = checks;
  interface.mtu = mtu;
  source_mac_ = nullptr;
  core.output.may_defer = true;
  finish();
}

void FrameInput::take_burst(RxFrame* frames, int count, bool crowded) noexcept {
  constexpr int kFrameAhead = 4, kStateAhead = 6, kOwnerAhead = 3;
  core_.memory.note_free_frames(wire_.free_frames());
  const uint32_t copied = core_.memory.frames_low() ? UINT32_MAX : crowded ? kCopyBreakBytes : 0;
  FrameView views[kBurst];
  for (int i = 0; i < count && i < kFrameAhead; i++) __builtin_prefetch(frames[i].data);
  for (int i = 0; i < count; i++) {
    if (i + kFrameAhead < count) __builtin_prefetch(frames[i + kFrameAhead].data);
    __builtin_prefetch(frames[i].scratch, 1);
    if (has_tag(frames[i])) [[unlikely]] take_priority_out(frames[i]);
    look_at(frames[i], views[i]);
  }
  for (Protocol* protocol : protocols_) {
    if (protocol != nullptr) protocol->begin_burst(views, count);
  }
  for (int i = 0; i < count && i < kStateAhead; i++) prefetch_state(views[i]);
  for (int i = 0; i < count;) {
    if (i + kStateAhead < count) prefetch_state(views[i + kStateAhead]);
    if (i + kOwnerAhead < count) prefetch_owner(views[i + kOwnerAhead]);
    int pieces = 1;
    while (i + pieces < count && frames[i + pieces].continues) pieces++;
    const uint32_t bytes = bytes_of(frames + i, pieces);
    if (bytes > 0xffff) {
      release_pieces(frames + i, pieces);
    } else if (views[i].stays && bytes <= copied) [[unlikely]] {
      take_copy(frames + i, pieces, views[i]);
    } else {
      take_one(frames[i], views[i], wrap_pieces(frames + i, pieces));
    }
    i += pieces;
  }
}

int FrameInput::receive() noexcept {
  // Not constructed: a turn that finds nothing would spend most of its time on that. The wire writes whole frames.
  alignas(RxFrame) unsigned char storage[kBurst * sizeof(RxFrame)];
  auto* const frames = reinterpret_cast<RxFrame*>(storage);
  bool crowded = false;
  int taken = 0;
  do {
    const int count = wire_.receive(frames, kBurst);
    if (count == 0) break;
    core_.follow_new_peer();
    crowded = crowded || (count >= kBurst / 2 && wire_.crowded());
    take_burst(frames, count, crowded);
    taken += count;
  } while (crowded && taken < kMostPerTurn);
  if (taken == 0) core_.memory.note_free_frames(wire_.free_frames());
  receive_own();
  return taken;
}

void FrameInput::receive_own() noexcept {
  if (core_.interface().loop_first == nullptr) return;
  netif_poll(&core_.interface());
  finish();
}

}  // namespace netstack
