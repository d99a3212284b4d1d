// Delaying acknowledgements, and sending those that are due.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/delayed_acks.h"

#include <new>

#include "netstack/tcp/tcp.h"

namespace netstack {
namespace {

constexpr uint8_t kQuickAcks = 16;         // Linux: TCP_MAX_QUICKACKS
constexpr uint64_t kPauseNs = 200'000'000;  // no RTO is shorter (TCP_RTO_MIN)

}  // namespace

DelayedAcks::DelayedAcks(Tcp& tcp, const base::BiasedLock& lock) noexcept
    : tcp_(tcp), lock_(lock), frames_are_dear_(tcp.core.frames_cost_a_call()) {}

// If something is unsent, LwipStream::output() sees to it that the acknowledgement leaves with it.
void DelayedAcks::acknowledge(tcp_pcb* pcb) noexcept {
  auto* const stream = pcb->errf != nullptr ? static_cast<LwipStream*>(pcb->callback_arg) : nullptr;
  if (stream != nullptr && stream->acknowledges_quickly()) {
    if (frames_are_dear_ && segment_bytes_ < tcp_.full_payload(*pcb) && stream->would_tell(segment_bytes_)) {
      await_reader(pcb);
    } else {
      schedule(pcb);
    }
  } else if (!tcp_is_flag_set(pcb, TF_ACK_DELAY) && segment_bytes_ < 2 * tcp_.full_payload(*pcb)) {
    tcp_set_flags(pcb, TF_ACK_DELAY);
  } else if (frames_are_dear_ || pcb->unsent != nullptr) {
    schedule(pcb);
  } else {
    tcp_clear_flags(pcb, TF_ACK_DELAY);
    tcp_ack_now(pcb);
  }
}

void DelayedAcks::schedule(tcp_pcb* pcb) noexcept {
  tcp_set_flags(pcb, TF_ACK_DELAY);
  if (pcb->errf == nullptr) {
    tcp_ack_now(pcb);
    return;
  }
  DelayedAck* link = static_cast<LwipStream*>(pcb->callback_arg);
  link->unlink();
  link->due_ns = 0;
  due_.push_back(link);
}

void DelayedAcks::await_reader(tcp_pcb* pcb) noexcept {
  auto* const stream = static_cast<LwipStream*>(pcb->callback_arg);
  DelayedAck* link = stream;
  tcp_set_flags(pcb, TF_ACK_DELAY);
  stream->acknowledge_when_read();
  if (link->linked()) return;
  link->due_ns = tcp_.now_ns() + kUnreadNs;
  unread_.push_back(link);
}

void DelayedAcks::await_answer(tcp_pcb* pcb) noexcept {
  auto* const stream = static_cast<LwipStream*>(pcb->callback_arg);
  DelayedAck* link = stream;
  if (!frames_are_dear_) {
    tcp_ack_now(pcb);
    stream->mark_dirty();
    return;
  }
  if (link->linked() && link->due_ns == 0) return;
  link->unlink();
  link->due_ns = tcp_.now_ns() + kAnswerNs;
  link->reader = lock_.holder();
  awaited_.push_back(link);
}

void DelayedAcks::send(tcp_pcb* pcb) noexcept {
  if (pcb->errf == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) return;
  DelayedAck* link = static_cast<LwipStream*>(pcb->callback_arg);
  if (!link->linked() && !tcp_is_flag_set(pcb, TF_ACK_NOW)) return;
  link->unlink();
  (void)tcp_send_empty_ack(pcb);
}

void DelayedAcks::send_due(DelayedAck* link) noexcept {
  link->unlink();
  auto& stream = *static_cast<LwipStream*>(link);
  tcp_pcb* const pcb = stream.pcb();
  if (pcb == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) return;
  tcp_ack_now(pcb);
  stream.mark_dirty();
}

void DelayedAcks::send_all() noexcept {
  while (DelayedAck* link = due_.front()) send_due(link);
  if (unread_.empty() && awaited_.empty()) [[likely]] return;
  const uint64_t now_ns = tcp_.now_ns();
  for (DelayedAck* link = unread_.front(); link != nullptr && link->due_ns <= now_ns; link = unread_.front()) send_due(link);
  const uint32_t reader = lock_.holder();
  for (DelayedAck* link = awaited_.front(); link != nullptr;) {
    DelayedAck* const next = awaited_.after(link);
    if (link->reader == reader || link->due_ns <= now_ns) send_due(link);
    link = next;
  }
}

uint64_t DelayedAcks::next_ns() const noexcept {
  if (!due_.empty()) return tcp_.now_ns();
  const uint64_t unread_ns = unread_.empty() ? UINT64_MAX : unread_.front()->due_ns;
  const uint64_t awaited_ns = awaited_.empty() ? UINT64_MAX : awaited_.front()->due_ns;
  return unread_ns < awaited_ns ? unread_ns : awaited_ns;
}

void DelayedAcks::reset() noexcept {
  new (&due_) base::List<DelayedAck>();
  new (&unread_) base::List<DelayedAck>();
  new (&awaited_) base::List<DelayedAck>();
}

// tcp_event_data_recv(): at the start, and when the sender has paused for longer than its RTO, it may have one small segment to send.
bool LwipStream::acknowledges_quickly() noexcept {
  if (interactive_) [[likely]] return false;
  if (tcp_.now_ns() - received_ns_ > kPauseNs) quick_acks_ = kQuickAcks;
  if (quick_acks_ == 0) return false;
  quick_acks_--;
  return true;
}

}  // namespace netstack
