// Whatever can stand in the headers of a packet socket's slots, between our receiving and recovering.
// SPDX-License-Identifier: BSD-3-Clause
#include "input.h"
#include "packet_bed.h"

using namespace packet_bed;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {
  static const bool alone = unshare(CLONE_NEWNET) == 0;
  if (!alone) return 0;
  static Bed bed;
  fuzz::Input input(bytes, count);
  while (!input.empty()) {
    const auto what = input.next<uint8_t>();
    tpacket2_hdr& slot = bed.slot(what % Bed::kSlots);
    if ((what & 0x80) != 0) {
      slot = input.next<tpacket2_hdr>();
    } else {  // one that could be the kernel's
      slot = {};
      slot.tp_len = slot.tp_snaplen = input.next<uint16_t>();
      slot.tp_mac = input.next<uint8_t>();
      slot.tp_status = TP_STATUS_USER | input.next<uint16_t>();
    }
    if ((what & 0x40) != 0) bed.receive();
    if ((what & 0x30) == 0x30) bed.wire->recover();
  }
  bed.receive();
  bed.wire->recover();
  if (bed.wire->free_frames() != bed.wire->total_frames()) abort();
  return 0;
}
