// Takes the wire's description apart and opens it on a thread of its own.
// SPDX-License-Identifier: BSD-3-Clause
//
// The thread. Making a veth needs changes of the network namespace, and rights that are out of effect are put into effect: both are per
// thread. So all of it happens on a thread that ends before open_wire() returns, and is ours alone: EAL allocates, and its per-thread
// numbers are nothing for a thread of the program.
#include "netstack/wires/open_wire.h"

#include <cstring>

#include "base/high_fd.h"
#include "base/own_thread.h"
#include "base/syscall.h"
#include "netstack/wires/device/device_wire.h"
#include "netstack/wires/device/drivers.h"
#include "netstack/wires/frame_pool.h"
#include "netstack/wires/kernel/kernel_wires.h"
#include "netstack/wires/kernel/link_broker.h"
#include "netstack/wires/memif/memif_wire.h"
#include "netstack/wires/opening.h"
#include "netstack/wires/vhost/vhost_wire.h"

namespace netstack {
namespace {

using base::kernel_call;

// Who deals with the tags of VLANs: software over the wire, the wire itself, or the kernel, whose interface it has.
enum class Tags : uint8_t { software, wire, kernel };
// Where the IPv4 address comes from that the settings do not say: the wire, whose network is its own or the kernel's, or also DHCP.
enum class Address : uint8_t { wires, or_dhcp };

struct Kind {
  const char* name;
  base::Result<Wire*> (*open)(const Opening&) noexcept;
  Tags tags;
  Address address;
  void (*keep_rights)(const StackConfig&) noexcept = nullptr;
  base::Result<bool> (*prepare)() noexcept = nullptr;
};

constexpr Kind kKinds[] = {
    {"veth", open_veth, Tags::kernel, Address::wires, keep_veth_rights},
    {"host", open_host, Tags::kernel, Address::wires, keep_host_rights},
    {"af_xdp", open_af_xdp, Tags::kernel, Address::wires},
    {"af_packet", open_packet, Tags::kernel, Address::or_dhcp},
    {"memif", open_memif, Tags::software, Address::or_dhcp},
    {"tap", open_tap, Tags::software, Address::wires},
    {"vhost", open_vhost, Tags::software, Address::or_dhcp},
    {"virtio-user", open_virtio_user, Tags::software, Address::or_dhcp},
    {"device", open_device, Tags::wire, Address::or_dhcp, nullptr, load_device_drivers},
};

constexpr size_t kThreadStackBytes = 512 << 10;

struct Job {
  const StackConfig& config;
  base::Arena* arena;
  WireAddress* out;
  base::Result<Wire*> result;
};

// `end` becomes where its name ends in `wire`. nullptr if there is no such kind.
const Kind* find_kind(const char* wire, const char** end) noexcept {
  *end = strchrnul(wire, ':');
  const size_t length = static_cast<size_t>(*end - wire);
  for (const Kind& kind : kKinds) {
    if (strlen(kind.name) == length && memcmp(kind.name, wire, length) == 0) return &kind;
  }
  return nullptr;
}

base::Result<Wire*> open_here(const StackConfig& config, base::Arena* arena, WireAddress* out) noexcept {
  const char* end = nullptr;
  const Kind* kind = find_kind(config.wire, &end);
  if (kind == nullptr)
    return base::make_error("no wire is called %s: use veth, host:interface, af_xdp:interface, memif:/path, vhost:/path, "
                            "virtio-user:/path, tap, af_packet:device or device:address", config.wire);
  if (config.vlan != 0 && kind->tags == Tags::kernel)
    return base::make_error("wire %s: VLANs of its interface are the kernel's: instead of ZPS_VLAN=%u make one of them an interface (ip "
                            "link add link eth0 name eth0.%u type vlan id %u) and use af_packet:eth0.%u", kind->name, config.vlan,
                            config.vlan, config.vlan, config.vlan);
  if (config.dhcp && kind->address == Address::wires)
    return base::make_error("wire %s has its addresses from this host: ZPS_IP=dhcp is for af_packet, device, memif, vhost and virtio-user",
                            kind->name);
  const Opening opening{config, *end == ':' ? end + 1 : end, arena, out};
  auto wire = kind->open(opening);
  return wire && config.vlan != 0 && kind->tags == Tags::software ? tag_in_software(opening, **wire) : wire;
}

void run_job(void* argument) noexcept {
  auto* job = static_cast<Job*>(argument);
  take_link_rights();
  job->result = open_here(job->config, job->arena, job->out);
}

}  // namespace

base::Result<Wire*> open_wire(const StackConfig& config, base::Arena* shared_arena, WireAddress* out) noexcept {
  Job job{config, shared_arena, out, base::make_error("the thread that opens the wire did not run")};
  // The first high number makes the kernel enlarge the table of descriptors, which is quick only while nobody shares it.
  (void)base::close_high_fd(base::move_fd_high(static_cast<int>(kernel_call(SYS_eventfd2, 0, 0))));
  base::OwnThread thread;
  if (const long error = thread.start(run_job, &job, kThreadStackBytes); error != 0) {
    return base::make_error("cannot make a thread to open the wire: error %ld", -error);
  }
  thread.join();
  return job.result;
}

void keep_rights(const StackConfig& config) noexcept {
  const char* end = nullptr;
  const Kind* kind = find_kind(config.wire, &end);
  if (kind != nullptr && kind->keep_rights != nullptr) kind->keep_rights(config);
}

base::Result<bool> prepare_wire(const char* wire) noexcept {
  const char* end = nullptr;
  const Kind* kind = find_kind(wire, &end);
  return kind != nullptr && kind->prepare != nullptr ? kind->prepare() : base::Result<bool>(true);
}

bool is_left_over(const IpAddress& address) noexcept {
  const uint32_t number = address.is_v4() ? swap_to_wire(address.v4_be()) >> 8 & 0xff : swap_to_wire(address.words_be[1]);
  return number < 256 && !holds_link_name(base::make_error("zps%u", number).text);
}

bool prepare_frame_pools() noexcept { return FramePool::register_operations(); }

bool has_kept_rights() noexcept { return has_link_broker(); }
void let_rights_go() noexcept { end_link_broker(); }

}  // namespace netstack
