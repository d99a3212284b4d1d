// The connection table and its three lists.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp_demux.h"

#include <cstring>

#include "netstack/tcp/tuples.h"

namespace netstack {
namespace {

tcp_pcb* hash_next(const tcp_pcb* pcb) noexcept { return static_cast<tcp_pcb*>(pcb->ext_args[1].data); }
bool is_v6_at(const ip_addr_t& one, const IpAddress& other) noexcept {
  return IP_IS_V6_VAL(one) && memcmp(ip_2_ip6(&one)->addr, other.words_be, sizeof other.words_be) == 0;
}
void set_hash_next(tcp_pcb* pcb, tcp_pcb* next) noexcept { pcb->ext_args[1].data = next; }
void set_list_prev(tcp_pcb* pcb, tcp_pcb* prev) noexcept { pcb->ext_args[2].data = prev; }
void set_list_next(tcp_pcb* pcb, tcp_pcb* next) noexcept { pcb->ext_args[3].data = next; }

}  // namespace

void PcbList::push_back(tcp_pcb* pcb) noexcept {
  set_list_prev(pcb, tail_);
  set_list_next(pcb, nullptr);
  if (tail_ != nullptr) {
    set_list_next(tail_, pcb);
  } else {
    head_ = pcb;
  }
  tail_ = pcb;
}

void PcbList::remove(tcp_pcb* pcb) noexcept {
  tcp_pcb* const prev = before(pcb);
  tcp_pcb* const next = after(pcb);
  if (prev != nullptr) {
    set_list_next(prev, next);
  } else {
    head_ = next;
  }
  if (next != nullptr) {
    set_list_prev(next, prev);
  } else {
    tail_ = prev;
  }
}

void TcpDemux::start(const uint64_t seed[2]) noexcept {
  secret_[0] = seed[0];
  secret_[1] = seed[1] | 1;
}

void TcpDemux::reset() noexcept {
  armed_.clear();
  waiting_.clear();
  parked_.clear();
  hashed_ = 0;
  waiting_count_ = 0;
  for (tcp_pcb*& bucket : buckets_) {
    if (bucket != nullptr) bucket = nullptr;
  }
}

// A multiply by a secret odd number spreads the tuple over the upper bits; the secret keeps a peer from choosing one bucket.
uint32_t TcpDemux::bucket_of(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept {
  uint64_t h = (uint64_t{remote_be} << 32 | local_be) ^ secret_[0];
  h *= secret_[1];
  h ^= h >> 29;
  h += uint64_t{remote_port} << 16 | local_port;
  h *= secret_[1];
  return static_cast<uint32_t>(h >> 48) % kBuckets;
}

// The same over more words, each with a multiplier of its own: one after the other they would wait for each other.
uint32_t TcpDemux::bucket_of(const FourTuple& tuple) const noexcept {
  if (tuple.is_v4()) return bucket_of(tuple.local.v4_be(), tuple.peer.v4_be(), tuple.local_port, tuple.peer_port);
  const auto high = [](const IpAddress& a) { return uint64_t{a.words_be[1]} << 32 | a.words_be[0]; };
  const auto low = [](const IpAddress& a) { return uint64_t{a.words_be[3]} << 32 | a.words_be[2]; };
  const auto odd = [](uint64_t word, int turn) { return (word << turn | word >> (64 - turn)) | 1; };
  uint64_t h = (low(tuple.peer) ^ secret_[0]) * secret_[1] + (high(tuple.peer) ^ secret_[0]) * odd(secret_[1], 21) +
               (low(tuple.local) ^ secret_[0]) * odd(secret_[1], 42) + (high(tuple.local) ^ secret_[0]) * odd(secret_[0], 13);
  h ^= h >> 29;
  h += uint64_t{tuple.peer_port} << 16 | tuple.local_port;
  h *= secret_[1];
  return static_cast<uint32_t>(h >> 48) % kBuckets;
}

uint32_t TcpDemux::bucket_of(const tcp_pcb* pcb) const noexcept {
  if (!is_v4(*pcb)) return bucket_of(tuple_of(*pcb));
  return bucket_of(ip_2_ip4(&pcb->local_ip)->addr, ip_2_ip4(&pcb->remote_ip)->addr, pcb->local_port, pcb->remote_port);
}

void TcpDemux::add(tcp_pcb* pcb) noexcept {
  if ((marks(pcb) & kHashed) != 0) return;
  tcp_pcb** bucket = &buckets_[bucket_of(pcb)];
  set_hash_next(pcb, *bucket);
  *bucket = pcb;
  hashed_++;
  pcb->next = nullptr;
  set_marks(pcb, kHashed);
  if (pcb->state == TIME_WAIT) {
    waiting_.push_back(pcb);
    waiting_count_++;
    set_marks(pcb, kHashed | kWaiting);
  } else {
    arm_slowly(pcb);
  }
}

void TcpDemux::unlist(tcp_pcb* pcb) noexcept {
  const uint32_t mark = marks(pcb);
  if ((mark & kArmed) != 0) armed_.remove(pcb);
  if ((mark & kParked) != 0) parked_.remove(pcb);
  if ((mark & kWaiting) != 0) {
    waiting_.remove(pcb);
    waiting_count_--;
  }
  set_marks(pcb, mark & kHashed);
}

bool TcpDemux::remove(tcp_pcb* pcb) noexcept {
  if ((marks(pcb) & kHashed) == 0) return false;
  unlist(pcb);
  tcp_pcb** bucket = &buckets_[bucket_of(pcb)];
  if (*bucket == pcb) {
    *bucket = hash_next(pcb);
  } else {
    tcp_pcb* previous = *bucket;
    while (hash_next(previous) != pcb) previous = hash_next(previous);
    set_hash_next(previous, hash_next(pcb));
  }
  set_marks(pcb, 0);
  hashed_--;
  return true;
}

tcp_pcb* TcpDemux::find(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept {
  tcp_pcb* pcb = buckets_[bucket_of(local_be, remote_be, local_port, remote_port)];
  while (pcb != nullptr && (pcb->remote_port != remote_port || pcb->local_port != local_port ||
                            ip_2_ip4(&pcb->remote_ip)->addr != remote_be || ip_2_ip4(&pcb->local_ip)->addr != local_be || !is_v4(*pcb))) {
    pcb = hash_next(pcb);
  }
  return pcb;
}

tcp_pcb* TcpDemux::find(const FourTuple& tuple) const noexcept {
  if (tuple.is_v4()) return find(tuple.local.v4_be(), tuple.peer.v4_be(), tuple.local_port, tuple.peer_port);
  tcp_pcb* pcb = buckets_[bucket_of(tuple)];
  while (pcb != nullptr && (pcb->remote_port != tuple.peer_port || pcb->local_port != tuple.local_port ||
                            !is_v6_at(pcb->remote_ip, tuple.peer) || !is_v6_at(pcb->local_ip, tuple.local))) {
    pcb = hash_next(pcb);
  }
  return pcb;
}

const void* const* TcpDemux::locate(const FourTuple& tuple) const noexcept {
  tcp_pcb* const* bucket = &buckets_[bucket_of(tuple)];
  __builtin_prefetch(bucket);
  return reinterpret_cast<const void* const*>(bucket);
}

const void* const* TcpDemux::locate(uint32_t local_be, uint32_t remote_be, uint16_t local_port, uint16_t remote_port) const noexcept {
  tcp_pcb* const* bucket = &buckets_[bucket_of(local_be, remote_be, local_port, remote_port)];
  __builtin_prefetch(bucket);
  return reinterpret_cast<const void* const*>(bucket);
}

void TcpDemux::arm_slowly(tcp_pcb* pcb) noexcept {
  if ((marks(pcb) & kHashed) == 0 || (marks(pcb) & kWaiting) != 0) return;
  unlist(pcb);
  armed_.push_back(pcb);
  set_marks(pcb, kHashed | kArmed);
}

void TcpDemux::disarm(tcp_pcb* pcb, bool keepalive) noexcept {
  unlist(pcb);
  if (!keepalive) return;
  parked_.push_back(pcb);
  set_marks(pcb, kHashed | kParked);
}

void TcpDemux::requeue_waiting(tcp_pcb* pcb) noexcept {
  waiting_.remove(pcb);
  waiting_.push_back(pcb);
}

}  // namespace netstack
