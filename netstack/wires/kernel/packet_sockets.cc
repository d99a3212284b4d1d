// Makes, maps and binds the packet sockets of a wire.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/packet_sockets.h"

#include <arpa/inet.h>
#include <cerrno>
#include <initializer_list>
#include <linux/if_ether.h>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/shared_memory.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

// Frames larger than a slot wait in the kernel's memory, not in ours, until they are received; so do those that a device has not sent yet.
constexpr int kQueuedBytes = 8 << 20;
constexpr size_t kThreadStackBytes = 16 << 10;

long set(int fd, int level, int option, int value) noexcept {
  return kernel_call(SYS_setsockopt, fd, level, option, as_arg(&value), sizeof value);
}

// A descriptor out of the program's sight, or a negative errno. A queue of kQueuedBytes is more than everybody may ask for.
int make_socket(int queue_by_right, int queue) noexcept {
  const int fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)));
  if (fd >= 0 && set(fd, SOL_SOCKET, queue_by_right, kQueuedBytes) != 0) (void)set(fd, SOL_SOCKET, queue, kQueuedBytes);
  return fd;
}

int make_sending() noexcept {
  const int fd = make_socket(SO_SNDBUFFORCE, SO_SNDBUF);
  if (fd < 0) return fd;
  (void)bypass_queueing(fd, true);
  const long result = set(fd, SOL_PACKET, PACKET_VNET_HDR, 1);
  if (result == 0) return fd;
  (void)base::close_high_fd(fd);
  return static_cast<int>(result);
}

}  // namespace

long bypass_queueing(int sending, bool bypass) noexcept { return set(sending, SOL_PACKET, PACKET_QDISC_BYPASS, bypass ? 1 : 0); }

PacketFds make_packet_fds() noexcept { return {make_socket(SO_RCVBUFFORCE, SO_RCVBUF), make_sending(), make_bell_fds()}; }

void close_packet_fds(PacketFds fds) noexcept {
  for (const int fd : {fds.receiving, fds.sending}) {
    if (fd >= 0) (void)base::close_high_fd(fd);
  }
  close_bell_fds(fds.bells);
}

PacketSockets::PacketSockets(const PacketFds& fds, uint32_t block_bytes, uint32_t slot_bytes, uint32_t slots) noexcept
    : shape_{block_bytes, slots / (block_bytes / slot_bytes), slot_bytes, slots}, fds_(fds) {
  if (const long error = thread_.start(make_ring, this, kThreadStackBytes); error != 0) ring_result_ = error;
}

PacketSockets::~PacketSockets() {
  thread_.join();
  if (!taken_) close_packet_fds(fds_);
}

void PacketSockets::make_ring(void* self) noexcept {
  auto* sockets = static_cast<PacketSockets*>(self);
  const int fd = sockets->fds_.receiving;
  if (fd < 0) return;
  long result = set(fd, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
  if (result == 0) result = kernel_call(SYS_setsockopt, fd, SOL_PACKET, PACKET_RX_RING, as_arg(&sockets->shape_), sizeof sockets->shape_);
  if (result == 0) result = set(fd, SOL_PACKET, PACKET_COPY_THRESH, 1);
  (void)set(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  sockets->ring_result_ = result;
}

long PacketSockets::bind_both(int interface) const noexcept {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_ifindex = interface;
  const long result = kernel_call(SYS_bind, fds_.sending, as_arg(&address), sizeof address);
  if (result != 0) return result;
  address.sll_protocol = htons(ETH_P_ALL);
  return kernel_call(SYS_bind, fds_.receiving, as_arg(&address), sizeof address);
}

base::Result<bool> PacketSockets::finish(int interface, bool ours) noexcept {
  thread_.join();
  for (const int fd : {fds_.receiving, fds_.sending}) {
    if (fd == -EPERM || fd == -EACCES) {
      return base::make_error("cannot open a packet socket without CAP_NET_RAW: run as root, give the program the capability "
                              "(setpriv --ambient-caps +net_raw), or use ZPS_WIRE=memif:/path");
    }
    if (fd < 0) return base::make_error("cannot make a packet socket: error %d", -fd);
  }
  if (ring_result_ != 0)
    return base::make_error("cannot give a packet socket a ring of %u slots: error %ld", shape_.tp_frame_nr, -ring_result_);
  const size_t bytes = size_t{shape_.tp_block_size} * shape_.tp_block_nr;
  void* const ring = base::map_shared_file(fds_.receiving, bytes);
  if (ring == nullptr) return base::make_error("cannot map the ring of a packet socket: no memory, or no addresses");
  bells_ = map_bells(fds_.bells);
  if (!ours && bells_.exist() && !hang_bells_before(fds_.bells.socket, interface)) bells_ = {};
  if (const long result = bind_both(interface); result != 0) {
    base::unmap_shared_file(ring, bytes);
    return base::make_error("cannot bind a packet socket to a link: error %ld", -result);
  }
  ring_ = static_cast<uint8_t*>(ring);
  taken_ = true;
  return true;
}

}  // namespace netstack
