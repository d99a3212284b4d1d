// Half-open connections: what is kept between a SYN and the ACK that completes its handshake (the kernel's request socks).
// SPDX-License-Identifier: BSD-3-Clause
//
// An entry has a tenth of a PCB's size, and there is a fixed number of them in the region, so that SYNs take nothing from the memory that
// connections live on. An entry goes through stages, each with a fixed time: it may be held for some seconds before it gets a SYN-ACK;
// then it is fresh for as long as an answer from near by takes; its SYN-ACK is sent again after 1, 3, 7, 15 and 31 seconds, and after 63
// it is given up (Linux: tcp_synack_retries 5). The entries of a stage are in a list, oldest first, so that only heads can be due.
//
// The table survives recover(): entries say by `used` alone whether they count, links are made anew.
#pragma once

#include <cstdint>

#include "netstack/tcp/syn_cookies.h"

namespace netstack {

class LwipListener;
struct SavedSyn;

struct Request {
  FourTuple tuple;
  uint32_t peer_isn, isn;
  SynOptions options;
  uint16_t window;
  uint8_t mac[6];  // where the SYN came from
  uint8_t stage;
  bool used;
  bool acked;      // by a bare ACK, which was not taken: TCP_DEFER_ACCEPT
  uint32_t tick;  // lwIP's, when it was answered
  uint32_t rejected_tick;  // and when a segment was last rejected; 0: none was
  LwipListener* listener;
  SavedSyn* saved_syn;
  uint64_t since_ns;  // in this stage
  uint16_t chained, previous, next;  // index + 1; 0 ends
};

// All zero bytes is an empty table.
class RequestTable {
 public:
  static constexpr int kCapacity = 4096;
  enum Stage : uint8_t { kHeld, kFresh, kAnswered, kRepeated, kLast = kRepeated + 4 };
  static constexpr int kStages = kLast + 1;
  static constexpr uint64_t kMs = 1'000'000;
  static constexpr uint64_t kStageNs[kStages] = {4000 * kMs, 40 * kMs,   960 * kMs,    2000 * kMs,
                                                 4000 * kMs, 8000 * kMs, 16'000 * kMs, 32'000 * kMs};

  [[nodiscard]] int count() const noexcept { return count_; }
  [[nodiscard]] bool full() const noexcept { return count_ == kCapacity; }
  // `hash`: of the tuple, hard to guess.
  [[nodiscard]] Request* find(uint32_t hash, const FourTuple& tuple) noexcept;
  // A copy of `request` in the table, in its stage since `now_ns`; the table is not full.
  Request& add(uint32_t hash, const Request& request, uint64_t now_ns) noexcept;
  void remove(uint32_t hash, Request& request) noexcept;
  // The oldest of a stage, or nullptr.
  [[nodiscard]] Request* oldest(int stage) noexcept { return at(heads_[stage]); }
  [[nodiscard]] bool due(const Request& request, uint64_t now_ns) const noexcept {
    return now_ns - request.since_ns >= kStageNs[request.stage];
  }
  // Into the next stage, from `now_ns` on; not from the last.
  void advance(Request& request, uint64_t now_ns) noexcept;
  // The next of its stage, younger.
  [[nodiscard]] Request* after(const Request& request) noexcept { return at(request.next); }
  // When the first SYN-ACK must be repeated, or the first entry given up; UINT64_MAX if there is none. Nothing is to be done when one is
  // fresh no longer.
  [[nodiscard]] uint64_t next_ns() const noexcept;

  // Calls visit(Request&) for each entry; it may remove that one.
  template <class Visit>
  void for_each(Visit visit) noexcept {
    for (int i = 0; i < touched_; i++) {
      if (requests_[i].used) visit(requests_[i]);
    }
  }
  // After the owner of the lock died anywhere: `hash(Request&)` of those for which keep(Request&) holds; the rest is dropped.
  template <class Keep, class Hash>
  void rebuild(uint64_t now_ns, Keep keep, Hash hash) noexcept {
    begin_anew();
    for (int i = 0; i < touched_; i++) {
      Request& request = requests_[i];
      request.used = request.used && request.stage < kStages && keep(request);
      request.saved_syn = nullptr;  // its memory is not there any more
      if (request.used) {
        request.since_ns = now_ns;
        link(hash(request), request);
      } else {
        make_free(request);
      }
    }
  }

 private:
  static constexpr uint32_t kBuckets = 4096;

  [[nodiscard]] Request* at(uint16_t number) noexcept { return number == 0 ? nullptr : &requests_[number - 1]; }
  [[nodiscard]] uint16_t number_of(const Request& request) const noexcept { return static_cast<uint16_t>(&request - requests_ + 1); }
  void begin_anew() noexcept;
  void make_free(Request& request) noexcept;
  void link(uint32_t hash, Request& request) noexcept;
  void list(Request& request) noexcept;
  void unlist(Request& request) noexcept;

  int count_;
  int touched_;
  uint16_t free_;
  uint16_t heads_[kStages], tails_[kStages];
  uint16_t buckets_[kBuckets];
  Request requests_[kCapacity];
};

}  // namespace netstack
