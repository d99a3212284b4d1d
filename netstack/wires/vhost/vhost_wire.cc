// The vhost-user wires: shared memory with a virtual machine, a switch or another program, by virtio's rings.
// SPDX-License-Identifier: BSD-3-Clause
//
// Two roles that have nothing to do with each other. By the rings, one end is the driver, whose memory it is ("virtio-user"; a virtual
// machine is always that), the other the device ("vhost"). By the socket, one end serves at the path and the other connects to it
// (socket_path.h); a client tries again on a timer until somebody serves, and again when that one has gone.
//
// Offloads are what the two ends agree on. The stack leaves TCP's checksums over IPv4 to this wire, always: where the peer takes unfinished
// ones they are left unfinished, else they are filled in here. Longer segments than a frame are sent to who takes them, with the size to
// cut them to, should they go on to a link.
//
// Sleeping, waking, peers that die and members that die: as on a memif (memif_wire.h). docs/decisions/vhost-user.md says why no driver of
// DPDK's stands behind this.
#include "netstack/wires/vhost/vhost_wire.h"

#include <fcntl.h>
#include <rte_mbuf.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "base/high_fd.h"
#include "base/shared_memory.h"
#include "base/syscall.h"
#include "netstack/wires/control.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/segment_train.h"
#include "netstack/wires/socket_path.h"
#include "netstack/wires/vhost/vhost_session.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kDefaultMtu = 1500;
constexpr uint32_t kLeastBufferBytes = 2048;
constexpr uint32_t kEthernetBytes = 14, kIpBytes = 20;
constexpr uint32_t kTcpSumAt = kEthernetBytes + kIpBytes + 16;
constexpr uint16_t kLongSegment = 16320;                // as on the default wire (veth_wire.cc), and for the same reasons
constexpr size_t kDriverRangeBytes = size_t{64} << 30;  // for the memory of a virtual machine
constexpr int kRetryFirstMs = 5;
constexpr int kRetryMostMs = 160;
constexpr int kMostControlTurns = 64;
constexpr int kMostMessages = 64;  // of a peer, before others have a turn
constexpr int kMostParts = 40;     // frames of the pool that the longest frame takes

// The sum of the 16-bit words of `pieces`, as they would lie behind each other (RFC 1071), in the order they have on the wire.
uint32_t sum_of(const Piece* pieces, int count) noexcept {
  uint64_t sum = 0;
  bool odd = false;
  for (const Piece* piece = pieces; piece != pieces + count; piece++) {
    const auto* at = static_cast<const uint8_t*>(piece->data);
    const uint8_t* const end = at + piece->bytes;
    if (odd && at != end) sum += uint32_t{*at++} << 8, odd = false;
    for (uint16_t word; end - at >= 2; at += 2) {
      memcpy(&word, at, sizeof word);
      sum += word;
    }
    if (at != end) sum += *at, odd = true;
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint32_t>(sum);
}

class VhostWire final : public DpdkWire {
 public:
  VhostWire(FramePool* pool, Control* control, const SocketPath& socket, uint32_t frame_bytes, rte_mbuf** queue, uint32_t capacity) noexcept
      : DpdkWire(0, pool, control, -1, queue, capacity), socket_(socket), channel_(control), frame_bytes_(frame_bytes) {
    facts_.memory = true;
    facts_.link_needs_checksum = true;
    facts_.tcp_checksum_offload = true;
  }
  [[nodiscard]] VhostChannel* channel() noexcept { return &channel_; }
  // Once, before anything else.
  base::Result<bool> begin(VhostSession* session) noexcept;

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override {
    if (!connected_) [[unlikely]]
      run_control();
    control_->catch_up();
    if (!connected_) return 0;
    FrameQueues& queues = session_->queues();
    if (armed_) [[unlikely]]
      take_event_away(queues.event_fd());
    const int taken = queues.receive(out, capacity < kBurst ? capacity : kBurst, *pool_);
    // What is left there must wake the sleeper again.
    if (armed_ && taken > 0 && queues.waits()) [[unlikely]]
      wake_by_event(queues.event_fd());
    return taken;
  }

  // What has to wait leaves frames to be received into: what comes may be what makes room.
  [[nodiscard]] bool allocate(TxFrame* out) noexcept override {
    return (backlog() == 0 || pool_->free_count() > pool_->total() / 8 + kMostParts) && DpdkWire::allocate(out);
  }
  void send_tcp(void* handle, uint32_t length) noexcept override {
    static_cast<rte_mbuf*>(handle)->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    send(handle, length);
  }
  void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept override;
  void flush() noexcept override {
    DpdkWire::flush();
    show();
  }
  // Nobody tells when a driver offers empty buffers again.
  [[nodiscard]] bool refused() const noexcept override { return connected_ && backlog() > 0; }
  [[nodiscard]] bool delivered() const noexcept override {
    if (!connected_) return true;
    control_->catch_up();
    const FrameQueues& queues = session_->queues();
    return backlog() == 0 && !queues.unpublished() && queues.taken();
  }

  // Without a peer the next thing to happen is a control event.
  [[nodiscard]] int sleep_fd() noexcept override {
    control_->catch_up();
    return connected_ ? session_->queues().event_fd() : control_->fd();
  }
  void arm() noexcept override {
    control_->catch_up();
    if (!connected_ || armed_) return;
    session_->queues().want_event(true);
    armed_ = true;
  }
  void disarm() noexcept override {
    if (!armed_) return;
    control_->catch_up();
    armed_ = false;
    if (connected_) session_->queues().want_event(false);
  }

  [[nodiscard]] int control_fd() noexcept override { return control_->fd(); }
  void run_control() noexcept override;
  void recover() noexcept override;
  void leave_name() noexcept override {
    Control::Scope scope(control_);
    control_->catch_up();
    if (listener_ >= 0) control_->end_fd(listener_);
    listener_ = -1;
  }

 private:
  [[nodiscard]] bool plugged() const noexcept override { return connected_; }
  [[nodiscard]] uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept override;
  void release_queued(rte_mbuf* frame) noexcept override { release_chain(frame); }
  [[nodiscard]] bool lay(rte_mbuf* first, const Piece* parts, int count) noexcept;
  void show() noexcept;

  [[nodiscard]] base::Result<bool> serve() noexcept;
  void connect() noexcept;
  void begin_session(int socket) noexcept;
  void end_session() noexcept;
  void accept() noexcept;
  void hear() noexcept;
  static void accept_callback(void* wire) { static_cast<VhostWire*>(wire)->accept(); }
  static void hear_callback(void* wire) { static_cast<VhostWire*>(wire)->hear(); }
  void look_at_link(bool tried) noexcept;

  const SocketPath socket_;
  VhostSession* session_ = nullptr;
  VhostChannel channel_;
  const uint32_t frame_bytes_;
  int listener_ = -1;
  uint32_t ups_seen_ = 0;  // of session_->ups()
  bool connected_ = false, armed_ = false;
  int retry_ms_ = kRetryFirstMs, timer_ms_ = 0;
};

// ---------------------------------------------------------------- frames

// `parts` are the whole frame, the first of them in frame `first` of the pool. False if the peer has no room.
bool VhostWire::lay(rte_mbuf* first, const Piece* parts, int count) noexcept {
  virtio::Header header{};
  if ((first->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) != 0) {
    uint32_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].bytes;
    auto* const frame = rte_pktmbuf_mtod(first, uint8_t*);
    SegmentTrain alone;
    alone.begin(frame, length);
    alone.finish(&header.net);
    if (!session_->peer_takes_unfinished()) {
      Piece segment[kMostParts];
      memcpy(segment, parts, static_cast<size_t>(count) * sizeof *parts);
      segment[0] = {frame + kEthernetBytes + kIpBytes, parts[0].bytes - kEthernetBytes - kIpBytes};
      const auto sum = static_cast<uint16_t>(~sum_of(segment, count));
      memcpy(frame + kTcpSumAt, &sum, sizeof sum);
      header = {};
    } else if (length > facts_.mtu + kEthernetBytes) {
      header.net.gso_type = VnetHeader::kTcp4;
      header.net.gso_size = static_cast<uint16_t>(facts_.mtu + kEthernetBytes - alone.header_bytes());
    }
  }
  return session_->queues().lay(header, parts, count);
}

uint16_t VhostWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  if (!connected_) return 0;
  uint16_t sent = 0;
  for (; sent < count; sent++) {
    Piece parts[kMostParts];
    int used = 0;
    for (const rte_mbuf* part = frames[sent]; part != nullptr; part = part->next) {
      parts[used++] = {rte_pktmbuf_mtod(part, const void*), part->data_len};
    }
    if (!lay(frames[sent], parts, used)) break;
    release_chain(frames[sent]);
  }
  return sent;
}

// Copied at once, into the ring or, as a chain, into frames of the pool. Behind what waits already.
void VhostWire::send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
  auto* const first = static_cast<rte_mbuf*>(handle);
  first->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
  first->data_len = static_cast<uint16_t>(length);
  control_->catch_up();
  if (backlog() > 0) DpdkWire::flush();
  if (connected_ && backlog() == 0) {
    Piece parts[1 + kMostPieces] = {{rte_pktmbuf_mtod(first, const void*), length}};
    memcpy(parts + 1, pieces, static_cast<size_t>(count) * sizeof *pieces);
    if (lay(first, parts, 1 + count)) return release(first);
  }
  if (!connected_ || !append_copies(first, pieces, count, frame_bytes_)) return release_chain(first);
  DpdkWire::send(first, first->data_len);
}

void VhostWire::show() noexcept {
  if (!connected_) return;
  FrameQueues& queues = session_->queues();
  if (!queues.unpublished()) return;
  control_->catch_up();
  queues.publish();
  queues.notify();
}

// ---------------------------------------------------------------- peers

base::Result<bool> VhostWire::begin(VhostSession* session) noexcept {
  session_ = session;
  if (!socket_.client) return serve();
  connect();
  return true;
}

base::Result<bool> VhostWire::serve() noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, socket_.path, sizeof socket_.path);
  const long fd = kernel_call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  long error = fd < 0 ? fd : kernel_call(SYS_bind, fd, as_arg(&address), sizeof address);
  if (error >= 0) error = kernel_call(SYS_listen, fd, 4);
  if (error < 0) {
    if (fd >= 0) (void)kernel_call(SYS_close, fd);
    return base::make_error("wire %s: cannot listen at %s: error %ld", socket_.kind, socket_.path, -error);
  }
  listener_ = control_->adopt_fd(static_cast<int>(fd));
  if (listener_ < 0 || control_->add_callback(nullptr, listener_, accept_callback, this) != 0)
    return base::make_error("wire %s: no room for its socket", socket_.kind);
  return true;
}

void VhostWire::connect() noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, socket_.path, sizeof socket_.path);
  const long fd = kernel_call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return;
  if (kernel_call(SYS_connect, fd, as_arg(&address), sizeof address) != 0) return (void)kernel_call(SYS_close, fd);
  begin_session(static_cast<int>(fd));
}

// One peer at a time: who comes meanwhile is turned away, unless the one before has gone.
void VhostWire::accept() noexcept {
  const long fd = kernel_call(SYS_accept4, listener_, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  if (channel_.open()) hear();
  if (channel_.open()) return (void)kernel_call(SYS_close, fd);
  begin_session(static_cast<int>(fd));
}

void VhostWire::begin_session(int socket) noexcept {
  if (channel_.begin(socket, hear_callback, this) && session_->begin()) return;
  end_session();
}

void VhostWire::end_session() noexcept {
  session_->end();
  channel_.end();
}

void VhostWire::hear() noexcept {
  for (int i = 0; i < kMostMessages && channel_.open(); i++) {
    VhostMessage message;
    int fds[VhostMessage::kMostFds], count;
    const VhostChannel::Got got = channel_.receive(&message, fds, &count);
    if (got == VhostChannel::Got::nothing) return;
    if (got == VhostChannel::Got::end || !session_->take(message, fds, count)) return end_session();
  }
}

void VhostWire::run_control() noexcept {
  control_->catch_up();
  bool tried = false;
  for (int turn = 0; turn < kMostControlTurns; turn++) {
    const Control::Ran ran = control_->run();
    if (ran.timer && socket_.client && !channel_.open()) {
      Control::Scope scope(control_);
      connect();
      tried = true;
    }
    if (ran.callbacks == 0) break;
  }
  look_at_link(tried);
  control_->publish();
}

// Whether frames flow, and the client's timer: it runs while there is no channel, slower after each attempt.
void VhostWire::look_at_link(bool tried) noexcept {
  const bool up = session_->up();
  if (up != connected_ || (up && ups_seen_ != session_->ups())) {
    if (connected_) drop_queued(0);
    connected_ = armed_ = false;
    facts_.gso_max_size = up && session_->peer_takes_long() ? kLongSegment : 0;
    facts_.gro_max_size = up && session_->peer_sends_long() ? kLongSegment : 0;
    if (up) facts_.peers++;
    connected_ = up;
    ups_seen_ = session_->ups();
    if (up) push_out();
  }
  if (!socket_.client) return;
  if (up) retry_ms_ = kRetryFirstMs;
  else if (tried && retry_ms_ < kRetryMostMs) retry_ms_ *= 2;
  const int wanted = channel_.open() ? 0 : retry_ms_;
  if (wanted != timer_ms_) control_->set_retry_ms(wanted);
  timer_ms_ = wanted;
}

void VhostWire::recover() noexcept {
  DpdkWire::recover();
  if (control_->torn()) {
    // What the dead member had received from the peer went with it: begin anew, the peer sees the channel close.
    Control::Scope scope(control_);
    end_session();
  } else {
    control_->catch_up();
    if (session_->up()) session_->queues().recover();
  }
  look_at_link(false);
  control_->publish();
}

// ---------------------------------------------------------------- opening

struct Choice {
  SocketPath socket;
  bool trusted = false;
};

base::Result<Choice> parse(const char* kind, bool driver, const char* argument) noexcept {
  constexpr char kAny[] = "memory=any", kSealed[] = "memory=sealed";
  Choice choice{SocketPath(kind, SOCK_STREAM)};
  const char* rest = choice.socket.take_path(argument);
  if (rest == nullptr) return base::make_error("wire %s needs an absolute path of at most 107 bytes: %s:/run/a.sock", kind, kind);
  while (*rest == ',') {
    const char* const text = rest + 1;
    rest = strchrnul(text, ',');
    const auto length = static_cast<size_t>(rest - text);
    const auto is = [&](const char* word) { return strlen(word) == length && memcmp(word, text, length) == 0; };
    if (choice.socket.take_role(text, length)) continue;
    if (driver || (!is(kAny) && !is(kSealed)))
      return base::make_error("wire %s: \"%s\" is none of role=server|client|auto%s", kind, text, driver ? "" : ", memory=sealed|any");
    choice.trusted = is(kAny);
  }
  return choice;
}

void describe(const Opening& opening, const SocketPath& socket, bool driver) noexcept {
  WireAddress& out = *opening.out;
  const uint32_t ours = kDefaultNetwork | 255U << 8 | (driver ? 2 : 1);
  out.address_be = opening.config.address_be != 0 ? opening.config.address_be : swap_to_wire(ours);
  out.prefix = opening.config.prefix != 0 ? opening.config.prefix : 24;
  out.gateway_be = opening.config.gateway_be;
  choose_addresses6(opening, default_network6(255, driver ? 2 : 1));
  const char* const role = socket.client ? "client" : "server";
  memcpy(out.wire, base::make_error("%s %s (%s)", socket.kind, socket.path, role).text, sizeof out.wire - 1);
}

// A file of `bytes` that can be neither shorter nor longer, and its memory.
base::Result<uint8_t*> make_memory(size_t bytes, int* fd) noexcept {
  const auto name = as_arg("zpstack-virtio");
  *fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING)));
  const long sized = *fd < 0 ? *fd : kernel_call(SYS_ftruncate, *fd, static_cast<long>(bytes));
  const bool sealed = sized == 0 && kernel_call(SYS_fcntl, *fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
  auto* const memory = sealed ? static_cast<uint8_t*>(base::map_shared_file(*fd, bytes)) : nullptr;
  if (memory == nullptr) return base::make_error("wire virtio-user: no shared memory of %zu KB for its rings", bytes >> 10);
  return memory;
}

base::Result<VhostSession*> make_driver(const Opening& opening, const char* kind, VhostWire& wire, Control* control,
                                        const VhostOffer& offer, uint32_t frame_bytes) noexcept {
  const uint32_t buffer_bytes = (frame_bytes + static_cast<uint32_t>(sizeof(virtio::Header)) + 63) / 64 * 64;
  int fd = -1;
  auto memory = make_memory(DriverQueues::memory_bytes(buffer_bytes), &fd);
  if (!memory) return memory.error();
  QueueEvents events[2];
  for (QueueEvents& each : events) {
    for (int* event : {&each.kick, &each.call}) {
      *event = base::move_fd_high(static_cast<int>(kernel_call(SYS_eventfd2, 0, EFD_NONBLOCK | EFD_CLOEXEC)));
      if (*event < 0) return base::make_error("wire %s: no descriptors for its events", kind);
    }
  }
  void* const object = opening.arena->allocate(sizeof(VhostDriver));
  if (object == nullptr) return base::make_error("the stack's memory is too small for its wire");
  return new (object) VhostDriver(kind, wire.channel(), control, offer, frame_bytes, *memory, buffer_bytes, fd, events);
}

base::Result<VhostSession*> make_device(const Opening& opening, const char* kind, VhostWire& wire, Control* control,
                                        const VhostOffer& offer, uint32_t frame_bytes) noexcept {
  void* const object = opening.arena->allocate(sizeof(VhostDevice));
  if (object == nullptr) return base::make_error("the stack's memory is too small for its wire");
  return new (object) VhostDevice(kind, wire.channel(), control, offer, frame_bytes);
}

base::Result<Wire*> open(const Opening& opening, const char* kind, bool driver) noexcept {
  auto choice = parse(kind, driver, opening.argument);
  if (!choice) return choice.error();
  if (auto started = start_eal(); !started) return started.error();
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : kDefaultMtu;
  const uint32_t frame_bytes = mtu + 18 < kLeastBufferBytes ? kLeastBufferBytes : (mtu + 18 + 63) / 64 * 64;
  auto pool = make_pool(opening, frame_bytes);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, sizeof(VhostWire), **pool);
  if (!memory) return memory.error();
  auto control = driver ? Control::create(opening.arena) : Control::create(opening.arena, kDriverRangeBytes);
  if (!control) return control.error();

  Control::Scope scope(*control);
  const FolderLock lock(choice->socket.path);
  if (auto settled = choice->socket.settle_role(lock); !settled) return settled.error();
  auto* wire = new (memory->object) VhostWire(*pool, *control, choice->socket, frame_bytes, memory->queue, memory->queue_capacity);
  const VhostOffer offer{opening.config.mtu == 0 && opening.config.vlan == 0, choice->trusted};
  auto session = (driver ? make_driver : make_device)(opening, kind, *wire, *control, offer, frame_bytes);
  if (!session) return session.error();
  WireFacts& facts = wire->mutable_facts();
  memcpy(facts.name, kind, strlen(kind));
  random_mac(facts.mac);
  facts.mtu = static_cast<uint16_t>(mtu);
  if (auto begun = wire->begin(*session); !begun) return begun.error();
  wire->run_control();
  describe(opening, choice->socket, driver);
  return wire;
}

}  // namespace

base::Result<Wire*> open_vhost(const Opening& opening) noexcept { return open(opening, "vhost", false); }
base::Result<Wire*> open_virtio_user(const Opening& opening) noexcept { return open(opening, "virtio-user", true); }

}  // namespace netstack
