// Finding one's place in a packet socket's rings again, after a member died between using slots and noting how many.
//
// The kernel keeps its own position in each ring and tells nobody; the driver keeps its position beside the ring and notes it once per
// burst. If its process is killed in between, kernel and driver look at different slots from then on and neither moves. Both
// positions can be found out again:
//  - receiving: the kernel stamps the slots it fills with the time. What waits begins at the oldest stamp among the slots that wait; if
//    none waits, the kernel goes on behind the newest stamp.
//  - sending: at most one burst is in doubt. All slots in doubt are filled with frames that nobody listens to and the kernel
//    is asked to send: it begins at its own position, so the first slot that it took is where it stands. The others are emptied again.
//
// Sources: Documentation/networking/packet_mmap.rst and net/packet/af_packet.c of Linux; the queue structures of DPDK 22.11's af_packet
// driver, of which the common beginning is declared in packet_rings.cc.
#pragma once

#include <cstdint>

namespace netstack {

// With the stack's lock held. `most_in_doubt`: the largest burst given to the driver.
void realign_packet_rings(uint16_t port, uint32_t most_in_doubt) noexcept;

}  // namespace netstack
