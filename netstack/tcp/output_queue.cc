// Flushing, deferring and trying again.
#include "netstack/tcp/output_queue.h"

#include <new>

#include "netstack/tcp/tcp.h"

namespace netstack {

OutputQueue::OutputQueue(Tcp& tcp) noexcept
    : tcp_(tcp),
      frames_(tcp.core.output),
      early_flush_(tcp.core.facts().memory ? kEarlyFlush : INT32_MAX),
      costs_a_call_(tcp.core.tcp_checksum_offload()) {}

void OutputQueue::flush() noexcept {
  count_ = 0;
  unflushed_bytes_ = 0;
  frames_.begin_flush();
  while (DirtyLink* link = streams_.pop_front()) (void)static_cast<LwipStream*>(link)->output();
  frames_.end_flush();
}

void OutputQueue::defer(LwipStream& stream) noexcept {
  if (!static_cast<DirtyLink&>(stream).linked()) add(stream);
  stream.deferred = true;
}

void OutputQueue::retry() noexcept {
  frames_.set_starved(false);
  for (tcp_pcb* pcb = tcp_.demux().armed().front(); pcb != nullptr && !frames_.starved();) {
    tcp_pcb* const next = PcbList::after(pcb);
    if (pcb->unsent != nullptr || tcp_is_flag_set(pcb, TF_ACK_NOW)) (void)tcp_output(pcb);
    pcb = next;
  }
}

void OutputQueue::reset() noexcept {
  new (&streams_) base::List<DirtyLink>();
  count_ = answers_due_ = closes_after_answer_ = 0;
  answered_ = nullptr;
  unflushed_bytes_ = 0;
}

}  // namespace netstack
