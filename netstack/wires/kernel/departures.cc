// Places for bursts, and what becomes of those whose sender does not come back.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/departures.h"

#include <cstring>

#include "base/lock_owner.h"
#include "base/robust_lock.h"
#include "netstack/wires/segment_train.h"

namespace netstack {

// The ports stand behind the IP header, the peer's address (of IPv6 the last word) ends it.
uint64_t Departures::connection_bit(const uint8_t* frame) noexcept {
  constexpr uint32_t kTypeAt = 12, kIpv6Bytes = 40;
  const bool v6 = frame[kTypeAt] == 0x86 && frame[kTypeAt + 1] == 0xdd;
  const uint8_t* const behind = frame + SegmentTrain::kEthernetBytes + (v6 ? kIpv6Bytes : SegmentTrain::kIpBytes);
  uint32_t ports, peer;
  memcpy(&ports, behind, sizeof ports);
  memcpy(&peer, behind - sizeof peer, sizeof peer);
  return uint64_t{1} << ((ports ^ peer) * 0x9e3779b1u >> 26);
}

uint64_t Departures::connections() const noexcept {
  uint64_t bits = 0;
  for (uint64_t left = under_way_; left != 0; left &= left - 1) bits |= places_[__builtin_ctzll(left)].connections;
  return bits;
}

void Departures::mark(int number) noexcept {
  Departure& departure = places_[number];
  departure.done = false;
  departure.not_taken = 0;
  departure.helped = false;
  departure.seen_ns = 0;
  departure.wait_ns = kHelpAfterNs;
  departure.owner = base::this_owner();
  std::atomic_signal_fence(std::memory_order_release);
  under_way_ |= uint64_t{1} << number;
}

Departures::Fate Departures::fate_of(Departure& departure, uint64_t now_ns) noexcept {
  if (departure.seen_ns == 0) departure.seen_ns = now_ns;
  if (now_ns - departure.seen_ns < departure.wait_ns || departure.owner == base::this_owner()) return Fate::under_way;
  departure.seen_ns = now_ns;
  if (departure.wait_ns < kLongestWaitNs) departure.wait_ns *= 2;
  if (base::owner_is_gone(departure.owner)) {
    departure.not_taken = departure.frames;
    return Fate::back;
  }
  if (departure.helped) return Fate::under_way;
  const base::OwnerState state = base::state_of_owner(departure.owner);
  departure.helped = state != base::OwnerState::runs && state != base::OwnerState::unknown;
  return departure.helped ? Fate::help : Fate::under_way;
}

void Departures::recover() noexcept {
  for (uint64_t left = under_way_; left != 0; left &= left - 1) {
    const int number = __builtin_ctzll(left);
    if (is_done(places_[number]) || base::owner_is_gone(places_[number].owner)) unmark(number);
  }
}

bool Departures::holds(const rte_mbuf* frame) const noexcept {
  for (uint64_t left = under_way_; left != 0; left &= left - 1) {
    const Departure& departure = places_[__builtin_ctzll(left)];
    for (uint16_t i = 0; i < departure.frames; i++) {
      if (departure.frame[i] == frame) return true;
    }
  }
  return false;
}

int Departures::frames() const noexcept {
  int frames = 0;
  for (uint64_t left = under_way_; left != 0; left &= left - 1) frames += places_[__builtin_ctzll(left)].frames;
  return frames;
}

int Departures::frames_back() const noexcept {
  int frames = 0;
  for (uint64_t left = under_way_; left != 0; left &= left - 1) {
    const Departure& departure = places_[__builtin_ctzll(left)];
    if (is_done(departure)) frames += departure.frames - departure.not_taken;
  }
  return frames;
}

}  // namespace netstack
