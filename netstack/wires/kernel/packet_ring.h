// A packet socket's receive ring: slots that the kernel fills and we empty, in order.
// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel keeps its own position and tells nobody; ours lies in memory that the family shares and moves slot by slot. If a member is
// killed between giving a slot back and moving on, kernel and stack look at different slots from then on: by one, since a pop is all that
// can be cut in two. So a pop leaves a trail, and realign() reads it: whether a slot was being given back, and, if it is not empty, whether
// it still has our mark or the kernel has filled it again meanwhile. (Rejected: the stamps that the kernel puts into slots. Its clock can
// be set.)
//
// Invariant: the stores of pop() happen in the order that is written there. A member that dies has done the first so many of them.
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
    tpacket2_hdr& slot = at(place_.next);
    return is_filled(slot) ? &slot : nullptr;
  }
  // Without the stack's lock: what is told may be a moment old.
  [[nodiscard]] bool is_empty() const noexcept {
    return !is_filled(at(std::atomic_ref<Place>(const_cast<Place&>(place_)).load(std::memory_order_relaxed).next));
  }
  [[nodiscard]] bool half_full() const noexcept {
    const uint32_t ahead = place_.next + slots_ / 2;
    return is_filled(at(ahead < slots_ ? ahead : ahead - slots_));
  }
  // Gives the front slot back to the kernel.
  void pop() noexcept {
    const uint32_t index = place_.next;
    tpacket2_hdr& slot = at(index);
    std::atomic_ref<uint32_t>(slot.tp_len).store(kEmptied, std::memory_order_release);
    set_place({index, 1});
    std::atomic_ref<uint32_t>(slot.tp_status).store(TP_STATUS_KERNEL, std::memory_order_release);
    set_place({index + 1 == slots_ ? 0 : index + 1, 0});
  }
  [[nodiscard]] const uint8_t* frame(const tpacket2_hdr& slot) const noexcept {
    return reinterpret_cast<const uint8_t*>(&slot) + slot.tp_mac;
  }
  // Whether so many bytes of the frame lie within its slot; the ring is the kernel's, but a member of the family could have written to it.
  [[nodiscard]] bool holds(const tpacket2_hdr& slot, uint32_t length) const noexcept {
    return slot.tp_mac <= slot_bytes_ && length <= slot_bytes_ - slot.tp_mac;
  }

  // After a member died in here: goes on with the slot that the kernel fills next, or the oldest that waits.
  void realign() noexcept;
  // Makes of each frame that waits, and of which the ring holds only a part, one without any bytes.
  void empty_queued() noexcept;

 private:
  static constexpr uint32_t kEmptied = 0;  // as tp_len: no frame has this length, and the kernel writes it with each

  [[nodiscard]] tpacket2_hdr& at(uint32_t index) const noexcept {
    return *reinterpret_cast<tpacket2_hdr*>(map_ + size_t{index} * slot_bytes_);
  }
  static bool is_filled(tpacket2_hdr& slot) noexcept {
    return (std::atomic_ref<uint32_t>(slot.tp_status).load(std::memory_order_acquire) & TP_STATUS_USER) != 0;
  }
  // Read and written as one.
  struct alignas(8) Place {
    uint32_t next;
    uint32_t popping;  // 1: its slot is being given back
  };
  void set_place(Place place) noexcept { std::atomic_ref<Place>(place_).store(place, std::memory_order_release); }

  uint8_t* const map_;
  const uint32_t slot_bytes_, slots_;
  Place place_{};
};

}  // namespace netstack
