// The table of half-open connections.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/request_table.h"

#include <atomic>
#include <cstring>

namespace netstack {

Request* RequestTable::find(uint32_t hash, const FourTuple& tuple) noexcept {
  if (count_ == 0) return nullptr;
  Request* request = at(buckets_[hash % kBuckets]);
  while (request != nullptr && request->tuple != tuple) request = at(request->chained);
  return request;
}

Request& RequestTable::add(uint32_t hash, const Request& request, uint64_t now_ns) noexcept {
  Request* entry = at(free_);
  if (entry != nullptr) {
    free_ = entry->next;
  } else {
    entry = &requests_[touched_++];
  }
  *entry = request;
  entry->since_ns = now_ns;
  std::atomic_signal_fence(std::memory_order_release);  // rebuild() may find it at any time
  entry->used = true;
  link(hash, *entry);
  return *entry;
}

void RequestTable::remove(uint32_t hash, Request& request) noexcept {
  request.used = false;
  uint16_t* from = &buckets_[hash % kBuckets];
  while (at(*from) != &request) from = &at(*from)->chained;
  *from = request.chained;
  unlist(request);
  count_--;
  make_free(request);
}

void RequestTable::advance(Request& request, uint64_t now_ns) noexcept {
  unlist(request);
  request.stage++;
  request.since_ns = now_ns;
  list(request);
}

uint64_t RequestTable::next_ns() const noexcept {
  uint64_t first = UINT64_MAX;
  if (count_ == 0) return first;
  for (int stage = 0; stage < kStages; stage++) {
    if (heads_[stage] == 0) continue;
    const uint64_t lasts = stage == kFresh ? kStageNs[kFresh] + kStageNs[kAnswered] : kStageNs[stage];
    const uint64_t due = requests_[heads_[stage] - 1].since_ns + lasts;
    if (due < first) first = due;
  }
  return first;
}

void RequestTable::begin_anew() noexcept {
  count_ = 0;
  free_ = 0;
  if (touched_ < 0 || touched_ > kCapacity) touched_ = kCapacity;
  memset(heads_, 0, sizeof heads_);
  memset(tails_, 0, sizeof tails_);
  memset(buckets_, 0, sizeof buckets_);
}

void RequestTable::make_free(Request& request) noexcept {
  request.next = free_;
  free_ = number_of(request);
}

void RequestTable::link(uint32_t hash, Request& request) noexcept {
  uint16_t& bucket = buckets_[hash % kBuckets];
  request.chained = bucket;
  bucket = number_of(request);
  list(request);
  count_++;
}

void RequestTable::list(Request& request) noexcept {
  uint16_t& tail = tails_[request.stage];
  request.previous = tail;
  request.next = 0;
  (tail != 0 ? at(tail)->next : heads_[request.stage]) = number_of(request);
  tail = number_of(request);
}

void RequestTable::unlist(Request& request) noexcept {
  (request.previous != 0 ? at(request.previous)->next : heads_[request.stage]) = request.next;
  (request.next != 0 ? at(request.next)->previous : tails_[request.stage]) = request.previous;
}

}  // namespace netstack
