// The control channel of memif: DPDK's sendmsg() and recvmsg() pass through here, and the two entry points of its start.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/memif/memif_peer.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <sys/socket.h>

#include "base/log.h"
#include "base/syscall.h"
#include "netstack/wires/control.h"

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
constexpr uint16_t kHello = 2, kInit = 3, kAddRegion = 4, kAddRing = 5, kConnect = 6, kConnected = 7, kDisconnect = 8;
constexpr uint16_t kFlagToServer = 1;
constexpr size_t kMessageBytes = 128;
constexpr size_t kRingHeadBytes = 128, kDescriptorBytes = 16;
constexpr uint8_t kMostLog2 = 14;
// In HELLO: the highest numbers of rings that a client may add.
constexpr size_t kMostRingsAt = 40, kMostRingsBytes = 4;
constexpr char kTakes[] = "zpstack takes ";
constexpr size_t kNameBytes = 32;

// Where the sender's name is, in a message that has one; else 0.
size_t name_at(uint16_t type) noexcept { return type == kHello ? 2 : type == kInit ? 33 : 0; }

// By type: who may receive it, and where its text has to end.
struct Kind {
  bool by_client, by_server;
  size_t text_end;
};
constexpr Kind kKinds[] = {{},
                           {true, true, 0},
                           {true, false, 33},
                           {false, true, 64},
                           {false, true, 0},
                           {false, true, 0},
                           {false, true, 33},
                           {true, false, 33},
                           {true, true, 101}};
static_assert(sizeof kKinds / sizeof *kKinds == kDisconnect + 1);

template <class T>
T field(const void* message, size_t offset) noexcept {
  T value;
  memcpy(&value, static_cast<const char*>(message) + offset, sizeof value);
  return value;
}

MemifRing ring_in(const void* message, int fd) noexcept {
  return {fd, field<uint16_t>(message, 6), field<uint32_t>(message, 8), field<uint8_t>(message, 12)};
}

}  // namespace

MemifPeer* MemifPeer::create(base::Arena* arena) noexcept {
  void* memory = arena->allocate(sizeof(MemifPeer));
  return memory == nullptr ? nullptr : new (memory) MemifPeer;
}

MemifRing& MemifPeer::ring_of(const void* message) noexcept {
  return (field<uint16_t>(message, 2) & kFlagToServer) != 0 ? to_server : to_client;
}

void MemifPeer::begin(int socket) noexcept {
  channel_ = socket;
  for (int& fd : region_fd) fd = -1;
  to_client = to_server = {};
  is_ours = false;
  takes = 0;
  regions_ = 0;
  greeted_ = connected_ = false;
}

void MemifPeer::introduce(void* message, size_t bytes) const noexcept {
  if (bytes != kMessageBytes) return;
  const auto type = field<uint16_t>(message, 0);
  if (type == kHello) memset(static_cast<char*>(message) + kMostRingsAt, 0, kMostRingsBytes);
  const size_t at = name_at(type);
  if (at == 0 || !named) return;
  char name[kNameBytes] = {};
  (void)snprintf(name, sizeof name, "%s%u", kTakes, offers);
  memcpy(static_cast<char*>(message) + at, name, sizeof name);
}

void MemifPeer::read_introduction(const void* message) noexcept {
  const size_t at = name_at(field<uint16_t>(message, 0));
  const char* const name = static_cast<const char*>(message) + at;
  if (at == 0 || strncmp(name, kTakes, sizeof kTakes - 1) != 0) return;
  is_ours = true;
  takes = static_cast<uint32_t>(strtoul(name + sizeof kTakes - 1, nullptr, 10));
}

void MemifPeer::note_sent(const void* message, size_t bytes, int fd) noexcept {
  if (bytes == kMessageBytes && fd >= 0) take_fd(message, fd);
}

bool MemifPeer::lies_in_region(const MemifRing& ring) const noexcept {
  if (ring.region >= regions_ || ring.log2_slots > kMostLog2 || ring.offset % 64 != 0) return false;
  const uint64_t room = region_bytes_[ring.region], bytes = kRingHeadBytes + (kDescriptorBytes << ring.log2_slots);
  return bytes <= room && ring.offset <= room - bytes;
}

bool MemifPeer::belongs_here(uint16_t type, const void* message, bool has_fd) noexcept {
  switch (type) {
    case kAddRegion:
      return has_fd && !connected_ && regions_ < kRegions && field<uint16_t>(message, 2) == regions_;
    case kAddRing:
      return has_fd && !connected_ && ring_of(message).fd < 0 && field<uint16_t>(message, 4) == 0 && lies_in_region(ring_in(message, -1));
    case kConnect:
    case kConnected:
      return !connected_ && to_client.fd >= 0 && to_server.fd >= 0;
    case kHello:
      return !greeted_;
    default:
      return true;
  }
}

void MemifPeer::complain(const char* what) noexcept {
  if (!complained_) base::log(base::LogLevel::warn, "wire memif: no connection: %s", what);
  complained_ = true;
}

void MemifPeer::closing(int fd, Control& control) noexcept {
  const bool ends = fd == channel_;
  if (ends) channel_ = -1;
  for (int& region : region_fd) {
    if (region == fd) region = -1;
    if (!ends || region < 0 || control.region_of(region) != nullptr) continue;
    (void)control.drop_fd(region);
    region = -1;
  }
}

bool MemifPeer::accept(int socket, void* message, size_t bytes, bool has_fd, bool* wants_fd) noexcept {
  *wants_fd = false;
  if (bytes != kMessageBytes) return true;  // the driver refuses it
  const auto type = field<uint16_t>(message, 0);
  if (type > kDisconnect) return true;  // likewise
  const Kind& kind = kKinds[type];
  if (kind.text_end != 0) static_cast<char*>(message)[kind.text_end] = '\0';
  if (channel_ < 0 && type == (client ? kHello : kInit)) begin(socket);
  if (socket != channel_) return type == kInit || !client;  // the driver refuses what comes before INIT, and a second INIT
  if (!(client ? kind.by_client : kind.by_server) || !belongs_here(type, message, has_fd)) {
    complain("the peer's handshake makes no sense");
    return false;
  }
  *wants_fd = type == kAddRegion || type == kAddRing;
  read_introduction(message);
  greeted_ = greeted_ || type == kHello;
  connected_ = connected_ || type == kConnect || type == kConnected;
  return true;
}

bool MemifPeer::is_usable(const void* message, int fd) noexcept { return field<uint16_t>(message, 0) != kAddRing || is_event(fd); }

void MemifPeer::take_fd(const void* message, int fd) noexcept {
  const auto type = field<uint16_t>(message, 0);
  if (type == kAddRegion && regions_ < kRegions && field<uint16_t>(message, 2) == regions_) {
    region_bytes_[regions_] = field<uint64_t>(message, 4);
    region_fd[regions_++] = fd;
  } else if (type == kAddRing) {
    ring_of(message) = ring_in(message, fd);
    rings_told++;
    // The driver reads it to take the event away and must not wait there, whoever made it.
    (void)kernel_call(SYS_fcntl, fd, F_SETFL, kernel_call(SYS_fcntl, fd, F_GETFL) | O_NONBLOCK);
  }
}

int MemifPeer::connect() noexcept { return device == nullptr ? -1 : memif_connect_client(device); }

void MemifPeer::disconnect() noexcept {
  if (device != nullptr) memif_disconnect(device);
  channel_ = -1;
}

}  // namespace netstack

namespace {

MemifPeer* current_peer() noexcept {
  Control* control = Control::current();
  return control == nullptr ? nullptr : control->memif;
}

// The message's part that carries descriptors, or nullptr.
cmsghdr* descriptors_in(msghdr* message) noexcept {
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part != nullptr; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) return part;
  }
  return nullptr;
}

int descriptor(const cmsghdr* part, size_t index) noexcept {
  int fd;
  memcpy(&fd, CMSG_DATA(part) + index * sizeof fd, sizeof fd);
  return fd;
}

}  // namespace

extern "C" {

long zps_memif_sendmsg(int socket, msghdr* message, int flags) {
  const cmsghdr* part = descriptors_in(message);
  if (MemifPeer* peer = current_peer(); peer != nullptr) {
    peer->introduce(message->msg_iov->iov_base, message->msg_iov->iov_len);
    if (part != nullptr) peer->note_sent(message->msg_iov->iov_base, message->msg_iov->iov_len, descriptor(part, 0));
  }
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
  void* const text = message->msg_iov->iov_base;
  cmsghdr* part = descriptors_in(message);
  const size_t count = part == nullptr ? 0 : (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  bool wants_fd = false;
  MemifPeer* peer = current_peer();
  bool accepted = peer == nullptr || peer->accept(socket, text, static_cast<size_t>(result), count > 0, &wants_fd);
  if (wants_fd && !MemifPeer::is_usable(text, descriptor(part, 0))) accepted = wants_fd = false;
  for (size_t i = wants_fd ? 1 : 0; i < count; i++) (void)kernel_call(SYS_close, descriptor(part, i));
  int fd = -1;
  if (wants_fd) {
    fd = Control::current()->adopt_fd(descriptor(part, 0));
    accepted = fd >= 0;
    if (accepted) peer->take_fd(text, fd);
  }
  if (count > 0) memcpy(CMSG_DATA(part), &fd, sizeof fd);
  if (accepted) return result;
  errno = EPROTO;
  return -1;
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
