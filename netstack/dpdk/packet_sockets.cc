// Makes packet sockets with rings, and answers the af_packet driver's system calls with them.
#include "netstack/dpdk/packet_sockets.h"

#include <cerrno>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <linux/sockios.h>

#include "base/check.h"
#include "base/high_fd.h"
#include "base/syscall.h"

using base::as_arg;
using base::kernel_call;

namespace {

// Which sending socket belongs to which receiving one; filled while wires are opened, inherited by fork.
struct PairOfSockets {
  int receiving, sending;
};
constexpr int kMostPairs = 64;
PairOfSockets pairs[kMostPairs];
int pair_count = 0;

int last_receiving() noexcept { return pairs[pair_count - 1].receiving; }

int sending_of(int receiving) noexcept {
  for (int i = pair_count; i-- > 0;) {
    if (pairs[i].receiving == receiving) return pairs[i].sending;
  }
  return -1;
}

long to_libc(long result) noexcept {
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace

namespace netstack {

PacketSockets::PacketSockets(uint32_t block_bytes, uint32_t slot_bytes, uint32_t slots) noexcept
    : ring_{block_bytes, slots / (block_bytes / slot_bytes), slot_bytes, slots},
      ends_{{&ring_, PACKET_RX_RING, -EAGAIN, false, {}}, {&ring_, PACKET_TX_RING, -EAGAIN, false, {}}} {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 << 10);
  for (End& end : ends_) end.started = pthread_create(&end.thread, &attributes, make, &end) == 0;
  pthread_attr_destroy(&attributes);
}

PacketSockets::~PacketSockets() {
  join();
  for (const End& end : ends_) {
    if (!taken_ && end.fd >= 0) (void)kernel_call(SYS_close, end.fd);
  }
}

void PacketSockets::join() noexcept {
  for (End& end : ends_) {
    if (end.started) pthread_join(end.thread, nullptr);
    end.started = false;
  }
}

void* PacketSockets::make(void* argument) noexcept {
  auto* end = static_cast<End*>(argument);
  long fd = kernel_call(SYS_socket, AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (fd >= 0) fd = base::move_fd_high(static_cast<int>(fd));
  end->fd = static_cast<int>(fd);
  if (fd < 0) return nullptr;
  const int version = TPACKET_V2, on = 1;
  long result = kernel_call(SYS_setsockopt, fd, SOL_PACKET, PACKET_VERSION, as_arg(&version), sizeof version);
  if (result == 0) result = kernel_call(SYS_setsockopt, fd, SOL_PACKET, PACKET_LOSS, as_arg(&on), sizeof on);
  if (result == 0) result = kernel_call(SYS_setsockopt, fd, SOL_PACKET, end->option, as_arg(end->ring), sizeof *end->ring);
  // A queueing discipline on the way out would only add latency.
  (void)kernel_call(SYS_setsockopt, fd, SOL_PACKET, PACKET_QDISC_BYPASS, as_arg(&on), sizeof on);
  if (result == 0) return nullptr;
  (void)kernel_call(SYS_close, fd);
  end->fd = static_cast<int>(result);
  return nullptr;
}

base::Result<bool> PacketSockets::finish() noexcept {
  join();
  for (const End& end : ends_) {
    if (end.fd == -EPERM || end.fd == -EACCES) {
      return base::make_error("cannot open a packet socket without CAP_NET_RAW: run as root, give the program the capability "
                              "(setpriv --ambient-caps +net_raw), or use ZPS_WIRE=memif:/path");
    }
    if (end.fd < 0) return base::make_error("cannot make a packet socket with a ring of %u slots: error %d", ring_.tp_frame_nr, -end.fd);
  }
  if (pair_count == kMostPairs) return base::make_error("this process has %d packet wires already", kMostPairs);
  taken_ = true;
  pairs[pair_count++] = PairOfSockets{ends_[0].fd, ends_[1].fd};
  return true;
}

}  // namespace netstack

extern "C" {

int zps_dpdk_socket(int domain, int type, int protocol);

// The driver makes two sockets: one to ask for the device's index and address, which needs no packet socket, and the one that
// carries frames, which is there already.
int zps_packet_socket(int domain, int type, int protocol) {
  static bool only_asks = false;
  if (domain != AF_PACKET) return zps_dpdk_socket(domain, type, protocol);
  only_asks = !only_asks;
  return only_asks ? zps_dpdk_socket(AF_INET, SOCK_DGRAM, 0) : last_receiving();
}

// The rings are made, and a fanout group of one socket only costs time.
int zps_packet_setsockopt(int, int, int, const void*, socklen_t) { return 0; }

// The driver wants the sending ring behind the receiving one.
void* zps_packet_mmap(void*, size_t bytes, int protection, int, int fd, long) {
  const long half = static_cast<long>(bytes / 2);
  const long whole = kernel_call(SYS_mmap, 0, static_cast<long>(bytes), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole < 0 && whole > -4096) return reinterpret_cast<void*>(to_libc(whole));
  long result = kernel_call(SYS_mmap, whole, half, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (result == whole) result = kernel_call(SYS_mmap, whole + half, half, protection, MAP_SHARED | MAP_FIXED, sending_of(fd), 0);
  if (result == whole + half) return reinterpret_cast<void*>(whole);
  (void)kernel_call(SYS_munmap, whole, static_cast<long>(bytes));
  return reinterpret_cast<void*>(to_libc(result));
}

int zps_packet_bind(int fd, const sockaddr* address, socklen_t length) {
  sockaddr_ll sending = *reinterpret_cast<const sockaddr_ll*>(address);
  sending.sll_protocol = 0;
  const long result = kernel_call(SYS_bind, sending_of(fd), as_arg(&sending), sizeof sending);
  if (result != 0) return static_cast<int>(to_libc(result));
  return static_cast<int>(to_libc(kernel_call(SYS_bind, fd, as_arg(address), length)));
}

long zps_packet_sendto(int fd, const void*, size_t, int flags, const sockaddr*, socklen_t) {
  return to_libc(kernel_call(SYS_sendto, sending_of(fd), 0, 0, flags, 0, 0));
}

// Its poll() would wait for room in the ring without end; what does not fit now waits in the wire's own queue.
int zps_packet_poll(pollfd* fds, unsigned long count, int) {
  for (unsigned long i = 0; i < count; i++) fds[i].revents = POLLOUT;
  return static_cast<int>(count);
}

// The device keeps its address and flags: they are the opener's business.
int zps_packet_ioctl(int fd, unsigned long command, void* argument) {
  if (command == SIOCSIFHWADDR || command == SIOCSIFFLAGS) return 0;
  return static_cast<int>(to_libc(kernel_call(SYS_ioctl, fd, static_cast<long>(command), as_arg(argument))));
}

}  // extern "C"
