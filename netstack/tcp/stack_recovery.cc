// What is left of a stack when a member of its family has died inside the lock, and how the others go on.
//
// lwIP's state and the arena are taken as lost at any point of any operation, and start anew. What survives is what lies in the region and
// is only read here: which slots are in use, the listeners' addresses and options, the streams' options and observers.
//
// The peers are told by resets, whose numbers are read from what is left of the PCBs. One that is off is answered by the peer with
// its own, and that again by an exact reset. They would wait in the neighbour's queue while its address is asked for, and the answers to what peers go
// on sending would push them out of it; so the neighbour table is carried over.
#include <cstring>

#include "lwip/etharp.h"
#include "lwip/prot/etharp.h"
#include "lwip/prot/iana.h"
#include "netstack/lwip/lwip_stack.h"

namespace netstack {
namespace {

constexpr uint64_t kResetsWaitNs = 4'000'000'000;

// What lwIP's table holds; but if a member died before it had learned all again, what it had read.
void read_neighbours(StackRegion& region) noexcept {
  int count = 0;
  for (int i = 0; i < ARP_TABLE_SIZE; i++) {
    ip4_addr_t* address;
    netif* interface;
    eth_addr* mac;
    if (etharp_get_entry(static_cast<size_t>(i), &address, &interface, &mac) == 0) continue;
    if (count == 0) region.neighbour_count = 0;
    region.neighbours[count].address = *address;
    memcpy(region.neighbours[count++].mac, mac->addr, ETH_HWADDR_LEN);
  }
  if (count > 0) region.neighbour_count = count;
}

// As if each had said so itself. They are asked as well: an address may have been half written.
void learn_neighbours(netif& interface, StackRegion& region) noexcept {
  for (int i = 0; i < region.neighbour_count; i++) {
    const Neighbour& neighbour = region.neighbours[i];
    pbuf* const p = pbuf_alloc(PBUF_RAW, SIZEOF_ETHARP_HDR, PBUF_RAM);
    if (p == nullptr) break;
    auto& told = *static_cast<etharp_hdr*>(p->payload);
    told.hwtype = PP_HTONS(LWIP_IANA_HWTYPE_ETHERNET);
    told.proto = PP_HTONS(ETHTYPE_IP);
    told.hwlen = ETH_HWADDR_LEN;
    told.protolen = sizeof(ip4_addr_t);
    told.opcode = PP_HTONS(ARP_REPLY);
    memcpy(&told.shwaddr, neighbour.mac, ETH_HWADDR_LEN);
    memcpy(&told.dhwaddr, interface.hwaddr, ETH_HWADDR_LEN);
    memcpy(&told.sipaddr, &neighbour.address, sizeof(ip4_addr_t));
    memcpy(&told.dipaddr, netif_ip4_addr(&interface), sizeof(ip4_addr_t));
    etharp_input(p, &interface);
    (void)etharp_request(&interface, &neighbour.address);
  }
  region.neighbour_count = 0;
}

}  // namespace

// A peer whose SYN was answered may know that it is connected, or not. If not it shall ask again: its SYN is not what the reset acknowledges.
// What was sent may lie behind a window that has shrunk or was probed, where a reset would not be looked at; or the window that is noted may be newer than
// the rest. One of two numbers is right then.
void LwipStack::note_resets() noexcept {
  StackRegion& region = region_of(*this);
  const uint32_t unpaid = paid_resets_ < noted_resets_ ? noted_resets_ - paid_resets_ : 0;
  memmove(region.resets, region.resets + paid_resets_, unpaid * sizeof(OwedReset));
  paid_resets_ = asked_resets_ = 0;
  noted_resets_ = unpaid;
  const auto note = [&](const tcp_pcb& pcb, uint32_t sequence, uint32_t acknowledgement) {
    if (noted_resets_ >= StackRegion::kMostResets) return;
    region.resets[noted_resets_] = {pcb.local_ip.addr, pcb.remote_ip.addr, sequence, acknowledgement, pcb.local_port, pcb.remote_port};
    noted_resets_++;
  };
  region.demux.for_each_left(*setup_.arena, [&](const tcp_pcb& pcb) {
    if (pcb.state < SYN_RCVD || pcb.state == TIME_WAIT) return;
    if (pcb.state == SYN_RCVD) return note(pcb, pcb.snd_nxt, pcb.rcv_nxt - 1);
    note(pcb, pcb.snd_nxt, pcb.rcv_nxt);
    const uint32_t edge = pcb.lastack + pcb.snd_wnd;
    if (TCP_SEQ_LT(edge, pcb.snd_nxt)) note(pcb, edge, pcb.rcv_nxt);
  });
}

// A neighbour that nobody knows any more is asked for first: fewer packets wait for it than there may be resets. Paid is what the wire has shown.
void LwipStack::pay_resets() noexcept {
  const bool starved_before = starved_;
  uint32_t next = paid_resets_;
  for (starved_ = false; next < noted_resets_; next++) {
    const OwedReset& owed = region_of(*this).resets[next];
    if (now_ns_ < resets_wait_until_ns_ && !neighbour_known(owed.peer_be)) {
      const ip4_addr_t hop{hop_to(owed.peer_be)};
      if (asked_resets_ <= next && etharp_query(&netif_, &hop, nullptr) == ERR_OK) asked_resets_ = next + 1;
      break;
    }
    const ip_addr_t local{owed.local_be}, peer{owed.peer_be};
    tcp_rst(nullptr, owed.sequence, owed.acknowledgement, &local, &peer, owed.local_port, owed.peer_port);
    if (starved_) break;
  }
  starved_ |= starved_before;
  if (next != paid_resets_) {
    setup_.wire->flush();
    paid_resets_ = next;
  }
  owes_resets_ = paid_resets_ < noted_resets_;
}

void LwipStack::recover() noexcept {
  StackRegion& region = region_of(*this);
  region.streams.rebuild();
  note_resets();
  read_neighbours(region);
  memcpy(setup_.image_data, setup_.image_pristine, setup_.image_bytes);
  the_stack = this;
  setup_.arena->reset();
  setup_.wire->recover();
  new (&dirty_) base::List<DirtyLink>();
  new (&owed_acks_) base::List<OwedAck>();
  repair = {};
  ticking_ = nullptr;
  in_poll_ = puts_off = starved_ = flushing_ = false;
  dirty_count_ = arrivals_ = 0;
  unflushed_bytes_ = 0;
  kept_ = nullptr;
  next_tick_ns_ = next_parked_ns_ = kNever;
  housekeeping_until_ns_ = 0;
  region.demux.reset();
  region.ports.reset();
  region.listeners.rebuild();
  for (LwipListener*& bucket : listeners_) bucket = nullptr;
  listener_count_ = 0;
  region.listeners.for_each([&](LwipListener& listener) {
    listener.rebuild();
    file_listener(listener);
  });
  start_lwip();
  learn_neighbours(netif_, region);
  resets_wait_until_ns_ = now_ns_ + kResetsWaitNs;
  pay_resets();
  region.streams.for_each([&](LwipStream& stream) {
    stream.forget_everything();
    if (!stream.held() || stream.released()) {
      region.streams.free(&stream);
    } else {
      stream.announce(stream.ready());
    }
  });
  setup_.wire->flush();
}

}  // namespace netstack
