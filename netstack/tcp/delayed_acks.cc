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

DelayedAcks::DelayedAcks(Tcp& tcp) noexcept : tcp_(tcp), frames_are_dear_(tcp.core.tcp_checksum_offload()) {}

// If something is unsent, LwipStream::output() sees to it that the acknowledgement leaves with it.
void DelayedAcks::acknowledge(tcp_pcb* pcb) noexcept {
  if (pcb->errf != nullptr && static_cast<LwipStream*>(pcb->callback_arg)->acknowledges_quickly()) {
    schedule(pcb);
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
  if (!link->linked()) due_.push_back(link);
}

void DelayedAcks::send(tcp_pcb* pcb) noexcept {
  if (pcb->errf == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) return;
  DelayedAck* link = static_cast<LwipStream*>(pcb->callback_arg);
  if (!link->linked() && !tcp_is_flag_set(pcb, TF_ACK_NOW)) return;
  link->unlink();
  (void)tcp_send_empty_ack(pcb);
}

void DelayedAcks::send_all() noexcept {
  while (DelayedAck* link = due_.pop_front()) {
    auto& stream = *static_cast<LwipStream*>(link);
    tcp_pcb* const pcb = stream.pcb();
    if (pcb == nullptr || !tcp_is_flag_set(pcb, TF_ACK_DELAY)) continue;
    tcp_ack_now(pcb);
    if (!static_cast<DirtyLink&>(stream).linked()) tcp_.output.add(stream);
  }
}

void DelayedAcks::reset() noexcept { new (&due_) base::List<DelayedAck>(); }

// tcp_event_data_recv(): at the start, and when the sender has paused for longer than its RTO, it may have one small segment to send.
bool LwipStream::acknowledges_quickly() noexcept {
  if (interactive_) [[likely]] return false;
  if (tcp_.now_ns() - received_ns_ > kPauseNs) quick_acks_ = kQuickAcks;
  if (quick_acks_ == 0) return false;
  quick_acks_--;
  return true;
}

}  // namespace netstack
