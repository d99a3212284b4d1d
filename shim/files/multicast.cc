// The options of groups, in all the layouts that they have.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/multicast.h"

#include <netinet/in.h>

#include <cerrno>
#include <cstddef>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/address.h"
#include "shim/files/datagram_sides.h"
#include "shim/files/fd_table.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"
#include "zpoline/hook.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::GroupChange;
using netstack::IpAddress;
using Kind = GroupChange::Kind;

enum class Layout : uint8_t { request, request_with_source, filter, request6, group, group_with_source, group_filter };

constexpr struct GroupOption {
  int level, name;
  Kind kind;
  Layout layout;
} kOptions[] = {
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, Kind::join, Layout::request},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, Kind::leave, Layout::request},
    {IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, Kind::join_source, Layout::request_with_source},
    {IPPROTO_IP, IP_DROP_SOURCE_MEMBERSHIP, Kind::leave_source, Layout::request_with_source},
    {IPPROTO_IP, IP_BLOCK_SOURCE, Kind::block, Layout::request_with_source},
    {IPPROTO_IP, IP_UNBLOCK_SOURCE, Kind::unblock, Layout::request_with_source},
    {IPPROTO_IP, IP_MSFILTER, Kind::set, Layout::filter},
    {IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, Kind::join, Layout::request6},
    {IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, Kind::leave, Layout::request6},
    {0, MCAST_JOIN_GROUP, Kind::join, Layout::group},  // of both levels
    {0, MCAST_LEAVE_GROUP, Kind::leave, Layout::group},
    {0, MCAST_JOIN_SOURCE_GROUP, Kind::join_source, Layout::group_with_source},
    {0, MCAST_LEAVE_SOURCE_GROUP, Kind::leave_source, Layout::group_with_source},
    {0, MCAST_BLOCK_SOURCE, Kind::block, Layout::group_with_source},
    {0, MCAST_UNBLOCK_SOURCE, Kind::unblock, Layout::group_with_source},
    {0, MCAST_MSFILTER, Kind::set, Layout::group_filter},
};
constexpr bool is_of_both(int name) noexcept { return name >= MCAST_JOIN_GROUP && name <= MCAST_MSFILTER; }

const GroupOption* find(int level, int name) noexcept {
  if (level != IPPROTO_IP && level != IPPROTO_IPV6) return nullptr;
  for (const GroupOption& each : kOptions) {
    if (each.name == name && (each.level == level || is_of_both(name))) return &each;
  }
  return nullptr;
}

constexpr unsigned kLoopback = 1;

// The wire: the stack alone; both: no interface is named.
enum class Side { kernel, stack, both };

struct Request {
  static constexpr int kMostSources = 64;

  GroupChange change{};
  Side side = Side::kernel;
  IpAddress sources[kMostSources];
};

// What follows `at` bytes of the option's value. False if it has not so many, or cannot be read.
struct Value {
  const char* user;
  size_t bytes;
  template <class T>
  [[nodiscard]] bool get(size_t at, T* value) const noexcept {
    return at + sizeof *value <= bytes && copy_in(value, user + at, sizeof *value) == 0;
  }
  [[nodiscard]] bool address(size_t at, int level, IpAddress* out) const noexcept {
    sockaddr_in6 name;
    if (at + sizeof(sockaddr_storage) > bytes || copy_in(&name, user + at, sizeof name) != 0) return false;
    if (name.sin6_family != (level == IPPROTO_IP ? AF_INET : AF_INET6)) return false;
    if (level == IPPROTO_IP) {
      sockaddr_in v4;
      __builtin_memcpy(&v4, &name, sizeof v4);
      *out = IpAddress::v4(v4.sin_addr.s_addr);
    } else {
      __builtin_memcpy(out->words_be, &name.sin6_addr, sizeof out->words_be);
    }
    return true;
  }
};

Side side_of_index(unsigned index) noexcept {
  if (index == 0) return Side::both;
  return index == kLoopback || is_wires_scope(index) ? Side::stack : Side::kernel;
}

Side side_of_address(uint32_t address_be) noexcept {
  if (address_be == INADDR_ANY) return Side::both;
  return stack_at(IpAddress::v4(address_be)) != nullptr ? Side::stack : Side::kernel;
}

bool load_request(const Value& value, Request* out) noexcept {
  ip_mreqn request{};
  if (!value.get(0, &request)) {
    ip_mreq shorter;
    if (!value.get(0, &shorter)) return false;
    request = {shorter.imr_multiaddr, shorter.imr_interface, 0};
  }
  out->change.group = IpAddress::v4(request.imr_multiaddr.s_addr);
  const auto index = static_cast<unsigned>(request.imr_ifindex);
  out->side = index != 0 ? side_of_index(index) : side_of_address(request.imr_address.s_addr);
  return true;
}

bool load_source_request(const Value& value, Request* out) noexcept {
  ip_mreq_source request;
  if (!value.get(0, &request)) return false;
  out->change.group = IpAddress::v4(request.imr_multiaddr.s_addr);
  out->change.count = 1;
  out->sources[0] = IpAddress::v4(request.imr_sourceaddr.s_addr);
  out->side = side_of_address(request.imr_interface.s_addr);
  return true;
}

// struct ip_msfilter without its sources.
struct FilterHead {
  in_addr group, interface;
  uint32_t mode, count;
};

bool load_filter(const Value& value, Request* out) noexcept {
  FilterHead head;
  if (!value.get(0, &head) || head.count > Request::kMostSources) return false;
  out->change.group = IpAddress::v4(head.group.s_addr);
  out->change.exclude = head.mode == MCAST_EXCLUDE;
  out->change.count = static_cast<int>(head.count);
  for (uint32_t i = 0; i < head.count; i++) {
    in_addr source;
    if (!value.get(sizeof head + i * sizeof source, &source)) return false;
    out->sources[i] = IpAddress::v4(source.s_addr);
  }
  out->side = side_of_address(head.interface.s_addr);
  return true;
}

bool load_request6(const Value& value, Request* out) noexcept {
  ipv6_mreq request;
  if (!value.get(0, &request)) return false;
  __builtin_memcpy(out->change.group.words_be, &request.ipv6mr_multiaddr, sizeof out->change.group.words_be);
  out->side = side_of_index(request.ipv6mr_interface);
  return true;
}

// struct group_req, group_source_req and group_filter begin alike.
bool load_group(const Value& value, int level, Layout layout, Request* out) noexcept {
  uint32_t index;
  if (!value.get(0, &index) || !value.address(offsetof(group_req, gr_group), level, &out->change.group)) return false;
  out->side = side_of_index(index);
  if (layout == Layout::group) return true;
  if (layout == Layout::group_with_source) {
    out->change.count = 1;
    return value.address(offsetof(group_source_req, gsr_source), level, &out->sources[0]);
  }
  uint32_t mode, count;
  if (!value.get(offsetof(group_filter, gf_fmode), &mode) || !value.get(offsetof(group_filter, gf_numsrc), &count)) return false;
  if (count > Request::kMostSources) return false;
  out->change.exclude = mode == MCAST_EXCLUDE;
  out->change.count = static_cast<int>(count);
  for (uint32_t i = 0; i < count; i++) {
    if (!value.address(offsetof(group_filter, gf_slist) + i * sizeof(sockaddr_storage), level, &out->sources[i])) return false;
  }
  return true;
}

// False: the kernel will say what is wrong with it.
bool load(const GroupOption& option, int level, const Value& value, Request* out) noexcept {
  out->change.kind = option.kind;
  out->change.sources = out->sources;
  switch (option.layout) {
    case Layout::request: return load_request(value, out);
    case Layout::request_with_source: return load_source_request(value, out);
    case Layout::filter: return load_filter(value, out);
    case Layout::request6: return load_request6(value, out);
    default: return load_group(value, level, option.layout, out);
  }
}

long change_on_stack(int fd, netstack::Stack* stack, const GroupChange& change) noexcept {
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr) return -EBADF;
  netstack::UdpEndpoint*& endpoint = socket->endpoint != nullptr ? socket->endpoint : socket->reserve;
  if (endpoint == nullptr) endpoint = stack->make_endpoint();
  return endpoint == nullptr ? -ENOBUFS : endpoint->change_group(change);
}

// IP_MULTICAST_IF: an address, or with more room what IP_ADD_MEMBERSHIP has.
long set_interface(int fd, const Value& value) noexcept {
  ip_mreqn request{};
  ip_mreq shorter{};
  if (!value.get(0, &request)) {
    const bool is_address = !value.get(0, &shorter);
    if (is_address && !value.get(0, &shorter.imr_interface)) return kServedByKernel;
    request.imr_address = shorter.imr_interface;
  }
  const uint32_t address_be = request.imr_address.s_addr;
  const netstack::Stack* const stack = request.imr_ifindex == 0 && address_be != INADDR_ANY ? stack_at(IpAddress::v4(address_be)) : nullptr;
  const bool by_stack = stack != nullptr && !stack->wire().facts().shared;
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr || socket->kernel_only) return kServedByKernel;
  socket->group_source_be = by_stack ? address_be : 0;
  return by_stack ? 0 : kServedByKernel;
}

// What of an option says which group it asks about, and how many sources there is room for.
bool load_question(int level, bool of_ip4, const Value& value, Request* out, uint32_t* room) noexcept {
  if (of_ip4) {
    FilterHead head;
    if (!value.get(0, &head)) return false;
    out->change.group = IpAddress::v4(head.group.s_addr);
    out->side = side_of_address(head.interface.s_addr);
    *room = head.count;
    return true;
  }
  return load_group(value, level, Layout::group, out) && value.get(offsetof(group_filter, gf_numsrc), room);
}

// ip_mc_msfget(), ip_mc_gsfget(), ip6_mc_msfget(): with the lock held. A copy, as the program's memory is written without the lock.
long copy_sources(int fd, const IpAddress& group, Request* out) noexcept {
  if (!group.is_multicast()) return -EINVAL;
  const DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr) return -EBADF;
  const netstack::UdpEndpoint* const endpoint = socket->endpoint != nullptr ? socket->endpoint : socket->reserve;
  netstack::GroupSources told;
  if (endpoint == nullptr || !endpoint->group_sources(group, &told)) return -EADDRNOTAVAIL;
  for (int i = 0; i < told.count; i++) out->sources[i] = told.sources[i];
  out->change.count = told.count;
  out->change.exclude = told.exclude;
  return 0;
}

// Mode, count, and as many sources as there is room for.
long put_filter(char* user, int level, bool of_ip4, const Request& told, uint32_t fitting) noexcept {
  const uint32_t mode = told.change.exclude ? MCAST_EXCLUDE : MCAST_INCLUDE;
  const uint32_t words[] = {mode, static_cast<uint32_t>(told.change.count)};
  long error = copy_out(user + (of_ip4 ? offsetof(FilterHead, mode) : offsetof(group_filter, gf_fmode)), words, sizeof words);
  const size_t each = of_ip4 ? sizeof(in_addr) : sizeof(sockaddr_storage);
  char* const list = user + (of_ip4 ? sizeof(FilterHead) : offsetof(group_filter, gf_slist));
  for (uint32_t i = 0; i < fitting && error == 0; i++) {
    union {
      sockaddr_storage name;
      uint32_t ip4_be;
    } source{};
    if (of_ip4) {
      source.ip4_be = told.sources[i].v4_be();
    } else {
      (void)make_address(level == IPPROTO_IP ? AF_INET : AF_INET6, {told.sources[i], 0}, &source.name);
    }
    error = copy_out(list + i * each, &source, each);
  }
  return error;
}

}  // namespace

bool is_group_filter(int level, int name) noexcept {
  const GroupOption* const option = find(level, name);
  return option != nullptr && option->kind == Kind::set;
}

long get_group_filter(int fd, int level, int name, void* user, socklen_t* user_bytes) noexcept {
  const bool of_ip4 = name == IP_MSFILTER && level == IPPROTO_IP;
  socklen_t bytes;
  if (copy_in(&bytes, user_bytes, sizeof bytes) != 0 || static_cast<int>(bytes) < 0) return kServedByKernel;
  Request request;
  uint32_t room;
  if (!load_question(level, of_ip4, {static_cast<const char*>(user), bytes}, &request, &room)) return kServedByKernel;
  if (request.side == Side::kernel || (request.side == Side::both && !of_ip4)) return kServedByKernel;
  if (request.side == Side::both) {  // the kernel's membership is the other half of the same
    const long by_kernel = kernel_call(SYS_getsockopt, fd, level, name, as_arg(user), as_arg(user_bytes));
    if (by_kernel != -ENODEV && by_kernel != -EADDRNOTAVAIL) return by_kernel;
  }
  {
    Guard guard;
    if (guard.stack() == nullptr || guard.stack()->wire().facts().shared) return kServedByKernel;
    if (long error = copy_sources(fd, request.change.group, &request); error != 0) return error;
  }
  const auto count = static_cast<uint32_t>(request.change.count), fitting = count < room ? count : room;
  const auto told = static_cast<socklen_t>(of_ip4 ? sizeof(FilterHead) + fitting * sizeof(in_addr) : GROUP_FILTER_SIZE(fitting));
  if (long error = copy_out(user_bytes, &told, sizeof told); error != 0) return error;
  return put_filter(static_cast<char*>(user), level, of_ip4, request, fitting);
}

bool is_group_option(int level, int name) noexcept {
  return find(level, name) != nullptr || (level == IPPROTO_IP && name == IP_MULTICAST_IF);
}

long set_group_option(int fd, int level, int name, const void* user, socklen_t bytes) noexcept {
  const Value value{static_cast<const char*>(user), bytes};
  const GroupOption* const option = find(level, name);
  if (engine->thread()->vfork_child != 0) return kServedByKernel;
  if (option == nullptr) return set_interface(fd, value);
  Request request;
  if (peek(fd) == nullptr || static_cast<const DatagramSocket*>(peek(fd))->kernel_only) return kServedByKernel;
  if (!load(*option, level, value, &request) || request.side == Side::kernel) return kServedByKernel;
  netstack::Stack* const stack = ensure_stack();
  if (stack == nullptr || stack->wire().facts().shared) return kServedByKernel;
  long by_kernel = -ENODEV;
  if (request.side == Side::both) {
    by_kernel = kernel_call(SYS_setsockopt, fd, level, name, as_arg(user), bytes);
    const bool has_no_say = by_kernel == -ENODEV || by_kernel == -EADDRNOTAVAIL;  // no interface for it, or no membership there
    if (by_kernel != 0 && !has_no_say) return by_kernel;
  }
  const long by_stack = change_on_stack(fd, stack, request.change);
  return by_kernel == 0 ? 0 : by_stack;
}

bool sends_to_groups(const DatagramSocket& socket, const netstack::Stack& stack, const IpAddress& group) noexcept {
  return socket.bound_here || (group.is_v4() && (socket.group_source_be != 0 || stack.routes(group)));
}

}  // namespace shim
