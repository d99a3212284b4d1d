// Realigning the driver's positions with the kernel's.
#include "netstack/dpdk/packet_rings.h"

#include <atomic>
#include <cstring>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <rte_ethdev.h>

#include "base/high_fd.h"

extern "C" long zps_packet_sendto(int fd, const void*, size_t, int flags, const sockaddr*, socklen_t);

namespace netstack {
namespace {

constexpr uint32_t kMostSlots = 65536;

// How both of the driver's queue structures begin.
struct Queue {
  int socket;
  uint32_t unused;
  iovec* slots;
  uint8_t* map;
  uint32_t slot_count;
  uint32_t next;
};

// A driver laid out otherwise is left as it is: its wire may stand still after a death in mid-burst, but nothing is written blindly.
bool is_a_queue(const Queue& queue) noexcept {
  return base::is_high_fd(queue.socket) && queue.slot_count != 0 && queue.slot_count <= kMostSlots && queue.next < queue.slot_count &&
         queue.slots != nullptr && queue.slots[0].iov_base == queue.map;
}

constexpr uint32_t kProbeBytes = 60;
constexpr uint8_t kLocalExperimental[2] = {0x88, 0xb5};  // an EtherType of IEEE 802 that no protocol has
constexpr int kTries = 1000;

tpacket2_hdr& slot_at(const Queue& queue, uint32_t index) noexcept {
  return *static_cast<tpacket2_hdr*>(queue.slots[index % queue.slot_count].iov_base);
}

uint32_t status_of(tpacket2_hdr& slot) noexcept { return std::atomic_ref<uint32_t>(slot.tp_status).load(std::memory_order_acquire); }
void set_status(tpacket2_hdr& slot, uint32_t status) noexcept {
  std::atomic_ref<uint32_t>(slot.tp_status).store(status, std::memory_order_release);
}

void realign_receiving(Queue& queue) noexcept {
  uint64_t oldest = UINT64_MAX, newest = 0;
  uint32_t first_waiting = queue.next, behind_newest = queue.next;
  for (uint32_t i = 0; i < queue.slot_count; i++) {
    tpacket2_hdr& slot = slot_at(queue, i);
    const bool waits = (status_of(slot) & TP_STATUS_USER) != 0;
    const uint64_t stamp = uint64_t{slot.tp_sec} * 1'000'000'000u + slot.tp_nsec;
    if (waits && stamp < oldest) oldest = stamp, first_waiting = i;
    if (stamp > newest) newest = stamp, behind_newest = (i + 1) % queue.slot_count;
  }
  queue.next = oldest != UINT64_MAX ? first_waiting : behind_newest;
}

void kick(const Queue& queue) noexcept { (void)zps_packet_sendto(queue.socket, nullptr, 0, MSG_DONTWAIT, nullptr, 0); }

void fill_with_probe(tpacket2_hdr& slot) noexcept {
  uint8_t* frame = reinterpret_cast<uint8_t*>(&slot) + TPACKET2_HDRLEN - sizeof(sockaddr_ll);
  memset(frame, 0, kProbeBytes);
  frame[0] = frame[6] = 2;  // locally administered addresses of nobody
  memcpy(frame + 12, kLocalExperimental, sizeof kLocalExperimental);
  slot.tp_len = slot.tp_snaplen = kProbeBytes;
  set_status(slot, TP_STATUS_SEND_REQUEST);
}

// Until the kernel has let go of what it is sending, so that nothing but its position decides what it takes.
bool wait_for_room(const Queue& queue, uint32_t first, uint32_t count) noexcept {
  for (int tries = 0; tries < kTries; tries++) {
    uint32_t i = 0;
    while (i < count && status_of(slot_at(queue, first + i)) == TP_STATUS_AVAILABLE) i++;
    if (i == count) return true;
    kick(queue);
  }
  return false;
}

void realign_sending(Queue& queue, uint32_t most_in_doubt) noexcept {
  const uint32_t first = queue.next;
  // One slot at least stays empty, or the kernel would take them all wherever it begins.
  const bool whole_ring = most_in_doubt + 1 >= queue.slot_count;
  const uint32_t count = whole_ring ? queue.slot_count - 1 : most_in_doubt + 1;
  if (!wait_for_room(queue, first, count)) return;
  for (uint32_t i = 0; i < count; i++) fill_with_probe(slot_at(queue, first + i));
  uint32_t left = count;
  for (int tries = 0; tries < kTries && left == count; tries++) {
    kick(queue);
    for (left = 0; left < count && status_of(slot_at(queue, first + left)) == TP_STATUS_SEND_REQUEST;) left++;
  }
  for (uint32_t i = 0; i < left; i++) set_status(slot_at(queue, first + i), TP_STATUS_AVAILABLE);
  if (left < count || whole_ring) queue.next = (first + count) % queue.slot_count;
}

}  // namespace

void realign_packet_rings(uint16_t port, uint32_t most_in_doubt) noexcept {
  const struct rte_eth_fp_ops& operations = rte_eth_fp_ops[port];
  auto* receiving = static_cast<Queue*>(operations.rxq.data[0]);
  auto* sending = static_cast<Queue*>(operations.txq.data[0]);
  if (is_a_queue(*receiving)) realign_receiving(*receiving);
  if (is_a_queue(*sending)) realign_sending(*sending, most_in_doubt);
}

}  // namespace netstack
