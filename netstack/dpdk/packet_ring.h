// A packet socket's receive ring: slots that the kernel fills and we empty, in order.
//
// The kernel keeps its own position and tells nobody; ours lies in memory that the family shares and moves slot by slot. If a member is killed
// between emptying a slot and moving on, kernel and stack look at different slots from then on. realign() finds the kernel's
// position again: it stamps the slots it fills with the time, so what waits begins at the oldest stamp among the slots that wait; if none
// waits, the kernel goes on behind the newest stamp.
//
// Sources: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux.
#pragma once

#include <atomic>
#include <cstdint>
#include <linux/if_packet.h>

namespace netstack {

class PacketRing {
 public:
  PacketRing(uint8_t* map, uint32_t slot_bytes, uint32_t slots) noexcept : map_(map), slot_bytes_(slot_bytes), slots_(slots) {}

  // The slot whose turn it is if the kernel has filled it, else nullptr.
  [[nodiscard]] tpacket2_hdr* front() const noexcept {
    tpacket2_hdr& slot = at(next_);
    return (status_of(slot) & TP_STATUS_USER) != 0 ? &slot : nullptr;
  }
  // Gives the front slot back to the kernel.
  void pop() noexcept {
    give_back(at(next_));
    if (++next_ == slots_) next_ = 0;
  }
  [[nodiscard]] const uint8_t* frame(const tpacket2_hdr& slot) const noexcept { return reinterpret_cast<const uint8_t*>(&slot) + slot.tp_mac; }
  // Whether so many bytes of the frame lie within its slot; the ring is the kernel's, but a member of the family could have written to it.
  [[nodiscard]] bool holds(const tpacket2_hdr& slot, uint32_t length) const noexcept {
    return slot.tp_mac <= slot_bytes_ && length <= slot_bytes_ - slot.tp_mac;
  }

  void realign() noexcept;

 private:
  [[nodiscard]] tpacket2_hdr& at(uint32_t index) const noexcept { return *reinterpret_cast<tpacket2_hdr*>(map_ + size_t{index} * slot_bytes_); }
  static uint32_t status_of(tpacket2_hdr& slot) noexcept { return std::atomic_ref<uint32_t>(slot.tp_status).load(std::memory_order_acquire); }
  static void give_back(tpacket2_hdr& slot) noexcept {
    std::atomic_ref<uint32_t>(slot.tp_status).store(TP_STATUS_KERNEL, std::memory_order_release);
  }

  uint8_t* const map_;
  const uint32_t slot_bytes_, slots_;
  uint32_t next_ = 0;
};

}  // namespace netstack
