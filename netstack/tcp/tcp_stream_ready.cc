// A stream's readiness: what every wait and every change of an epoll registration asks.
// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled without vector instructions, as stack.h promises.
#include <sys/epoll.h>

#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {
namespace {

constexpr uint32_t kReadable = EPOLLIN | EPOLLRDNORM;
constexpr uint32_t kWritable = EPOLLOUT | EPOLLWRNORM;
constexpr size_t kLeftOfShare = 16 * 1024;

}  // namespace

// tcp_poll() of Linux, bit by bit; but first a connection to which nothing has happened, as nearly all are.
uint32_t LwipStream::ready() const noexcept {
  const int unusual = error_ | int{peer_closed_} | int{read_closed_} | int{write_closed_} | static_cast<int>(urgent_) |
                      (static_cast<int>(phase_) ^ static_cast<int>(Phase::connected));
  if (unusual == 0) [[likely]] {
    const uint32_t readable = received_bytes_ >= low_water_ ? kReadable : 0;
    if (writable()) [[likely]] return readable | kWritable;
    note_no_space();
    return readable;
  }
  uint32_t events = 0;
  const bool no_more_reading = peer_closed_ || read_closed_;
  if (phase_ == Phase::fresh || phase_ == Phase::closed || (write_closed_ && no_more_reading)) events |= EPOLLHUP;
  if (no_more_reading) events |= kReadable | EPOLLRDHUP;
  if (urgent_ == Urgent::valid) events |= EPOLLPRI;
  if (phase_ != Phase::connecting) {
    if (received_bytes_ >= low_water_ + (at_mark() && !options_.oob_inline ? 1 : 0)) events |= kReadable;
    if (write_closed_ || writable()) {
      events |= kWritable;
    } else {
      note_no_space();
    }
  }
  if (error_ != 0) events |= EPOLLERR;
  return events;
}

// What the send buffer still takes. When memory is short a stream has its share of it only, in which lwIP's segments count as well.
size_t LwipStream::buffer_room() const noexcept {
  const auto limit = static_cast<size_t>(options_.send_buffer);
  const size_t queued = unsent_bytes();
  if (tcp_.core.memory.send_share_is(limit)) [[likely]] return queued < limit ? limit - queued : 0;
  const size_t share = tcp_.core.memory.send_share();
  const size_t held = queued + (pcb_ != nullptr ? pcb_->snd_queuelen * MemoryBudget::kSegmentBytes : 0);
  return held < share ? share - held : 0;
}

// Linux: free space of at least half of what is queued, that is a third of the buffer. A share of short memory is taken in pieces as large
// as it allows, when nearly all of the last one has left: a program that copies what it has still to write at each call (hiredis does) pays
// for each piece. Of a small share a third is enough, and some segments may be left, so that no piece waits for a delayed acknowledgement.
bool LwipStream::has_space() const noexcept {
  const auto limit = static_cast<size_t>(options_.send_buffer);
  if (tcp_.core.memory.send_share_is(limit)) [[likely]] return unsent_bytes() < limit && (limit - unsent_bytes()) * 3 >= limit;
  const size_t share = tcp_.core.memory.send_share();
  const size_t room = buffer_room();
  const size_t left = share / 8 > kLeftOfShare ? share / 8 : kLeftOfShare;
  return room > 0 && room * 3 >= share && room + left >= share;
}

// TCP_NOTSENT_LOWAT: who keeps little unsent writes while there is less, no more than Linux puts into one buffer at a time, and is told of
// room when there is less than half (tcp_stream_memory_free(), tcp_poll()).
size_t LwipStream::write_room() const noexcept {
  constexpr size_t kAtOnce = 64 * 1024;
  const size_t room = buffer_room();
  if (!options_.keeps_little_unsent) [[likely]] return room;
  if (waiting_bytes() >= options_.notsent_low_water) return 0;
  return room < kAtOnce ? room : kAtOnce;
}

bool LwipStream::writable() const noexcept {
  if (!has_space()) return false;
  return !options_.keeps_little_unsent || (waiting_bytes() + rare_.sequence_gap) * 2 < options_.notsent_low_water;
}

// The stream offset of a sequence number that lwIP has reached. Its own count of what is acknowledged (acknowledged_) is of whole segments:
// after a window probe, and after any acknowledgement of a part, it is behind.
uint64_t LwipStream::offset_of(uint32_t sequence) const noexcept {
  const uint32_t left = pcb_->snd_lbb - sequence;
  if (TCP_SEQ_GT(sequence, pcb_->snd_lbb)) return fed_;  // behind a FIN in the last segment of data
  return fed_ - (fin_sent_ && !fin_in_data_ && left > 0 ? left - 1 : left);
}

// What has not been sent.
size_t LwipStream::waiting_bytes() const noexcept {
  const bool has_sequence = pcb_ != nullptr && phase_ != Phase::connecting;
  return static_cast<size_t>(written_ - (has_sequence ? offset_of(pcb_->snd_nxt) : fed_));
}

// If it is memory that is short, this stream may have nothing outstanding that would have it looked at again.
void LwipStream::note_no_space() const noexcept {
  no_space_ = true;
  if (tcp_.core.memory.send_share() < static_cast<size_t>(options_.send_buffer)) tcp_.await_memory();
}

}  // namespace netstack
