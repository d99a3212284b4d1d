// Pools and addresses for the openers.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/opening.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/random.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/vlan_wire.h"

namespace netstack {
namespace {

constexpr uint32_t kHeadroom = 128;        // RTE_PKTMBUF_HEADROOM
constexpr uint32_t kDefaultFrames = 4096;
constexpr uint32_t kDefaultMemoryMb = 48;

// bind() or connect() of a socket to the name that stands for a link's.
long use_link_name(long call, long fd, const char* link) noexcept {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const base::Error name = base::make_error("zpstack/%s", link);
  memcpy(address.sun_path + 1, name.text, strlen(name.text));
  const long length = static_cast<long>(offsetof(sockaddr_un, sun_path) + 1 + strlen(name.text));
  return base::kernel_call(call, fd, base::as_arg(&address), length);
}

base::Result<FramePool*> make_pool_of(const Opening& opening, uint32_t stride, uint32_t room, uint32_t chunk) noexcept {
  static int serial = 0;
  const uint32_t affordable = static_cast<uint32_t>((uint64_t{memory_mb(opening.config)} << 20) / 3 / stride);
  uint32_t frames = opening.config.frames != 0 ? opening.config.frames : kDefaultFrames;
  if (opening.config.frames == 0 && frames > affordable) frames = affordable;
  if (frames < 4 * kBurst) frames = 4 * kBurst;
  const base::Error name = base::make_error("zps_frames_%d", serial++);
  return FramePool::create(name.text, frames, room, opening.config.hugepages, chunk);
}

}  // namespace

uint32_t power_of_two(uint32_t at_least) noexcept {
  uint32_t value = 1;
  while (value < at_least) value *= 2;
  return value;
}

uint32_t memory_mb(const StackConfig& config) noexcept { return config.memory_mb != 0 ? config.memory_mb : kDefaultMemoryMb; }

void format_address(uint32_t address_be, char* out) noexcept {
  const uint32_t a = __builtin_bswap32(address_be);
  const base::Error text = base::make_error("%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
  memcpy(out, text.text, 16);
}

uint32_t neighbour_of(uint32_t address_be, uint8_t prefix) noexcept {
  const uint32_t address = __builtin_bswap32(address_be);
  const uint32_t mask = prefix == 0 ? 0 : ~uint32_t{0} << (32 - prefix);
  const uint32_t first = (address & mask) + (prefix < 31 ? 1 : 0);
  return swap_to_wire(first != address ? first : first + 1);
}

IpNetwork default_network6(int number, uint32_t host) noexcept {
  return {{{swap_to_wire(0xfdc6'1200), swap_to_wire(static_cast<uint32_t>(number)), 0, swap_to_wire(host)}}, 64};
}

void choose_addresses6(const Opening& opening, const IpNetwork& otherwise) noexcept {
  WireAddress& out = *opening.out;
  memcpy(out.ip6, opening.config.ip6, sizeof out.ip6);
  if (out.ip6[0].prefix == 0) out.ip6[0] = otherwise;
  out.gateway6 = opening.config.gateway6;
}

IpAddress neighbour_of(const IpNetwork& network) noexcept {
  IpAddress other{};
  for (int word = 0, left = network.prefix; word < 4 && left > 0; word++, left -= 32) {
    const uint32_t mask = left >= 32 ? ~uint32_t{0} : swap_to_wire(~uint32_t{0} << (32 - left));
    other.words_be[word] = network.address.words_be[word] & mask;
  }
  other.words_be[3] |= swap_to_wire(1);
  if (other == network.address) other.words_be[3] ^= swap_to_wire(3);
  return other;
}

void random_mac(uint8_t* mac) noexcept {
  (void)base::kernel_call(SYS_getrandom, base::as_arg(mac), 6, 0);
  mac[0] = static_cast<uint8_t>((mac[0] & ~1U) | 2U);
}

int hold_link_name(const char* link) noexcept {
  const int fd = base::move_fd_high(static_cast<int>(base::kernel_call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)));
  if (fd < 0) return fd;
  const long result = use_link_name(SYS_bind, fd, link);
  if (result == 0) return fd;
  (void)base::close_high_fd(fd);
  return static_cast<int>(result);
}

bool holds_link_name(const char* link) noexcept {
  const long fd = base::kernel_call(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return true;
  const bool held = use_link_name(SYS_connect, fd, link) != -ECONNREFUSED;
  (void)base::kernel_call(SYS_close, fd);
  return held;
}

uint32_t choose_host_addresses(const Opening& opening, int number) noexcept {
  WireAddress& out = *opening.out;
  out.prefix = opening.config.prefix != 0 ? opening.config.prefix : 24;
  out.address_be = opening.config.address_be;
  if (out.address_be == 0) out.address_be = swap_to_wire(kDefaultNetwork | static_cast<uint32_t>(number) << 8 | 2);
  out.gateway_be = opening.config.gateway_be;
  choose_addresses6(opening, default_network6(number, 2));
  char text[16];
  format_address(out.address_be, text);
  memcpy(out.reach, base::make_error("%s from this host", text).text, sizeof out.reach);
  return neighbour_of(out.address_be, out.prefix);
}

// A third of the memory that the stack may use is for frames at most; the rest is for rings, connections and DPDK.
base::Result<FramePool*> make_pool(const Opening& opening, uint32_t room) noexcept {
  return make_pool_of(opening, room + kHeadroom + 256, room + kHeadroom, 0);
}

base::Result<FramePool*> make_chunk_pool(const Opening& opening, uint32_t chunk) noexcept {
  return make_pool_of(opening, chunk, FramePool::room_in_chunk(chunk), chunk);
}

void describe_vlan(const Opening& opening, const char* who) noexcept {
  char* const text = opening.out->wire;
  const size_t length = strlen(text);
  const base::Error more = base::make_error(", VLAN %u by %s", opening.config.vlan, who);
  if (length + strlen(more.text) < sizeof opening.out->wire) memcpy(text + length, more.text, strlen(more.text) + 1);
}

base::Result<Wire*> tag_in_software(const Opening& opening, Wire& wire) noexcept {
  void* const object = opening.arena->allocate(sizeof(VlanWire));
  if (object == nullptr) return base::make_error("the stack's memory is too small for its wire");
  describe_vlan(opening, "software");
  return new (object) VlanWire(wire, opening.config.vlan);
}

base::Result<WireMemory> wire_memory(const Opening& opening, size_t object_bytes, const FramePool& pool) noexcept {
  WireMemory memory{};
  memory.queue_capacity = power_of_two(pool.total());
  memory.object = opening.arena->allocate(object_bytes);
  memory.queue = static_cast<rte_mbuf**>(opening.arena->allocate(memory.queue_capacity * sizeof(rte_mbuf*)));
  if (memory.object == nullptr || memory.queue == nullptr) return base::make_error("the stack's memory is too small for its wire");
  return memory;
}

}  // namespace netstack
