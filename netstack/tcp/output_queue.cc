// Flushing, deferring and trying again.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/output_queue.h"

#include <new>

#include "netstack/tcp/tcp.h"

namespace netstack {

OutputQueue::OutputQueue(Tcp& tcp) noexcept
    : tcp_(tcp),
      frames_(tcp.core.output),
      early_flush_(tcp.core.facts().memory ? kEarlyFlush : INT32_MAX),
      costs_a_call_(tcp.core.frames_cost_a_call()) {}

void OutputQueue::flush() noexcept {
  count_ = 0;
  unflushed_bytes_ = 0;
  const bool starved_before = frames_.starved();
  if (starved_before) [[unlikely]] tcp_.core.wire().flush();  // what waits there is in the way
  frames_.set_starved(false);
  frames_.may_defer = false;
  if (!resetting_.empty()) [[unlikely]] finish_resets();
  frames_.begin_flush();
  while (!frames_.starved()) {
    DirtyLink* const link = streams_.pop_front();
    if (link == nullptr) break;
    (void)static_cast<LwipStream*>(link)->output();
  }
  frames_.end_flush();
  if (starved_before) frames_.set_starved(true);
}

void OutputQueue::defer(LwipStream& stream) noexcept {
  if (!static_cast<DirtyLink&>(stream).linked()) add(stream);
  stream.deferred = true;
}

void OutputQueue::await_memory(LwipStream& stream) noexcept {
  if (!static_cast<DirtyLink&>(stream).linked()) add(stream);
  frames_.set_starved(true);
}

void OutputQueue::retry() noexcept {
  frames_.set_starved(false);
  for (tcp_pcb* pcb = tcp_.demux().armed().front(); pcb != nullptr && !frames_.starved();) {
    tcp_pcb* const next = PcbList::after(pcb);
    if (pcb->errf == nullptr && (pcb->unsent != nullptr || tcp_is_flag_set(pcb, TF_ACK_NOW))) (void)tcp_output(pcb);
    pcb = next;
  }
  if (last_acks_owed_ && !frames_.starved()) send_last_acks();
}

// Backwards, since those that lack it came last; the walk ends at the first that is refused again.
void OutputQueue::send_last_acks() noexcept {
  last_acks_owed_ = false;
  for (tcp_pcb* pcb = tcp_.demux().waiting().back(); pcb != nullptr && !frames_.starved(); pcb = PcbList::before(pcb)) {
    if (tcp_is_flag_set(pcb, TF_ACK_NOW)) (void)tcp_output(pcb);
  }
}

void OutputQueue::owe_reset(LwipStream& stream) noexcept {
  static_cast<DirtyLink&>(stream).unlink();
  resetting_.push_back(&stream);
}

// Outside the flush proper, whose frames refer to memory that goes away with the connection.
void OutputQueue::finish_resets() noexcept {
  while (DirtyLink* link = resetting_.front()) {
    if (!static_cast<LwipStream*>(link)->finish_reset()) break;
  }
}

// Behind what was sent, unless the peer has taken back the window for that: there it would look at no reset (Linux: tcp_acceptable_seq()).
bool OutputQueue::send_reset(const tcp_pcb& pcb) noexcept {
  const uint32_t edge = pcb.lastack + pcb.snd_wnd;
  const uint32_t sequence = TCP_SEQ_LT(edge, pcb.snd_nxt) ? edge : pcb.snd_nxt;
  const bool starved_before = frames_.starved();
  frames_.set_starved(false);
  tcp_rst(&pcb, sequence, pcb.rcv_nxt, &pcb.local_ip, &pcb.remote_ip, pcb.local_port, pcb.remote_port);
  const bool sent = !frames_.starved();
  if (starved_before) frames_.set_starved(true);
  return sent;
}

void OutputQueue::reset() noexcept {
  new (&streams_) base::List<DirtyLink>();
  new (&resetting_) base::List<DirtyLink>();
  count_ = answers_due_ = closes_after_answer_ = 0;
  answered_ = nullptr;
  unflushed_bytes_ = unseen_bytes_ = 0;
  last_acks_owed_ = false;
}

}  // namespace netstack
