// The wire over a PCI device of our own: DPDK's driver of it drives the queues, this drives the driver.
// SPDX-License-Identifier: BSD-3-Clause
//
//  - Memory. The device reaches what is made known to its IOMMU: EAL's memory and the frames. Both are shared by the family and stay where
//    they are, and so do the device's registers (a shared mapping of vfio's) and its group, as long as one member lives. So any of them
//    drives the queues, and the kernel resets the device when the last one is gone, however it went.
//    Frames do not lie across pages if they fit into one: QEMU's e1000e and vmxnet3 lose those whose pages are no neighbours in memory.
//  - Sleeping. Where the driver has receive interrupts, one is an event descriptor that the kernel writes to. It is asked for by arm(), and
//    whoever takes the event away while others sleep asks again before looking at the queue. Where there are none, a timer ends the sleep.
//  - Link. A timer looks at it: some drivers (vmxnet3) say that they tell of a change and do not. While it is down what is sent is dropped
//    but for the last few frames; connections live on by their retransmissions.
//  - Checksums are the device's if it can. Consecutive segments of a connection leave as one frame that the device cuts, if it can.
//  - VLAN. The device takes tags away and puts them in if its driver does both, else software does (vlan_wire.h). A filter of its own lets
//    the VLAN in; what comes of others all the same is dropped here.
//  - Death. A member that dies in the middle of a burst leaves the driver's rings as they were at some instruction, and the device goes on
//    writing into frames. The next owner of the lock stops the device, takes all frames back and starts it again.
#include "netstack/wires/device/device_wire.h"

#include <cstring>
#include <new>
#include <sys/timerfd.h>

#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_vfio.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "netstack/vlan_tag.h"
#include "netstack/wires/control.h"
#include "netstack/wires/device/drivers.h"
#include "netstack/wires/device/pci_function.h"
#include "netstack/wires/device/segment_chain.h"
#include "netstack/wires/eal.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kDefaultMtu = 1500;
constexpr uint32_t kEthernetBytes = 18;  // with the tag of a VLAN
constexpr uint32_t kLeastBufferBytes = 2048;
constexpr uint32_t kHeadBytes = 512;  // in front of a frame's data
constexpr uint16_t kDescriptors = 512;
constexpr int kMostRxPieces = 2;  // a driver may round the size of buffers down
constexpr uint64_t kFramesIova = uint64_t{0x50} << 32;  // behind EAL's memory, below 2^39
constexpr long kPollNs = 500'000;
constexpr int kLookAtLinkMs = 500;
constexpr uint64_t kLeavesNs = 5'000'000;  // what was handed over has left by then

// What the device and its driver can do, of what is of use here.
struct Abilities {
  bool interrupts, checksums, ip_checksum, segments, tags;
  uint16_t most_pieces;  // of a frame to send
};

// How the port is set up.
struct Setup {
  Abilities abilities;
  rte_eth_conf config;
  rte_eth_rxconf receive_queue;
  rte_eth_txconf queue;
  bool keeps_frames;  // the driver does not give up over a stop what is in its rings
  uint16_t vlan;      // 0: none
};

// One queue each way; 0 or a negative errno.
int set_up(uint16_t port, const Setup& setup, const FramePool& pool) noexcept {
  uint16_t rx_depth = kDescriptors, tx_depth = kDescriptors;
  int error = rte_eth_dev_configure(port, 1, 1, &setup.config);
  if (error == 0) error = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx_depth, &tx_depth);
  if (error == 0) error = rte_eth_rx_queue_setup(port, 0, rx_depth, 0, &setup.receive_queue, pool.mempool());
  if (error == 0) error = rte_eth_tx_queue_setup(port, 0, tx_depth, 0, &setup.queue);
  return error;
}

// 0 or a negative errno.
int start(uint16_t port, const Setup& setup) noexcept {
  int error = rte_eth_dev_start(port);
  if (error == 0 && (setup.config.rxmode.offloads & RTE_ETH_RX_OFFLOAD_VLAN_FILTER) != 0)
    error = rte_eth_dev_vlan_filter(port, setup.vlan, 1);
  return error;
}

class DeviceWire final : public DpdkWire {
 public:
  DeviceWire(uint16_t port, FramePool* pool, Control* control, int sleep_fd, const Setup& setup, const WireMemory& memory) noexcept
      : DpdkWire(port, pool, control, sleep_fd, memory.queue, memory.queue_capacity),
        setup_(setup),
        abilities_(setup_.abilities),
        event_fd_(sleep_fd) {}

  [[nodiscard]] int receive(RxFrame* out, int capacity) noexcept override;
  void send_tcp(void* handle, uint32_t length) noexcept override {
    static_cast<rte_mbuf*>(handle)->ol_flags |= RTE_MBUF_F_TX_TCP_CKSUM;
    send(handle, length);
  }
  void send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept override;

  void arm() noexcept override;
  void disarm() noexcept override;

  [[nodiscard]] bool delivered() const noexcept override {
    return backlog() == 0 && (!link_up_ || base::monotonic_ns() - pushed_ns_ > kLeavesNs);
  }
  [[nodiscard]] bool refused() const noexcept override { return link_up_ && backlog() > 0; }

  [[nodiscard]] uint64_t foreign_frames() const noexcept override { return foreign_; }

  [[nodiscard]] int control_fd() noexcept override { return control_->fd(); }
  void run_control() noexcept override;
  void recover() noexcept override;

  void look_at_link(bool tell) noexcept;
  [[nodiscard]] bool link_up() const noexcept { return link_up_; }

 private:
  [[nodiscard]] bool plugged() const noexcept override { return link_up_; }
  [[nodiscard]] uint16_t give_burst(rte_mbuf** frames, uint16_t count) noexcept override;
  [[nodiscard]] bool is_ours(const rte_mbuf& frame) const noexcept {
    if (!abilities_.tags) [[likely]] return true;
    return (frame.ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0 && (frame.vlan_tci & vlan_tag::kNumber) == setup_.vlan;
  }
  void ask_for_event() noexcept;
  void take_event_away() noexcept;

  const Setup setup_;
  const Abilities& abilities_;
  const int event_fd_;
  uint64_t pushed_ns_ = 0;
  uint64_t foreign_ = 0;  // frames of other VLANs
  bool link_up_ = false;
  bool armed_ = false;
};

// ---------------------------------------------------------------- receiving

int DeviceWire::receive(RxFrame* out, int capacity) noexcept {
  if (armed_) [[unlikely]] {
    take_event_away();
    ask_for_event();
  }
  rte_mbuf* frames[kBurst];
  const int wanted = (capacity < kBurst ? capacity : kBurst) / kMostRxPieces;
  const int count = rte_eth_rx_burst(port_, 0, frames, static_cast<uint16_t>(wanted));
  int taken = 0;
  for (int i = 0; i < count; i++) {
    rte_mbuf* piece = frames[i];
    if (piece->nb_segs > kMostRxPieces) [[unlikely]] {
      rte_pktmbuf_free(piece);
      continue;
    }
    if (!is_ours(*piece)) [[unlikely]] {
      rte_pktmbuf_free(piece);
      foreign_++;
      continue;
    }
    // The device has found it right, or it comes from a program of this machine and has none yet.
    const bool verified = (piece->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_GOOD) != 0;
    bool continues = false;
    while (piece != nullptr) {
      rte_mbuf* const next = piece->next;
      piece->next = nullptr;
      piece->nb_segs = 1;
      out[taken++] = RxFrame{rte_pktmbuf_mtod(piece, uint8_t*), piece->data_len, piece, rte_mbuf_to_priv(piece), verified, continues};
      continues = true;
      piece = next;
    }
  }
  // What may be left there must wake the sleeper again.
  if (armed_ && count == wanted && abilities_.interrupts) [[unlikely]] {
    const uint64_t one = 1;
    (void)kernel_call(SYS_write, event_fd_, as_arg(&one), sizeof one);
  }
  return taken;
}

void DeviceWire::ask_for_event() noexcept {
  if (abilities_.interrupts) (void)rte_eth_dev_rx_intr_enable(port_, 0);
}

void DeviceWire::take_event_away() noexcept {
  uint64_t count;
  (void)kernel_call(SYS_read, event_fd_, as_arg(&count), sizeof count);
}

void DeviceWire::arm() noexcept {
  if (armed_) return;
  armed_ = true;
  if (abilities_.interrupts) return ask_for_event();
  const itimerspec times{{0, kPollNs}, {0, kPollNs}};
  (void)kernel_call(SYS_timerfd_settime, event_fd_, 0, as_arg(&times), 0);
}

void DeviceWire::disarm() noexcept {
  if (!armed_) return;
  armed_ = false;
  if (abilities_.interrupts) {
    (void)rte_eth_dev_rx_intr_disable(port_, 0);
  } else {
    const itimerspec times{};
    (void)kernel_call(SYS_timerfd_settime, event_fd_, 0, as_arg(&times), 0);
  }
  take_event_away();
}

// ---------------------------------------------------------------- sending

// The pieces fit the frame: the wire knows no segment that is longer than one.
void DeviceWire::send_tcp_with(void* handle, uint32_t length, const Piece* pieces, int count) noexcept {
  auto* const to = rte_pktmbuf_mtod(static_cast<rte_mbuf*>(handle), uint8_t*);
  for (int i = 0; i < count; i++) {
    memcpy(to + length, pieces[i].data, pieces[i].bytes);
    length += pieces[i].bytes;
  }
  send_tcp(handle, length);
}

uint16_t DeviceWire::give_burst(rte_mbuf** frames, uint16_t count) noexcept {
  if (!link_up_) return 0;
  SegmentChain chains[kBurst];
  rte_mbuf* heads[kBurst];
  uint16_t made = 0;
  for (uint16_t i = 0; i < count; i = static_cast<uint16_t>(i + chains[made++].frames())) {
    chains[made].make(frames + i, static_cast<uint16_t>(count - i), abilities_.segments ? abilities_.most_pieces : uint16_t{1});
    chains[made].finish(abilities_.ip_checksum);
    heads[made] = frames[i];
    if (abilities_.tags) {
      heads[made]->ol_flags |= RTE_MBUF_F_TX_VLAN;
      heads[made]->vlan_tci = setup_.vlan;
    }
  }
  uint16_t done = rte_eth_tx_burst(port_, 0, heads, rte_eth_tx_prepare(port_, 0, heads, made));
  uint16_t gone = 0;
  for (uint16_t i = 0; i < done; i++) gone = static_cast<uint16_t>(gone + chains[i].frames());
  uint16_t at = gone;
  for (uint16_t i = done; i < made; i++) {
    // A driver that tags by software (virtio's) has done so before it looks for room.
    if (abilities_.tags && (heads[i]->ol_flags & RTE_MBUF_F_TX_VLAN) == 0) (void)rte_vlan_strip(heads[i]);
    chains[i].undo(frames + at);
    at = static_cast<uint16_t>(at + chains[i].frames());
  }
  if (done > 0) pushed_ns_ = base::monotonic_ns();
  return gone;
}

// ---------------------------------------------------------------- control

void DeviceWire::run_control() noexcept {
  (void)control_->run();
  look_at_link(true);
}

void DeviceWire::look_at_link(bool tell) noexcept {
  rte_eth_link link{};
  if (rte_eth_link_get_nowait(port_, &link) != 0) return;
  const bool up = link.link_status == RTE_ETH_LINK_UP;
  if (up == link_up_) return;
  link_up_ = up;
  if (tell) base::log(base::LogLevel::warn, "wire device: its link is %s", up ? "up" : "down");
  if (up) push_out();
}

void DeviceWire::recover() noexcept {
  pool_->set_deaf(true);
  Control::Scope scope(control_);
  int error = rte_eth_dev_stop(port_);
  if (error == 0 && setup_.keeps_frames) error = set_up(port_, setup_, *pool_);
  forget_all_frames_but([](const void*) { return false; });
  pool_->set_deaf(false);
  armed_ = link_up_ = false;
  if (error != 0 || start(port_, setup_) != 0) base::log(base::LogLevel::error, "wire device: the device does not start again");
  look_at_link(false);
}

// ---------------------------------------------------------------- opening

void choose_tags(const rte_eth_dev_info& info, Setup& setup) noexcept {
  setup.config.rxmode.offloads |= info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_FILTER;
  if ((info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_VLAN_STRIP) == 0 || (info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_VLAN_INSERT) == 0) return;
  setup.abilities.tags = true;
  setup.config.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
  setup.config.txmode.offloads |= RTE_ETH_TX_OFFLOAD_VLAN_INSERT;
}

// What the device offers.
Setup choose_setup(const rte_eth_dev_info& info, uint32_t mtu, uint16_t vlan) noexcept {
  Setup setup{};
  setup.vlan = vlan;
  setup.config.rxmode.mtu = mtu;
  setup.config.rxmode.offloads = info.rx_offload_capa & (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |
                                                         RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_SCATTER);
  const uint64_t tx = info.tx_offload_capa & (RTE_ETH_TX_OFFLOAD_MULTI_SEGS | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM |
                                              RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_TSO);
  setup.config.txmode.offloads = tx;
  Abilities& abilities = setup.abilities;
  if (vlan != 0) choose_tags(info, setup);
  abilities.checksums = (tx & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0;
  abilities.ip_checksum = (tx & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
  abilities.segments = abilities.checksums && (tx & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0 && (tx & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
  const uint16_t most = info.tx_desc_lim.nb_seg_max;
  abilities.most_pieces = most != 0 && most < SegmentChain::kMostFrames ? most : SegmentChain::kMostFrames;
  setup.receive_queue = info.default_rxconf;
  setup.receive_queue.offloads = setup.config.rxmode.offloads;
  setup.queue = info.default_txconf;
  setup.queue.offloads = setup.config.txmode.offloads;
  setup.keeps_frames = strcmp(info.driver_name, "net_virtio") == 0;
  return setup;
}

// With receive interrupts, or without if the driver has none.
base::Result<bool> start_device(uint16_t port, Setup& setup, const rte_eth_dev_info& info, const FramePool& pool) noexcept {
  int error = 0;
  for (const bool interrupts : {true, false}) {
    setup.abilities.interrupts = interrupts;
    setup.config.intr_conf.rxq = interrupts ? 1 : 0;
    error = set_up(port, setup, pool);
    if (error == 0) error = start(port, setup);
    if (error == 0 && (!interrupts || rte_eth_dev_rx_intr_ctl_q_get_fd(port, 0) >= 0)) return true;
    if (error == 0) (void)rte_eth_dev_stop(port);
  }
  return base::make_error("DPDK's driver %s does not start the device: error %d (ZPS_LOG=debug tells more)", info.driver_name, error);
}

// The event descriptor of the receive queue's interrupt, or of a timer.
int sleep_descriptor(uint16_t port, const Abilities& abilities) noexcept {
  if (abilities.interrupts) return rte_eth_dev_rx_intr_ctl_q_get_fd(port, 0);
  return base::move_fd_high(static_cast<int>(kernel_call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)));
}

void describe(const Opening& opening, const PciFunction& function, const rte_eth_dev_info& info, const Abilities& abilities,
              bool link_up) noexcept {
  WireAddress& out = *opening.out;
  out.address_be = opening.config.address_be;
  out.prefix = opening.config.prefix;
  out.gateway_be = opening.config.gateway_be;
  memcpy(out.ip6, opening.config.ip6, sizeof out.ip6);
  out.gateway6 = opening.config.gateway6;
  memcpy(out.wire, base::make_error("device %s (%s)", function.address, info.driver_name).text, sizeof out.wire - 1);
  memcpy(out.reach,
         base::make_error("sleeps by %s, checksums by %s, segments cut by %s, link %s",
                          abilities.interrupts ? "interrupt" : "timed polling", abilities.checksums ? "the device" : "software",
                          abilities.segments ? "the device" : "software", link_up ? "up" : "down")
             .text,
         sizeof out.reach - 1);
}

base::Result<uint16_t> only_port() noexcept {
  uint16_t port;
  RTE_ETH_FOREACH_DEV(port) { return port; }
  return base::make_error("wire device: none of DPDK's drivers here takes this device (docs/configuration.md has the list)");
}

}  // namespace

base::Result<Wire*> open_device(const Opening& opening) noexcept {
  if (opening.config.address_be == 0 && !opening.config.dhcp)
    return base::make_error("wire device: its address is for you to say: ZPS_IP=192.0.2.10/24 and ZPS_GATEWAY=192.0.2.1, or ZPS_IP=dhcp");
  if (!has_device_drivers()) return base::make_error("wire device: has to be asked for before the program starts");
  auto function = find_pci_function(opening.argument);
  if (!function) return function.error();
  auto control = Control::create(opening.arena);
  if (!control) return control.error();
  Control::Scope scope(*control);
  if (auto started = start_eal(function->address, function->interrupts); !started) return started.error();
  auto port = only_port();
  if (!port) return port.error();

  rte_eth_dev_info info{};
  if (rte_eth_dev_info_get(*port, &info) != 0) return base::make_error("wire device: the driver says nothing of %s", function->address);
  const uint32_t usual = kDefaultMtu < info.max_mtu ? kDefaultMtu : info.max_mtu;  // less on some clouds
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : usual;
  if (mtu > info.max_mtu) return base::make_error("wire device: the largest MTU of %s is %u", function->address, info.max_mtu);
  const uint32_t room = mtu + kEthernetBytes < kLeastBufferBytes ? kLeastBufferBytes : mtu + kEthernetBytes;
  auto pool = make_chunk_pool(opening, power_of_two(room + kHeadBytes));
  if (!pool) return pool.error();
  (*pool)->set_iova(kFramesIova);
  if (rte_vfio_container_dma_map(RTE_VFIO_DEFAULT_CONTAINER_FD, reinterpret_cast<uintptr_t>((*pool)->memory()), kFramesIova,
                                 (*pool)->memory_bytes()) != 0)
    return base::make_error("wire device: its IOMMU does not take the frames: is the limit of locked memory (ulimit -l) high enough?");

  Setup setup = choose_setup(info, mtu, opening.config.vlan);
  if (auto started = start_device(*port, setup, info, **pool); !started) return started.error();
  const Abilities& abilities = setup.abilities;
  auto memory = wire_memory(opening, sizeof(DeviceWire), **pool);
  if (!memory) return memory.error();
  const int sleep_fd = sleep_descriptor(*port, abilities);
  auto* wire = new (memory->object) DeviceWire(*port, *pool, *control, sleep_fd, setup, *memory);
  WireFacts& facts = wire->mutable_facts();
  memcpy(facts.name, "device", 7);
  rte_ether_addr mac{};
  (void)rte_eth_macaddr_get(*port, &mac);
  memcpy(facts.mac, mac.addr_bytes, sizeof facts.mac);
  facts.mtu = static_cast<uint16_t>(mtu);
  facts.link_needs_checksum = true;
  facts.tcp_checksum_offload = abilities.checksums;
  (*control)->set_retry_ms(kLookAtLinkMs);
  wire->look_at_link(false);
  describe(opening, *function, info, abilities, wire->link_up());
  if (opening.config.vlan == 0) return wire;
  if (!abilities.tags) return tag_in_software(opening, *wire);
  describe_vlan(opening, "the device");
  return wire;
}

}  // namespace netstack
