// The af_xdp wire: an interface of the host and its address, shared with the kernel, by sockets of AF_XDP.
// SPDX-License-Identifier: BSD-3-Clause
//
// Its argument is the interface, or nothing for that of the default route, and options: "eth0,mode=native,copy". What the family holds, and
// what goes with its last member: the link, and with it the program; the sockets, and with them their rings.
#include <cerrno>
#include <cstring>
#include <linux/if_link.h>
#include <new>
#include <sys/epoll.h>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/eal.h"
#include "netstack/wires/kernel/bpf.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/netlink_attributes.h"
#include "netstack/wires/kernel/steering_program.h"
#include "netstack/wires/kernel/xdp_wire.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kSmallChunk = 2048, kLargeChunk = 4096;  // a page at most (xdp_umem_reg())
constexpr uint32_t kVlanFrame = ETH_HLEN + 4;
constexpr uint32_t kSendSize = 2048;
constexpr uint32_t kLeastToReceive = 32;
// Whoever is left of a program that was killed needs some time to see that there is another.
constexpr uint64_t kMostBusyNs = 3'000'000'000;
constexpr long kBusyPauseNs = 20'000'000;

struct Options {
  char device[IFNAMSIZ] = "";
  bool native = true, generic = true;  // which modes may be tried
  bool zero_copy = true;
};

base::Result<Options> parse(const char* text) noexcept {
  Options options;
  const char* end = strchrnul(text, ',');
  const auto length = static_cast<size_t>(end - text);
  if (length >= sizeof options.device) return base::make_error("wire af_xdp: there is no network device \"%s\" here", text);
  memcpy(options.device, text, length);
  while (*end != '\0') {
    const char* const option = end + 1;
    end = strchrnul(option, ',');
    const auto is = [&](const char* name) {
      return strlen(name) == static_cast<size_t>(end - option) && memcmp(option, name, strlen(name)) == 0;
    };
    if (is("mode=native")) {
      options.generic = false;
    } else if (is("mode=generic")) {
      options.native = false;
    } else if (is("copy")) {
      options.zero_copy = false;
    } else {
      return base::make_error("wire af_xdp: unknown option \"%s\": there are mode=native, mode=generic and copy", option);
    }
  }
  return options;
}

// The program that an interface has, or 0.
uint32_t attached_program(int interface) noexcept {
  struct Found {
    int interface;
    uint32_t id;
  } found{interface, 0};
  const auto visit = [](void* context, const nlmsghdr& message) noexcept {
    auto& wanted = *static_cast<Found*>(context);
    const auto& fixed = *static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
    if (message.nlmsg_type != RTM_NEWLINK || fixed.ifi_index != wanted.interface) return;
    const Attributes<IFLA_XDP + 1> attributes(message, sizeof fixed);
    const rtattr* const nest = attributes.at[IFLA_XDP];
    if (nest == nullptr) return;
    const Attributes<IFLA_XDP_HW_PROG_ID + 1> xdp(static_cast<const rtattr*>(RTA_DATA(nest)), RTA_PAYLOAD(nest));
    for (const int which : {IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID}) {
      if (wanted.id == 0) wanted.id = xdp.number(which, 0);
    }
  };
  const int fd = open_rtnetlink(0);
  if (fd < 0) return 0;
  (void)dump_rtnetlink(fd, RTM_GETLINK, AF_UNSPEC, visit, &found);
  (void)base::close_high_fd(fd);
  return found.id;
}

bool is_ours(uint32_t id) noexcept {
  char name[BPF_OBJ_NAME_LEN];
  program_name(id, name);
  return id == 0 || strcmp(name, kOwnProgram) == 0;
}

base::Error taken(const SharedInterface& device) noexcept {
  const uint32_t id = attached_program(device.index);
  char name[BPF_OBJ_NAME_LEN];
  program_name(id, name);
  return base::make_error("wire af_xdp:%s: the interface has an XDP program already, \"%s\" (id %u), and it can have one "
                          "only: end its owner, or use host:%s",
                          device.name, name, id, device.name);
}

// Everything but the wire, while it is made.
struct Parts {
  XdpSockets sockets;
  SteeringFds steering;
  int map = -1, sleep_fd = -1, name_fd = -1;
  bool native = false;

  ~Parts() {
    if (kept) return;
    close_steering(steering);
    close_xdp_sockets(&sockets);
    for (const int fd : {map, sleep_fd, name_fd}) {
      if (fd >= 0 && fd != sockets.queue[0].fd) (void)base::close_high_fd(fd);
    }
  }
  bool kept = false;
};

long link_in(uint32_t mode, const SharedInterface& device, Parts& parts, const char** what) noexcept {
  const uint64_t until_ns = base::monotonic_ns() + kMostBusyNs;
  int waiting = -1;
  long error;
  while ((error = link_xdp_steering({device.index, mode, parts.map}, &parts.steering, what)) != 0) {
    close_steering(parts.steering);
    parts.steering = {};
    if (error != -EBUSY || base::monotonic_ns() > until_ns || !is_ours(attached_program(device.index))) break;
    if (waiting < 0) waiting = hold_link_name(xdp_next_name(device.index).text);
    const timespec pause{0, kBusyPauseNs};
    (void)kernel_call(SYS_nanosleep, as_arg(&pause), 0);
  }
  if (waiting >= 0) (void)base::close_high_fd(waiting);
  return error;
}

base::Result<bool> steer(const Options& options, const SharedInterface& device, Parts& parts) noexcept {
  parts.name_fd = hold_link_name(xdp_name(device.index).text);
  if (parts.name_fd == -EADDRINUSE) return taken(device);
  const char* what = "make a BPF map";
  parts.map = make_bpf_map(BPF_MAP_TYPE_XSKMAP, sizeof(uint32_t), sizeof(uint32_t), static_cast<uint32_t>(parts.sockets.count));
  if (parts.map < 0) return refused(device, what, parts.map);
  long error = options.native ? link_in(XDP_FLAGS_DRV_MODE, device, parts, &what) : -EOPNOTSUPP;
  parts.native = error == 0;
  if (error == 0) return true;
  if (error == -EBUSY) return taken(device);
  if (options.generic && error != -EPERM && error != -EACCES) error = link_in(XDP_FLAGS_SKB_MODE, device, parts, &what);
  if (error == -EBUSY) return taken(device);
  if (error != 0) return refused(device, what, error);
  return true;
}

// A descriptor that is readable when one of the sockets is.
int descriptor_of_all(const XdpSockets& sockets) noexcept {
  if (sockets.count == 1) return sockets.queue[0].fd;
  const int fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  for (int i = 0; i < sockets.count && fd >= 0; i++) {
    epoll_event event{};
    event.events = EPOLLIN;
    if (const long error = kernel_call(SYS_epoll_ctl, fd, EPOLL_CTL_ADD, sockets.queue[i].fd, as_arg(&event)); error != 0)
      return static_cast<int>(error);
  }
  return fd;
}

base::Result<bool> connect_queues(const Options& options, const SharedInterface& device, Parts& parts) noexcept {
  if (auto bound = bind_xdp_sockets(device, parts.native && options.zero_copy, &parts.sockets); !bound) return bound.error();
  for (int i = 0; i < parts.sockets.count; i++) {
    const long error = set_map_entry(parts.map, static_cast<uint32_t>(i), static_cast<uint32_t>(parts.sockets.queue[i].fd));
    if (error != 0) return refused(device, "put a socket of AF_XDP into its map", error);
  }
  parts.sleep_fd = descriptor_of_all(parts.sockets);
  if (parts.sleep_fd < 0) return refused(device, "make a descriptor to sleep on", parts.sleep_fd);
  return true;
}

base::Result<bool> make_sockets(const SharedInterface& device, const FramePool& pool, uint32_t chunk, Parts& parts) noexcept {
  const int queues = receive_queues(device.name);
  const uint32_t each = queues <= kMostXdpQueues ? XdpWire::frames_to_receive(pool.total(), queues) : 0;
  if (each < kLeastToReceive) {
    return base::make_error("wire af_xdp:%s: the interface has %d receive queues, too many for %u frames: lower them (`ethtool "
                            "-L`), or raise ZPS_FRAMES",
                            device.name, queues, pool.total());
  }
  parts.sockets.count = queues;
  return make_xdp_sockets(device, {pool.memory(), pool.memory_bytes(), chunk}, each, kSendSize, &parts.sockets);
}

base::Result<Wire*> open_on(const Opening& opening, const Options& options, const SharedInterface& device,
                            const KernelRoutes& routes) noexcept {
  auto address = find_address(opening, device, routes);
  if (!address) return address.error();
  if (auto started = start_eal(); !started) return started.error();
  const uint32_t mtu = opening.config.mtu != 0 ? opening.config.mtu : routes.mtu();
  const uint32_t chunk = mtu + kVlanFrame + 2 * kXdpHeadroom <= kSmallChunk ? kSmallChunk : kLargeChunk;
  auto pool = make_chunk_pool(opening, chunk);
  if (!pool) return pool.error();
  auto memory = wire_memory(opening, sizeof(XdpWire), **pool);
  if (!memory) return memory.error();
  Parts parts;
  if (auto made = make_sockets(device, **pool, chunk, parts); !made) return made.error();
  if (auto steered = steer(options, device, parts); !steered) return steered.error();
  if (auto connected = connect_queues(options, device, parts); !connected) return connected.error();
  PortSteering* const board = map_steering(parts.steering.board);
  if (board == nullptr) return base::make_error("wire af_xdp:%s: no address space for its ports", device.name);

  say_where(opening, *address, routes);
  for (int i = 0; i < kMostIp6Addresses; i++) memcpy(board->words_be[i], opening.out->ip6[i].address.words_be, 16);
  const int queues = parts.sockets.count;
  const base::Error text = base::make_error("af_xdp %s (%s, %s, %d queue%s)", device.name, parts.native ? "native" : "generic",
                                            parts.sockets.zero_copy ? "zero-copy" : "copy", queues, queues == 1 ? "" : "s");
  memcpy(opening.out->wire, text.text, sizeof opening.out->wire);
  const bool unfinished_come = !parts.native || is_veth(device.name);
  auto* const wire = new (memory->object)
      XdpWire({&parts.sockets, *pool, chunk, *memory, board, parts.sleep_fd, parts.steering.ingress, parts.name_fd, unfinished_come},
              device, *address, routes);
  if (const long error = wire->start(); error != 0) return refused(device, "read its neighbours", error);
  parts.kept = true;
  return wire;
}

}  // namespace

base::Result<Wire*> open_af_xdp(const Opening& opening) noexcept {
  auto options = parse(opening.argument);
  if (!options) return options.error();
  auto device = find_interface("af_xdp", options->device);
  if (!device) return device.error();
  KernelRoutes routes;
  if (const long error = routes.open(device->index, NextHops::kNeighbourGroup); error != 0)
    return refused(*device, "read its addresses and routes", error);
  auto wire = open_on(opening, *options, *device, routes);
  if (!wire) routes.close();
  return wire;
}

}  // namespace netstack
