// Send side of a stream: from write() over lwIP's short queue and our chunks to tcp_output.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. lwIP keeps what is unsent and what is unacknowledged in two lists of segments: every tcp_write() walks the first to its end,
// every tcp_output() walks the second, and all of it is in memory twice, as the program's bytes and as lwIP's. With the send buffer that
// Linux gives a socket (tcp_wmem, megabytes) each write would cost as much as all before it.
//
// Our choice. The buffer is ours, and lwIP holds no more than the window lets out:
//
//     write()  --copy-->  lwIP's unsent            while nothing waits here: a request or a reply is copied once
//              --copy-->  chunks  --reference-->   lwIP's unsent, as acknowledgements come
//                                                  (on_sent() -> mark_dirty() -> output() -> feed())
//     write_from()  -->   chunks                   written there by the source: a file's bytes are copied once
//
//     acknowledged_ ........ fed_ ........ written_     offsets in the stream; sk_wmem_queued is written_ - acknowledged_
//
//  - feed_budget() says how much: whole segments within min(cwnd, snd_wnd) (RFC 5681, 2), cut for the peer's largest window (Linux:
//    tcp_bound_to_half_wnd()), and something to probe with when the window is shut (RFC 9293, 3.8.6.1).
//  - A chunk is freed when all that was fed from it is acknowledged, because lwIP refers to it until then (and retransmits from it).
//  - What is held back (TCP_CORK, MSG_MORE; Linux: 200 ms at most) stays here as well: lwIP has Nagle's algorithm (RFC 9293, 3.7.4), but no
//    cork.
//  - The FIN goes to lwIP when everything is with lwIP, and not before: finish_sending().
// Rejected: lwIP's own queue up to the send buffer (above); one buffer per stream (65536 streams share one arena).
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <sys/epoll.h>

#include "netstack/tcp/orphans.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"
#include "zps_hooks.h"

namespace netstack {
namespace {

constexpr size_t kCopyAtOnce = 32 * 1024;        // what one tcp_write copies
constexpr size_t kEagerSegments = 44;            // this much unsent is flushed in the middle of a write
constexpr size_t kEagerBytes = 176 * 1024;       // or this much, if it is less
constexpr uint32_t kInitialSegments = 10;
constexpr uint32_t kWindowSegments = 4;          // long segments are for windows that hold so many
constexpr uint32_t kLeastSegment = 536;          // a window smaller than this is probed
constexpr uint32_t kHeaderBytes = 40;            // of IPv4 and TCP, without options
constexpr uint32_t kChunks[] = {64 * 1024 - 64, 16 * 1024 - 64, 4 * 1024 - 64};
constexpr uint64_t kSecondNs = 1'000'000'000;
constexpr uint64_t kPaceNs = 50'000'000;        // a tick and some
constexpr uint64_t kHoldLimitNs = 200'000'000;   // tcp(7): TCP_CORK holds for 200 ms at most
constexpr uint64_t kUnreachableNs = 3'000'000'000;
constexpr u8_t kUnreachableSyns = 2;  // retransmitted within that time, each with a question, unless the process was stopped meanwhile
constexpr uint64_t kDelayedAckNs = 40'000'000;   // Linux: TCP_ATO_MIN
constexpr int kInitialRtoTicks = 1000 / TCP_SLOW_INTERVAL;

constexpr size_t least(size_t a, size_t b) { return a < b ? a : b; }

}  // namespace

void LwipStream::mark_dirty() noexcept {
  if (!DirtyLink::linked()) tcp_.output.add(*this);
}

// 0, or why nothing can be queued.
long LwipStream::refuse_write() noexcept {
  if (error_ != 0) return -take_error();
  if (phase_ == Phase::connecting) {  // sk_stream_wait_connect() comes first, whatever is shut
    no_space_ = true;
    return -EAGAIN;
  }
  if (write_closed_ || phase_ == Phase::fresh || phase_ == Phase::closed || pcb_ == nullptr) return -EPIPE;
  return 0;
}

LwipStream::Write LwipStream::begin_write(bool more) noexcept {
  const bool was_empty = written_ == acknowledged_;
  const uint64_t now_ns = was_empty ? tcp_.timers.fresh_now_ns() : tcp_.now_ns();
  if (now_ns - received_ns_ < kDelayedAckNs) interactive_ = true;
  more_ = more;
  return {was_empty, now_ns};
}

long LwipStream::write(const iovec* parts, int count, bool more) noexcept {
  if (tcp_.output.look_is_due()) [[unlikely]] tcp_.look_at_wire();
  if (const long error = refuse_write(); error != 0) return error;
  const bool is_empty = std::all_of(parts, parts + count, [](const iovec& part) { return part.iov_len == 0; });
  const Write write = begin_write(is_empty ? more_ : more);  // an empty write pushes nothing
  size_t room = write_room();
  size_t done = 0, wanted = 0;
  for (int i = 0; i < count; i++) {
    const size_t bytes = parts[i].iov_len;
    wanted += bytes;
    const size_t accepted = least(bytes, room);
    if (accepted == 0) continue;
    const size_t n = append(static_cast<const uint8_t*>(parts[i].iov_base), accepted);
    written_ += n;
    done += n;
    room -= n;
    if (n < accepted) room = 0;
  }
  return end_write(write, done, wanted);
}

// In chunks only, which stay where they are: what would be copied behind waiting bytes later is not copied here.
long LwipStream::write_from(ByteSource& source, size_t wanted, bool more) noexcept {
  if (tcp_.output.look_is_due()) [[unlikely]] tcp_.look_at_wire();
  if (const long error = refuse_write(); error != 0) return error;
  const Write write = begin_write(more_);
  const size_t accepted = least(wanted, write_room());
  size_t done = 0;
  bool is_eager = true;
  while (done < accepted) {
    const bool is_fresh = last_chunk_ == nullptr || last_chunk_->filled == last_chunk_->capacity;
    Chunk* const chunk = is_fresh ? make_chunk(accepted - done) : last_chunk_;
    if (chunk == nullptr) break;
    const long taken = source.take(chunk->bytes() + chunk->filled, least(accepted - done, chunk->capacity - chunk->filled));
    if (taken > 0 && is_fresh) add_chunk(chunk);
    if (taken > 0 && feeding_ == nullptr) feeding_ = chunk;
    if (taken <= 0) {
      if (is_fresh) tcp_.arena().release(chunk);
      return done == 0 ? 0 : end_write(write, done, done);
    }
    more_ = more;
    chunk->filled += static_cast<uint32_t>(taken);
    written_ += static_cast<size_t>(taken);
    done += static_cast<size_t>(taken);
    if (!is_eager || written_ - fed_ < kEagerBytes) continue;
    mark_dirty();
    tcp_.output.flush();
    is_eager = written_ - fed_ < kEagerBytes;
  }
  return end_write(write, done, wanted);
}

long LwipStream::end_write(const Write& write, size_t done, size_t wanted) noexcept {
  if (done < wanted) {
    note_no_space();
    push_all();
    tcp_.timers.arm(pcb_);  // if it is memory that lacks, no ACK may come to tell that there is some again
  }
  if (done == 0) return wanted == 0 ? 0 : -EAGAIN;
  if (write.was_empty) progress_ns_ = write.now_ns;
  if (rtt_offset_ == 0) {
    rtt_sent_ns_ = write.now_ns;
    rtt_offset_ = written_;
    figures_.rate_from = static_cast<uint32_t>(acknowledged_);
  }
  if (holding() && held_since_ns_ == 0) held_since_ns_ = write.now_ns | 1;
  mark_dirty();
  tcp_.output.push(*this, done);
  return static_cast<long>(done);
}

// A segment to be sent again waits in lwIP's unsent queue. It may be the last there, and a short one: tcp_write() would take it
// for the end of the stream and add to it.
bool LwipStream::retransmits() const noexcept {
  return pcb_->unsent != nullptr && TCP_SEQ_LT(lwip_ntohl(pcb_->unsent->tcphdr->seqno), pcb_->snd_nxt);
}

// The payload of one, as lwIP cuts them: two with their options fit the largest window there was.
uint32_t LwipStream::longest_segment() const noexcept {
  const uint32_t half = pcb_->snd_wnd_max / 2, option_bytes = pcb_->mss - tcp_mss(pcb_);
  return (half > option_bytes && half < pcb_->mss ? half : pcb_->mss) - option_bytes;
}

// What lwIP may be given now of `wanted` bytes, or more than these: whole segments that the window lets out at once, because every
// tcp_output with something unsent walks to the end of the unacknowledged queue. lwIP cuts them so that two fit the largest window there
// was: Linux acknowledges two at once, one may wait for its timer. A window that became smaller than a long segment has short ones from
// then on.
// With nothing in flight something goes in whatever the window, so that lwIP's persist timer has something to probe with.
uint32_t LwipStream::feed_budget(size_t wanted) noexcept {
  const uint32_t budget = window_budget(wanted);
  return options_.paced ? paced(budget) : budget;
}

// SO_MAX_PACING_RATE: of `bytes` those that may leave now, in whole segments. What is not sent for a while is saved up, but for a tick
// only, at which before_tick() sends what waits here, or for one segment.
uint32_t LwipStream::paced(uint32_t bytes) noexcept {
  const uint64_t now_ns = tcp_.now_ns(), rate = options_.pacing_rate > 0 ? options_.pacing_rate : 1;
  const uint64_t segment = tcp_.full_payload(*pcb_), segment_ns = segment * kSecondNs / rate + 1;
  const uint64_t most_ns = segment_ns > kPaceNs ? segment_ns : kPaceNs;
  if (rare_.pace_ns + most_ns < now_ns) rare_.pace_ns = now_ns - most_ns;
  if (rare_.pace_ns >= now_ns) return 0;
  const uint64_t allowed = (now_ns - rare_.pace_ns) * rate / kSecondNs;  // of 50 ms at 4 GB/s, or a segment's bytes
  return allowed >= bytes ? bytes : static_cast<uint32_t>(allowed - allowed % segment);
}

void LwipStream::pay_pace(size_t bytes) noexcept {
  if (options_.paced) rare_.pace_ns += bytes * kSecondNs / (options_.pacing_rate > 0 ? options_.pacing_rate : 1);
}

uint32_t LwipStream::window_budget(size_t wanted) noexcept {
  if (pcb_->snd_queuelen > TCP_SND_QUEUELEN / 2) return 0;
  if (retransmits()) return 0;
  const uint32_t window = pcb_->snd_wnd < pcb_->cwnd ? pcb_->snd_wnd : pcb_->cwnd;
  const uint32_t taken = pcb_->snd_lbb - pcb_->lastack;  // in flight and unsent
  if (taken == 0 && window != 0 && window < pcb_->mss) shorten_segments();
  const uint32_t segment = longest_segment();
  if (taken == 0 && window < segment) return window < kLeastSegment ? segment : window;
  const uint32_t room = window > taken ? window - taken : 0;
  if (room < segment) return wanted <= room ? room : 0;
  return wanted <= segment ? segment : room - room % segment;
}

// To what fits a frame. But not while something is queued: lwIP trusts that no segment is longer than they all may be.
void LwipStream::shorten_segments() noexcept {
  const uint32_t segment = tcp_.frame_mss(*pcb_);
  const bool queues = pcb_->unsent != nullptr || pcb_->unacked != nullptr;
  if (segment < pcb_->mss && !queues) pcb_->mss = static_cast<u16_t>(segment);
}

// A peer with a small window gets short segments: in long ones each would be half of it, and wait for the acknowledgement of the one
// before.
// RFC 6928: ten segments at the start. On a link that brings larger frames than we send the peer starts with ten of those, and so do we.
void LwipStream::raise_window() noexcept {
  window_raised_ = true;
  if (pcb_->snd_wnd_max < kWindowSegments * pcb_->mss) shorten_segments();
  const uint32_t segment = tcp_.facts().gro_max_size > kHeaderBytes + pcb_->mss ? tcp_.facts().gro_max_size - kHeaderBytes : pcb_->mss;
  if (pcb_->cwnd < kInitialSegments * segment) pcb_->cwnd = kInitialSegments * segment;
}

size_t LwipStream::append(const uint8_t* data, size_t bytes) noexcept {
  size_t done = 0;
  if (feeding_ == nullptr && !holding()) {
    if (!window_raised_) {
      raise_window();
    }
    while (done < bytes) {
      const size_t n = least(least(bytes - done, feed_budget(bytes - done)), kCopyAtOnce);
      if (n == 0 || tcp_write(pcb_, data + done, static_cast<u16_t>(n), TCP_WRITE_FLAG_COPY) != ERR_OK) break;
      fed_ += n;
      done += n;
      pay_pace(n);
      const size_t eager = least(kEagerSegments * pcb_->mss, kEagerBytes);
      if (waiting_in_lwip() >= eager) {
        mark_dirty();
        tcp_.output.flush();
        if (waiting_in_lwip() >= eager) break;
      }
    }
  }
  return done < bytes ? done + append_chunks(data + done, bytes - done) : done;
}

// For `bytes` or less. While memory is short, and where only small pieces are left, a smaller one does.
LwipStream::Chunk* LwipStream::make_chunk(size_t bytes) noexcept {
  const bool is_short = tcp_.core.memory.send_share() < kChunks[0];
  for (const uint32_t capacity : kChunks) {
    const bool last = capacity == kChunks[2];
    if (!last && bytes <= (capacity == kChunks[0] || is_short ? capacity / 4 : 0)) continue;
    if (void* const memory = tcp_.arena().allocate(sizeof(Chunk) + capacity); memory != nullptr)
      return new (memory) Chunk{nullptr, 0, capacity, 0, 0};
  }
  return nullptr;
}

void LwipStream::add_chunk(Chunk* chunk) noexcept {
  (last_chunk_ != nullptr ? last_chunk_->next : chunks_) = chunk;
  last_chunk_ = chunk;
}

size_t LwipStream::append_chunks(const uint8_t* data, size_t bytes) noexcept {
  size_t done = 0;
  while (done < bytes) {
    Chunk* chunk = last_chunk_;
    if (chunk == nullptr || chunk->filled == chunk->capacity) {
      chunk = make_chunk(bytes - done);
      if (chunk == nullptr) break;
      add_chunk(chunk);
    }
    const size_t n = least(bytes - done, chunk->capacity - chunk->filled);
    memcpy(chunk->bytes() + chunk->filled, data + done, n);
    chunk->filled += static_cast<uint32_t>(n);
    done += n;
    if (feeding_ == nullptr) feeding_ = chunk;
  }
  return done;
}

// What is here leaves, in spite of Nagle and of a cork (Linux: TCP_NAGLE_PUSH, as by tcp_push() before a sender waits for memory).
void LwipStream::push_all() noexcept {
  pushed_ = written_;
  mark_dirty();
}

// How many of so many unfed bytes a cork lets out: whole segments as they are on the wire, and what was pushed.
size_t LwipStream::unheld(size_t unfed) const noexcept {
  const size_t whole = unfed - unfed % tcp_.full_payload(*pcb_);
  const size_t pushed = pushed_ > fed_ ? static_cast<size_t>(pushed_ - fed_) : 0;
  return whole > pushed ? whole : pushed;
}

// Nagle's algorithm in Minshall's variant, which is Linux's (tcp_nagle_check, tcp_minshall_check): a short segment waits only while another
// short one is unacknowledged. In lwIP's own it waits for anything, so the end of each large write would take as long as the peer delays
// acknowledgements.
bool LwipStream::nagle_permits() noexcept {
  const tcp_seg& segment = *pcb_->unsent;
  const uint32_t start = lwip_ntohl(segment.tcphdr->seqno);
  if (segment.len < kLeastSegment && segment.len > 0 && tcp_is_flag_set(pcb_, TF_NODELAY)) [[likely]] {
    short_end_ = start + segment.len;
    return true;
  }
  const uint32_t longest = longest_segment();
  if (segment.len >= longest) return true;
  const uint32_t framed = tcp_.full_payload(*pcb_), full = framed < longest ? framed : longest;
  const bool behind_short = TCP_SEQ_GT(short_end_, pcb_->lastack) && TCP_SEQ_LEQ(short_end_, start);
  const bool last_of_several = segment.next == nullptr && pcb_->unacked != nullptr;
  if (behind_short && segment.len < full && last_of_several && !tcp_is_flag_set(pcb_, TF_NODELAY | TF_INFR)) {
    const uint64_t offset = fed_ - (pcb_->snd_lbb - start);
    if (offset >= pushed_) return false;
  }
  if (segment.len < full ? segment.len > 0 : segment.len % full != 0) short_end_ = start + segment.len;
  return true;
}

// Gives chunk bytes to lwIP by reference, as far as its queue may grow; whole segments only while a partial one is held back, wherever one
// chunk ends and the next begins.
void LwipStream::feed() noexcept {
  size_t unheld_bytes = holding() ? unheld(static_cast<size_t>(written_ - fed_)) : SIZE_MAX;
  while (feeding_ != nullptr) {
    Chunk& chunk = *feeding_;
    const size_t available = chunk.filled - chunk.fed;
    if (available == 0) {
      feeding_ = chunk.next;
      continue;
    }
    const size_t n = least(least(least(available, feed_budget(available)), kCopyAtOnce), unheld_bytes);
    const size_t unfed = static_cast<size_t>(written_ - fed_);
    if (n == 0 || (pcb_->unacked != nullptr && !tcp_.core.memory.takes_data())) return;
    const u8_t flags = unfed > n ? u8_t{TCP_WRITE_FLAG_MORE} : u8_t{0};
    if (tcp_write(pcb_, chunk.bytes() + chunk.fed, static_cast<u16_t>(n), flags) != ERR_OK) {
      tcp_.output.await_memory(*this);
      return;
    }
    chunk.fed += static_cast<uint32_t>(n);
    fed_ += n;
    chunk.end_offset = fed_;
    unheld_bytes -= n;
    pay_pace(n);
  }
  held_since_ns_ = 0;
}

// FIN, once everything is with lwIP, and fits the peer's window: of a segment that has to be split for a window lwIP lets both parts carry
// it. A released stream that holds no memory of lwIP's any more ends here: false, and it is gone.
bool LwipStream::finish_sending() noexcept {
  if (fin_queued_ && !fin_sent_ && fed_ == written_ && pcb_->snd_lbb - pcb_->lastack <= pcb_->snd_wnd &&
      (pcb_->state == ESTABLISHED || pcb_->state == CLOSE_WAIT || pcb_->state == SYN_RCVD)) {
    fin_sent_ = true;
    const uint32_t end = pcb_->snd_lbb;
    (void)tcp_shutdown(pcb_, 0, 1);
    fin_in_data_ = pcb_->snd_lbb == end;
  }
  const bool is_urgent = tcp_is_flag_set(pcb_, ZPS_TF_URGENT);  // each retransmission says it
  if (released_ && !resetting_ && fin_sent_ && chunks_ == nullptr && !is_urgent) {
    tcp_pcb* const pcb = pcb_;
    detach();
    Orphans::leave_alone(*pcb, options_.fin_wait_s);
    tcp_.free_stream(*this);
    return false;
  }
  return true;
}

bool LwipStream::output() noexcept {
  if (pcb_ == nullptr) return true;
  if (!window_raised_ && phase_ == Phase::connected) {
    raise_window();
  }
  tcp_.timers.arm(pcb_);
  feed();
  if (fin_queued_ && !finish_sending()) return true;
  if (deferred) tcp_clear_flags(pcb_, TF_NAGLEMEMERR);  // it was no lack of memory
  deferred = false;
  split_at_window();
  if (tcp_output(pcb_) != ERR_OK) return false;
  // lwIP leaves out what is to be acknowledged at once while Nagle holds data back: two such peers would wait for each other.
  if (tcp_is_flag_set(pcb_, TF_ACK_NOW)) (void)tcp_send_empty_ack(pcb_);
  if (options_.keeps_little_unsent) look_for_room();
  return true;
}

err_t LwipStream::on_sent(void* self, tcp_pcb* pcb, u16_t bytes) noexcept {
  auto* stream = static_cast<LwipStream*>(self);
  stream->acknowledged_ += bytes;
  const uint64_t now_ns = stream->tcp_.now_ns(), waited_ns = now_ns - stream->progress_ns_;
  stream->figures_.busy_ns += waited_ns;
  stream->progress_ns_ = now_ns;
  if (tcp_is_flag_set(pcb, ZPS_TF_URGENT) && TCP_SEQ_GEQ(pcb->lastack, stream->urgent_end_)) tcp_clear_flags(pcb, ZPS_TF_URGENT);
  if (stream->released_) pcb->tmr = tcp_ticks;  // lwIP does it for who still receives only
  if (stream->rtt_offset_ != 0 && stream->acknowledged_ >= stream->rtt_offset_) stream->sample_round_trip();
  while (stream->chunks_ != nullptr && stream->chunks_->fed == stream->chunks_->filled &&
         stream->chunks_->end_offset <= stream->acknowledged_) {
    Chunk* const chunk = stream->chunks_;
    stream->chunks_ = chunk->next;
    if (stream->feeding_ == chunk) stream->feeding_ = chunk->next;
    if (stream->last_chunk_ == chunk) stream->last_chunk_ = nullptr;
    stream->tcp_.arena().release(chunk);
  }
  stream->more_ = false;  // MSG_MORE is about one call: an acknowledgement lets out what it has held (Linux: tcp_data_snd_check())
  if (stream->feeding_ != nullptr) {
    if (pcb->snd_wnd < pcb->cwnd) stream->rare_.window_limited_ns += waited_ns;
    stream->mark_dirty();  // fed once, when all ACKs of this turn are in
  } else if (pcb->unsent != nullptr && pcb->unacked == nullptr) {
    stream->mark_dirty();  // split_at_window()
  }
  stream->look_for_room();
  if (stream->fin_queued_) {
    if (stream->acknowledged_ == stream->written_) stream->announce(0);  // for who lingers
    (void)stream->finish_sending();
  }
  return ERR_OK;
}

void LwipStream::look_for_room() noexcept {
  if (!no_space_) return;
  if (!writable()) return note_no_space();
  no_space_ = false;
  announce(EPOLLOUT | EPOLLWRNORM);
}

void LwipStream::free_chunks() noexcept {
  while (chunks_ != nullptr) {
    Chunk* const chunk = chunks_;
    chunks_ = chunk->next;
    tcp_.arena().release(chunk);
  }
  last_chunk_ = feeding_ = nullptr;
  rare_.lost_bytes += written_ - acknowledged_;
  acknowledged_ = fed_ = written_;
}

// Resets a connection whose time is up; a released stream ends with it.
void LwipStream::give_up(int error) noexcept {
  abort(released_ ? 0 : error);
  if (released_) tcp_.free_stream(*this);
}

// lwIP's keepalive stops when this side has said its FIN, but the peer may have much to say still. False: it did not answer, and is given
// up.
bool LwipStream::keep_alive() noexcept {
  const uint32_t idle_ms = (tcp_ticks - pcb_->tmr) * TCP_SLOW_INTERVAL;
  if (idle_ms > pcb_->keep_idle + pcb_->keep_cnt * pcb_->keep_intvl) {
    give_up(ETIMEDOUT);
    return false;
  }
  if (idle_ms > pcb_->keep_idle + pcb_->keep_cnt_sent * pcb_->keep_intvl && tcp_keepalive(pcb_) == ERR_OK) pcb_->keep_cnt_sent++;
  return true;
}

bool LwipStream::before_tick(uint64_t now_ns) noexcept {
  if (phase_ == Phase::connecting) {
    if (options_.syn_count != 0 && pcb_->nrtx >= options_.syn_count && pcb_->rtime + 1 >= pcb_->rto) {
      give_up_connecting();
      fail(ETIMEDOUT);
      return false;
    }
    const int doublings = pcb_->nrtx < 6 ? pcb_->nrtx : 6;
    pcb_->rto = static_cast<s16_t>(kInitialRtoTicks << doublings);  // lwIP itself never backs off a SYN
    const bool asked = pcb_->nrtx >= kUnreachableSyns && now_ns - connect_ns_ > kUnreachableNs;
    if (asked && !tcp_.core.neighbours.knows_way_to(peer_.address)) abort(EHOSTUNREACH);
    return true;
  }
  if (tcp_is_flag_set(pcb_, TF_ACK_DELAY)) interactive_ = false;  // no answer has carried it
  end_timeouts(progress_ns_);
  const bool outstanding = written_ != acknowledged_;
  // Asked when something was sent again or the window is probed, as on Linux: a time shorter than a delayed ACK must not end a healthy
  // connection.
  const bool in_doubt = outstanding && (pcb_->nrtx > 0 || pcb_->persist_backoff > 0);
  if (in_doubt && options_.user_timeout_ms > 0 && now_ns - progress_ns_ > static_cast<uint64_t>(options_.user_timeout_ms) * 1'000'000) {
    give_up(ETIMEDOUT);
    return false;
  }
  const bool out_of_time = (outstanding || resetting_) && now_ns - progress_ns_ > Orphans::kPatienceNs;
  if (released_ && (out_of_time || Orphans::is_in_the_way(*pcb_, tcp_.core.memory))) {
    give_up(0);
    return false;
  }
  if (pcb_->state == FIN_WAIT_2 && !released_ && ip_get_option(pcb_, SOF_KEEPALIVE) && !keep_alive()) return false;
  if (holding() && held_since_ns_ != 0 && now_ns - held_since_ns_ > kHoldLimitNs) {
    const bool cork = options_.cork;
    options_.cork = more_ = false;
    feed();
    options_.cork = cork;
    (void)tcp_output(pcb_);
  }
  look_for_room();
  const bool unfinished = resetting_ || feeding_ != nullptr || (fin_queued_ && !fin_sent_);
  if (unfinished) mark_dirty();  // feeding may have failed for lack of memory, with no ACK outstanding that would try again
  return unfinished || no_space_;
}

}  // namespace netstack
