// The control channel of memif: DPDK's sendmsg() and recvmsg() pass through here, and the two entry points of its start.
#include "netstack/dpdk/memif_peer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <sys/socket.h>

#include "base/syscall.h"
#include "netstack/dpdk/control.h"

using base::as_arg;
using base::kernel_call;
using netstack::Control;
using netstack::MemifPeer;

extern "C" {
int memif_connect_client(rte_eth_dev* device);
int memif_connect_server(rte_eth_dev* device);
void memif_disconnect(rte_eth_dev* device);
}

namespace netstack {
namespace {

// Message types of the protocol, and the offsets of what is read here; everything is little endian and packed.
constexpr uint16_t kAddRegion = 4;
constexpr uint16_t kAddRing = 5;
constexpr uint16_t kFlagToServer = 1;
constexpr size_t kMessageBytes = 128;

template <class T>
T field(const void* message, size_t offset) noexcept {
  T value;
  memcpy(&value, static_cast<const char*>(message) + offset, sizeof value);
  return value;
}

}  // namespace

MemifPeer* MemifPeer::create(base::Arena* arena) noexcept {
  void* memory = arena->allocate(sizeof(MemifPeer));
  return memory == nullptr ? nullptr : new (memory) MemifPeer;
}

void MemifPeer::note(const void* message, size_t bytes, int fd) noexcept {
  if (bytes < kMessageBytes) return;
  const auto type = field<uint16_t>(message, 0);
  if (type == kAddRegion) {
    if (const auto index = field<uint16_t>(message, 2); index < kRegions) region_fd[index] = fd;
  } else if (type == kAddRing && field<uint16_t>(message, 4) == 0 && field<uint16_t>(message, 6) < kRegions) {
    MemifRing& ring = (field<uint16_t>(message, 2) & kFlagToServer) != 0 ? to_server : to_client;
    ring = MemifRing{fd, field<uint16_t>(message, 6), field<uint32_t>(message, 8), field<uint8_t>(message, 12)};
    rings_told++;
    // The driver reads it to take the event away and must not wait there, whoever made it.
    if (fd >= 0) (void)kernel_call(SYS_fcntl, fd, F_SETFL, kernel_call(SYS_fcntl, fd, F_GETFL) | O_NONBLOCK);
  }
}

int MemifPeer::connect() noexcept { return device == nullptr ? -1 : memif_connect_client(device); }

void MemifPeer::disconnect() noexcept {
  if (device != nullptr) memif_disconnect(device);
}

}  // namespace netstack

namespace {

MemifPeer* current_peer() noexcept {
  Control* control = Control::current();
  return control == nullptr ? nullptr : control->memif;
}

// The place of the descriptor in a message's control data, or nullptr.
unsigned char* descriptor_in(msghdr* message) noexcept {
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) return CMSG_DATA(part);
  }
  return nullptr;
}

}  // namespace

extern "C" {

long zps_memif_sendmsg(int socket, msghdr* message, int flags) {
  int fd = -1;
  if (const unsigned char* place = descriptor_in(message); place != nullptr) memcpy(&fd, place, sizeof fd);
  if (MemifPeer* peer = current_peer(); peer != nullptr) peer->note(message->msg_iov->iov_base, message->msg_iov->iov_len, fd);
  const long result = kernel_call(SYS_sendmsg, socket, as_arg(message), flags | MSG_NOSIGNAL);
  if (result < 0) errno = static_cast<int>(-result);
  return result < 0 ? -1 : result;
}

long zps_memif_recvmsg(int socket, msghdr* message, int flags) {
  const long result = kernel_call(SYS_recvmsg, socket, as_arg(message), flags | MSG_CMSG_CLOEXEC);
  if (result < 0) {
    errno = static_cast<int>(-result);
    return -1;
  }
  int fd = -1;
  if (unsigned char* place = descriptor_in(message); place != nullptr) {
    memcpy(&fd, place, sizeof fd);
    fd = Control::current()->adopt_fd(fd);
    memcpy(place, &fd, sizeof fd);
  }
  if (MemifPeer* peer = current_peer(); peer != nullptr) peer->note(message->msg_iov->iov_base, static_cast<size_t>(result), fd);
  return result;
}

// The driver's start. A client without a server is not an error here: the timer tries again.
int zps_memif_connect_client(rte_eth_dev* device) {
  current_peer()->device = device;
  (void)memif_connect_client(device);
  return 0;
}

int zps_memif_connect_server(rte_eth_dev* device) {
  current_peer()->device = device;
  return memif_connect_server(device);
}

}  // extern "C"
