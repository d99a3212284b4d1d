// The four rings that an AF_XDP socket shares with the kernel.
// SPDX-License-Identifier: BSD-3-Clause
//
// One side writes entries and then its index, the other reads as far as that. The user's indices lie nowhere else than in the ring: what
// one member has published the next one sees, and what a member that died had not published has not happened.
//
// Source: Documentation/networking/af_xdp.rst and net/xdp/xsk_queue.h of Linux.
#pragma once

#include <atomic>
#include <cstdint>
#include <linux/if_xdp.h>

namespace netstack {

// Where a ring lies; all within one mapping.
struct XdpRingPlace {
  uint32_t *producer, *consumer, *flags;
  void* entries;
  uint32_t size;  // a power of two
};

template <class Entry>
class XdpRing {
 public:
  XdpRing() noexcept = default;
  explicit XdpRing(const XdpRingPlace& place) noexcept : place_(place) {}

  [[nodiscard]] uint32_t size() const noexcept { return place_.size; }
  [[nodiscard]] uint32_t produced() const noexcept { return load(place_.producer); }
  [[nodiscard]] uint32_t consumed() const noexcept { return load(place_.consumer); }
  // Entries that the other side has not taken yet, or that it has left for us.
  [[nodiscard]] uint32_t filled() const noexcept { return produced() - consumed(); }
  [[nodiscard]] uint32_t room() const noexcept { return place_.size - filled(); }
  [[nodiscard]] Entry& at(uint32_t index) const noexcept { return static_cast<Entry*>(place_.entries)[index & (place_.size - 1)]; }
  void publish(uint32_t producer) const noexcept { store(place_.producer, producer); }
  void take(uint32_t consumer) const noexcept { store(place_.consumer, consumer); }
  // The kernel does nothing by itself: it has to be called.
  [[nodiscard]] bool needs_call() const noexcept { return (load(place_.flags) & XDP_RING_NEED_WAKEUP) != 0; }

 private:
  static uint32_t load(uint32_t* from) noexcept { return std::atomic_ref<uint32_t>(*from).load(std::memory_order_acquire); }
  static void store(uint32_t* to, uint32_t value) noexcept { std::atomic_ref<uint32_t>(*to).store(value, std::memory_order_release); }

  XdpRingPlace place_{};
};

}  // namespace netstack
