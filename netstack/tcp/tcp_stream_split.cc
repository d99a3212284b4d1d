// Segments that have become too long since they were made: for the path, or for the window.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

bool LwipStream::holds_longer_than(uint32_t payload) const noexcept {
  for (const tcp_seg* queue : {pcb_->unacked, pcb_->unsent}) {
    for (const tcp_seg* segment = queue; segment != nullptr; segment = segment->next) {
      if (segment->len > payload) return true;
    }
  }
  return false;
}

// lwIP splits the first segment of the queue; here each takes its turn as that. One that there is no memory for stays as it is: the router
// will say it again.
void LwipStream::split_unsent(uint32_t payload) noexcept {
  tcp_seg* const first = pcb_->unsent;
  for (tcp_seg* segment = first; segment != nullptr; segment = segment->next) {
    if (segment->len <= payload) continue;
    pcb_->unsent = segment;
    if (tcp_split_unsent_seg(pcb_, static_cast<u16_t>(payload)) != ERR_OK) break;
    TCPH_UNSET_FLAG(segment->tcphdr, TCP_FIN | TCP_PSH);  // the rest has them
  }
  pcb_->unsent = first;
}

// A segment was made when the window was larger: it is sent as far as the window goes, tcp_mss_split_point() of Linux, once that is not
// silly (RFC 9293, 3.8.6.2.1). lwIP would wait for its persist timer, once for each such piece.
void LwipStream::split_at_window() noexcept {
  tcp_seg* const first = pcb_->unsent;
  if (first == nullptr || pcb_->unacked != nullptr) return;
  const uint32_t room = pcb_->lastack + pcb_->snd_wnd - lwip_ntohl(first->tcphdr->seqno);  // more than the window: a part is acknowledged
  if (TCP_SEQ_GEQ(room, first->len) || TCP_SEQ_LEQ(room, 0)) [[likely]] return;
  const uint32_t full = tcp_.full_payload(*pcb_), half = pcb_->snd_wnd_max / 2;
  const auto most = static_cast<u16_t>(room < pcb_->mss ? room : pcb_->mss);
  if (pcb_->snd_wnd < (full < half ? full : half) || tcp_split_unsent_seg(pcb_, most) != ERR_OK) return;
  TCPH_UNSET_FLAG(first->tcphdr, TCP_FIN | TCP_PSH);  // the rest has them
}

}  // namespace netstack
