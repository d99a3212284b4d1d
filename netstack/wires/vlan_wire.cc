// Tags in and out.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/vlan_wire.h"

#include <cstring>

#include "netstack/vlan_tag.h"

namespace netstack {
namespace {

// So often a burst is looked for in which something is for us: who is about to sleep has to have seen that, if there is any.
constexpr int kMostForeignBursts = 16;

}  // namespace

VlanWire::VlanWire(Wire& carrier, uint16_t vlan) noexcept : carrier_(carrier), vlan_(vlan) { follow(); }

// What the carrier is now, without what it would do to segments.
void VlanWire::follow() noexcept {
  facts_ = carrier_.facts();
  facts_.tcp_checksum_offload = false;
  facts_.gro_max_size = facts_.gso_max_size = 0;
}

bool VlanWire::untag(RxFrame& frame) noexcept {
  if (frame.length < vlan_tag::kTaggedBytes || vlan_tag::number_of(frame.data) != vlan_) return false;
  vlan_tag::take_out(frame.data);
  frame.data += vlan_tag::kBytes;
  frame.length -= vlan_tag::kBytes;
  return true;
}

// Keeps of `count` frames those that are ours, in front. How many.
int VlanWire::take_ours(RxFrame* frames, int count) noexcept {
  int kept = 0;
  bool ours = false;
  for (int i = 0; i < count; i++) {
    RxFrame& frame = frames[i];
    if (!frame.continues) {
      ours = untag(frame);
      if (!ours) foreign_++;
    }
    if (ours) frames[kept++] = frame;
    else carrier_.release(frame.handle);
  }
  return kept;
}

int VlanWire::receive(RxFrame* out, int capacity) noexcept {
  int kept = 0;
  for (int burst = 0; burst < kMostForeignBursts && kept == 0; burst++) {
    const int count = carrier_.receive(out, capacity);
    if (carrier_.facts().peers != facts_.peers) [[unlikely]]
      follow();
    if (count == 0) break;
    kept = take_ours(out, count);
  }
  return kept;
}

bool VlanWire::allocate(TxFrame* out) noexcept {
  if (!carrier_.allocate(out)) return false;
  allocated_ = out->data;
  out->data += vlan_tag::kBytes;
  out->capacity -= vlan_tag::kBytes;
  return true;
}

void VlanWire::send(void* handle, uint32_t length) noexcept {
  vlan_tag::put_in(allocated_, vlan_);
  carrier_.send(handle, length + vlan_tag::kBytes);
}

void VlanWire::run_control() noexcept {
  carrier_.run_control();
  follow();
}

void VlanWire::recover() noexcept {
  carrier_.recover();
  follow();
}

}  // namespace netstack
