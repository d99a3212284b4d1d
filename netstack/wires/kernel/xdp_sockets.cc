// Makes, maps and binds the sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/xdp_sockets.h"

#include <cerrno>
#include <cstring>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint16_t kScatters = 1 << 4;  // XDP_USE_SG of Linux 6.6
constexpr int kQueuedBytes = 8 << 20;   // that a device has not sent yet
// After a kill the kernel gives a queue back some 200 ms later, when nobody reads its rings any more.
constexpr uint64_t kMostBusyNs = 3'000'000'000;
constexpr long kBusyPauseNs = 20'000'000;

long set(int fd, int option, const void* value, size_t bytes) noexcept {
  return kernel_call(SYS_setsockopt, fd, SOL_XDP, option, as_arg(value), static_cast<long>(bytes));
}

long set_size(int fd, int option, uint32_t size) noexcept { return set(fd, option, &size, sizeof size); }

// A ring in memory that fork() hands on.
template <class Entry>
long map_ring(int fd, const xdp_ring_offset& at, long page_offset, uint32_t size, XdpRing<Entry>* out) noexcept {
  const size_t bytes = at.desc + size * sizeof(Entry);
  const long mapped =
      kernel_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, page_offset);
  if (mapped < 0 && mapped > -4096) return mapped;
  auto* const base = reinterpret_cast<char*>(mapped);
  const auto word = [base](uint64_t offset) { return reinterpret_cast<uint32_t*>(base + offset); };
  *out = XdpRing<Entry>({word(at.producer), word(at.consumer), word(at.flags), base + at.desc, size});
  return 0;
}

long make_rings(XdpQueue& queue, uint32_t receive_size, uint32_t send_size) noexcept {
  const int fd = queue.fd;
  const uint32_t completion_size = send_size != 0 ? send_size : 1;
  long result = set_size(fd, XDP_UMEM_FILL_RING, receive_size);
  if (result == 0) result = set_size(fd, XDP_UMEM_COMPLETION_RING, completion_size);
  if (result == 0) result = set_size(fd, XDP_RX_RING, receive_size);
  if (result == 0 && send_size != 0) result = set_size(fd, XDP_TX_RING, send_size);
  xdp_mmap_offsets offsets{};
  socklen_t bytes = sizeof offsets;
  if (result == 0) result = kernel_call(SYS_getsockopt, fd, SOL_XDP, XDP_MMAP_OFFSETS, as_arg(&offsets), as_arg(&bytes));
  if (result == 0 && bytes != sizeof offsets) result = -EOPNOTSUPP;
  if (result == 0) result = map_ring(fd, offsets.fr, XDP_UMEM_PGOFF_FILL_RING, receive_size, &queue.fill);
  if (result == 0) result = map_ring(fd, offsets.cr, XDP_UMEM_PGOFF_COMPLETION_RING, completion_size, &queue.completion);
  if (result == 0) result = map_ring(fd, offsets.rx, XDP_PGOFF_RX_RING, receive_size, &queue.receive);
  if (result == 0 && send_size != 0) result = map_ring(fd, offsets.tx, XDP_PGOFF_TX_RING, send_size, &queue.send);
  return result;
}

long try_bind(const SharedInterface& device, const XdpSockets& sockets, int number, uint16_t flags) noexcept {
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = static_cast<uint32_t>(device.index);
  address.sxdp_queue_id = static_cast<uint32_t>(number);
  address.sxdp_flags = number == 0 ? flags : XDP_SHARED_UMEM;  // the others are bound as the first is
  if (number != 0) address.sxdp_shared_umem_fd = static_cast<uint32_t>(sockets.queue[0].fd);
  return kernel_call(SYS_bind, sockets.queue[number].fd, as_arg(&address), sizeof address);
}

long bind_queue(const SharedInterface& device, const XdpSockets& sockets, int number, uint16_t flags) noexcept {
  const uint64_t until_ns = base::monotonic_ns() + kMostBusyNs;
  while (true) {
    const long result = try_bind(device, sockets, number, flags);
    if (result != -EBUSY || base::monotonic_ns() > until_ns) return result;
    const timespec pause{0, kBusyPauseNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&pause), 0);
  }
}

// The first queue: what it can the others can.
long bind_first(const SharedInterface& device, bool zero_copy, XdpSockets* sockets) noexcept {
  constexpr uint16_t kAlways = XDP_USE_NEED_WAKEUP;
  long result = -EOPNOTSUPP;
  if (zero_copy) {
    result = bind_queue(device, *sockets, 0, kAlways | XDP_ZEROCOPY);
    sockets->zero_copy = result == 0;
    if (result == 0 || result == -EBUSY) return result;
  }
  result = bind_queue(device, *sockets, 0, kAlways | XDP_COPY | kScatters);
  sockets->scatters = result == 0;
  return result == 0 || result == -EBUSY ? result : bind_queue(device, *sockets, 0, kAlways | XDP_COPY);
}

}  // namespace

base::Error xdp_name(int interface) noexcept { return base::make_error("xdp%d", interface); }
base::Error xdp_next_name(int interface) noexcept { return base::make_error("xdp%d-next", interface); }

int receive_queues(const char* name) noexcept {
  const long fd = kernel_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return 1;
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request{};
  memcpy(request.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
  request.ifr_data = reinterpret_cast<char*>(&channels);
  const long result = kernel_call(SYS_ioctl, fd, SIOCETHTOOL, as_arg(&request));
  (void)kernel_call(SYS_close, fd);
  const auto queues = static_cast<int>(channels.rx_count + channels.combined_count);
  return result == 0 && queues > 0 ? queues : 1;
}

base::Result<bool> make_xdp_sockets(const SharedInterface& device, const XdpMemory& memory, uint32_t receive_size, uint32_t send_size,
                                    XdpSockets* out) noexcept {
  for (int i = 0; i < out->count; i++) {
    XdpQueue& queue = out->queue[i];
    queue.fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_socket, AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0)));
    if (queue.fd < 0) return refused(device, "make a socket of AF_XDP", queue.fd);
    if (i == 0) {
      const xdp_umem_reg region{reinterpret_cast<uint64_t>(memory.frames), memory.bytes, memory.chunk_bytes, kXdpHeadroom, 0};
      const long result = set(queue.fd, XDP_UMEM_REG, &region, sizeof region);
      if (result == -ENOBUFS || result == -ENOMEM) {
        return base::make_error("wire %s:%s: %llu KB of frames cannot be locked in memory: raise `ulimit -l`, or lower ZPS_FRAMES",
                                device.kind, device.name, static_cast<unsigned long long>(memory.bytes >> 10));
      }
      if (result != 0) return refused(device, "register its frames", result);
      (void)kernel_call(SYS_setsockopt, queue.fd, SOL_SOCKET, SO_SNDBUFFORCE, as_arg(&kQueuedBytes), sizeof kQueuedBytes);
    }
    if (const long result = make_rings(queue, receive_size, i == 0 ? send_size : 0); result != 0)
      return refused(device, "make the rings of AF_XDP", result);
  }
  return true;
}

base::Result<bool> bind_xdp_sockets(const SharedInterface& device, bool zero_copy, XdpSockets* sockets) noexcept {
  for (int i = 0; i < sockets->count; i++) {
    const long result = i == 0 ? bind_first(device, zero_copy, sockets) : bind_queue(device, *sockets, i, 0);
    if (result == -EBUSY)
      return base::make_error("wire %s:%s: another program has a socket of AF_XDP at queue %d", device.kind, device.name, i);
    if (result != 0) return refused(device, "bind a socket of AF_XDP to a queue", result);
  }
  return true;
}

void close_xdp_sockets(XdpSockets* sockets) noexcept {
  for (int i = 0; i < sockets->count; i++) {
    if (sockets->queue[i].fd >= 0) (void)base::close_high_fd(sockets->queue[i].fd);
    sockets->queue[i].fd = -1;
  }
}

}  // namespace netstack
