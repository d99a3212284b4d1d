// Endpoints and placeholders of datagram sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/datagram_sides.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/files/async_io.h"
#include "shim/files/datagram_options.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"
#include "shim/files/kernel_half.h"
#include "shim/files/multicast.h"
#include "shim/files/options.h"
#include "shim/files/routing.h"

// keep_everything.S
extern "C" long zps_keep_everything(long argument, long (*function)(long argument) noexcept) noexcept;

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;
using netstack::SocketAddress;

constexpr int kTries = 64;  // how often the kernel may choose a port that the stack does not want

// ---------------------------------------------------------------- the placeholder

sockaddr_in name_of(uint32_t address_be, uint16_t port_be) noexcept {
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = port_be;
  name.sin_addr.s_addr = address_be;
  return name;
}

// The limited broadcast and multicast, which say nothing of an interface.
bool is_for_many(const netstack::IpAddress& address) noexcept { return address.v4_be() == INADDR_BROADCAST || address.is_multicast(); }

// The domain of the socket under this number, which never changes.
int domain_of(int fd) noexcept {
  const File* const file = peek(fd);
  return is_datagram(file) ? static_cast<const DatagramSocket*>(file)->domain : AF_INET;
}

// All addresses, as a socket of this number means them.
SocketAddress all_of(int fd, uint16_t port_be) noexcept {
  return domain_of(fd) == AF_INET6 ? SocketAddress{netstack::IpAddress{}, port_be} : SocketAddress{0, port_be};
}

bool is_v6_only(int fd) noexcept { return placeholder_is_v6_only(fd, domain_of(fd)); }

long bind_placeholder(int fd, const SocketAddress& local) noexcept {
  sockaddr_in6 name;
  const socklen_t bytes = make_address(domain_of(fd), local, &name);
  return kernel_call(SYS_bind, fd, as_arg(&name), bytes);
}

// Its port is all that matters, and lies at one place in both families' addresses.
sockaddr_in placeholder_end(int fd, long number) noexcept {
  sockaddr_in name{};
  socklen_t bytes = sizeof name;
  if (kernel_call(number, fd, as_arg(&name), as_arg(&bytes)) != 0) name = {};
  return name;
}

// Its peer goes, and the port if nobody asked for it by name (__udp_disconnect()).
void disconnect_placeholder(int fd) noexcept {
  const sockaddr nowhere{AF_UNSPEC, {}};
  (void)kernel_call(SYS_connect, fd, as_arg(&nowhere), sizeof nowhere);
}

// A socket that is connected where the stack is the way gets nothing from anybody else: what the kernel's side would get is dropped there.
// One of IPv6 that was connected goes on hearing what comes over IPv4.
enum class Hearing { nothing, ip4, all };

void set_hearing(int fd, Hearing what) noexcept {
  static constexpr uint32_t kProtocol = static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_PROTOCOL), kWhole = ~uint32_t{0};
  sock_filter by_family[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kProtocol), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 1),
                             BPF_STMT(BPF_RET | BPF_K, kWhole), BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog ip4{4, by_family}, nothing{1, by_family + 3};
  const int name = what == Hearing::all ? SO_DETACH_FILTER : SO_ATTACH_FILTER;
  const sock_fprog& program = what == Hearing::ip4 ? ip4 : nothing;
  (void)kernel_call(SYS_setsockopt, fd, SOL_SOCKET, name, as_arg(&program), sizeof program);
}

// Whom the placeholder is connected to.
netstack::IpAddress placeholder_peer(int fd) noexcept {
  sockaddr_in6 name{};
  socklen_t bytes = sizeof name;
  ParsedAddress peer;
  if (kernel_call(SYS_getpeername, fd, as_arg(&name), as_arg(&bytes)) == 0) (void)parse_address(name.sin6_family, &name, bytes, &peer);
  return peer.address.address;
}

bool placeholder_has_datagrams(int fd) noexcept {
  pollfd one{fd, POLLIN, 0};
  timespec zero{};
  return kernel_call(SYS_ppoll, as_arg(&one), 1, as_arg(&zero), 0, 8) > 0;
}

// ---------------------------------------------------------------- registrations

// The registrations follow what has become of the sides. With the lock held.
void follow_sides(DatagramSocket* socket) noexcept {
  const MutedNotice muted(socket);
  netstack::UdpEndpoint* const endpoint = socket->endpoint;
  if (endpoint == nullptr || socket->both) (void)registrations_return(socket);
  if (endpoint != nullptr) {  // who sleeps on other sides looks again
    for (netstack::Observer* o = endpoint->observers.front(); o != nullptr; o = endpoint->observers.after(o))
      o->on_ready(*endpoint, EPOLLIN | EPOLLOUT);
    registrations_follow(socket, socket->both);
    if (!socket->both) return;
  }
  for (FileLink* link = socket->registrations.front(); link != nullptr; link = socket->registrations.after(link)) {
    auto* const item = static_cast<EpollItem*>(link);
    if (!item->in_kernel || !item->armed || peek(item->fd) != socket) continue;
    (void)kernel_half_control(number_of(item->set), EPOLL_CTL_MOD, item, item->events, item->data);
  }
}

// ---------------------------------------------------------------- endpoints

netstack::PortSharing sharing_of(int fd) noexcept {
  netstack::PortSharing sharing{placeholder_int(fd, SOL_SOCKET, SO_REUSEADDR) != 0, placeholder_int(fd, SOL_SOCKET, SO_REUSEPORT) != 0};
  struct stat about{};
  if (sharing.reuse_port && kernel_call(SYS_fstat, fd, as_arg(&about)) == 0) sharing.uid = about.st_uid;
  return sharing;
}

enum class Port { asked_for, chosen, known };

long make_endpoint(int fd, netstack::Stack* stack, const SocketAddress& local, Port port, bool both) noexcept {
  netstack::PortRequest request{local, sharing_of(fd)};
  request.is_chosen = port == Port::chosen && local.port_be != 0;
  request.is_known = port == Port::known;
  request.v6_only = is_v6_only(fd);
  request.for_v6 = domain_of(fd) == AF_INET6;
  const DatagramOptions options = read_datagram_options(fd);
  service_ensure();
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr) return -EBADF;
  if (socket->endpoint != nullptr) return port == Port::asked_for ? -EINVAL : 0;
  netstack::UdpEndpoint* const endpoint = socket->reserve != nullptr ? std::exchange(socket->reserve, nullptr) : stack->make_endpoint();
  if (endpoint == nullptr) return -ENOBUFS;
  apply_datagram_options(socket, endpoint, options);
  if (const long error = endpoint->bind(request); error != 0) {
    socket->reserve = endpoint;
    return error;
  }
  socket->bound_here = !both;
  socket->v6_only = request.v6_only;
  socket->both = both;
  socket->kernel_peer = false;
  socket->endpoint = endpoint;
  endpoint->hear_only(socket->former_peer);
  if (socket->shut != 0) endpoint->shutdown(socket->shut - 1);
  attach_notice(socket);
  follow_sides(socket);
  return 0;
}

// With the lock held. The kernel is alone from now on.
void leave_stack(DatagramSocket* socket) noexcept {
  const MutedNotice muted(socket);
  while (netstack::Observer* observer = socket->endpoint->observers.front()) {  // whoever sleeps looks again
    observer->on_ready(*socket->endpoint, EPOLLIN | EPOLLOUT);
    observer->unlink();
  }
  socket->endpoint->release();
  socket->endpoint = nullptr;
  socket->both = socket->bound_here = false;
  follow_sides(socket);
}

// The kernel chooses a port now, whatever IP_BIND_ADDRESS_NO_PORT says of later.
long choose_port(int fd, const netstack::IpAddress& address) noexcept {
  const int no_port = placeholder_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT), off = 0;
  if (no_port == 0) return bind_placeholder(fd, {address, 0});
  (void)kernel_call(SYS_setsockopt, fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, as_arg(&off), sizeof off);
  const long error = bind_placeholder(fd, {address, 0});
  (void)kernel_call(SYS_setsockopt, fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, as_arg(&no_port), sizeof no_port);
  return error;
}

// A port that is free on both sides, unless the placeholder has one.
long join_stack_at(int fd, netstack::Stack* stack, const netstack::IpAddress& address) noexcept {
  long error = -EADDRINUSE;
  for (int i = 0; i < kTries && error == -EADDRINUSE; i++) {
    const uint16_t before = placeholder_end(fd, SYS_getsockname).sin_port;
    if (before != 0) return make_endpoint(fd, stack, {address, before}, Port::known, true);
    if (const long refused = choose_port(fd, address); refused != 0) return refused;
    error = make_endpoint(fd, stack, {address, placeholder_end(fd, SYS_getsockname).sin_port}, Port::chosen, true);
    if (error != 0) disconnect_placeholder(fd);
  }
  return error;
}

// To all addresses, or to a group's.
long bind_to_both(int fd, const SocketAddress& local) noexcept {
  netstack::Stack* const stack = ensure_stack();
  if (stack == nullptr) return kServedByKernel;
  const SocketAddress name = local.address.is_any() ? all_of(fd, local.port_be) : local;
  if (placeholder_end(fd, SYS_getsockname).sin_port != 0) return kServedByKernel;
  if (local.port_be == 0) return join_stack_at(fd, stack, name.address);
  if (const long error = make_endpoint(fd, stack, name, Port::asked_for, true); error != 0) return error;
  const long error = bind_placeholder(fd, name);
  if (error == 0) return 0;
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket != nullptr && socket->endpoint != nullptr) leave_stack(socket);
  return error;
}

// Whether the program may have this port at all (net.ipv4.ip_unprivileged_port_start).
long may_bind(const SocketAddress& local) noexcept {
  if (local.port_be == 0) return 0;
  const long probe = kernel_call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return 0;
  const int on = 1;
  const sockaddr_in name = name_of(local.address.v4_be(), local.port_be);
  (void)kernel_call(SYS_setsockopt, probe, IPPROTO_IP, IP_FREEBIND, as_arg(&on), sizeof on);
  const long error = kernel_call(SYS_bind, probe, as_arg(&name), sizeof name);
  (void)kernel_call(SYS_close, probe);
  return error == -EACCES ? error : 0;
}

// With the lock held: what the rules say of what this socket sends to `address`.
bool is_kernels_by_rule(const DatagramSocket& socket, const netstack::IpAddress& address) noexcept {
  const uint16_t port_be = socket.endpoint != nullptr ? socket.endpoint->local().port_be : 0;
  return side_of(IPPROTO_UDP, port_be, &address) == base::Side::kernel;
}

netstack::Stack* stack_to_connect(int fd, const ParsedAddress& to) noexcept {
  const netstack::IpAddress& address = to.address.address;
  if (!is_stacks_kind(to)) return nullptr;
  if (is_for_many(address)) return stack_for_group(fd, address);
  uint16_t port_be = 0;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(fd);
    if (socket != nullptr && socket->endpoint != nullptr) port_be = socket->endpoint->local().port_be;
  }
  return stack_towards(IPPROTO_UDP, port_be, address);
}

// A connection that fails changes nothing: the stack's half goes when there is one to the kernel's side.
long connect_to_kernel(int fd, const ParsedAddress& to, const void* named, size_t bytes) noexcept {
  bool filtered;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr) return kServedByKernel;
    if (socket->endpoint != nullptr && socket->bound_here && !to.wildcard) {
      return to.elsewhere && (to.scope == 0 || socket->endpoint->local().address.is_link_local()) ? -EINVAL : -ENETUNREACH;
    }
  }
  if (const long error = kernel_call(SYS_connect, fd, as_arg(named), static_cast<long>(bytes)); error != 0) {
    join_unnamed(fd);
    return error;
  }
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr) return 0;
    socket->kernel_peer = true;
    socket->mute = false;
    filtered = std::exchange(socket->filtered, false);
    if (socket->endpoint != nullptr) leave_stack(socket);
  }
  if (filtered) set_hearing(fd, Hearing::all);
  return 0;
}

}  // namespace

DatagramSocket* datagram_at(int64_t fd) noexcept {
  File* const file = peek(fd);
  return is_datagram(file) ? static_cast<DatagramSocket*>(file) : nullptr;
}

void close_datagram(DatagramSocket* socket) noexcept {
  release_notice(socket);
  if (socket->endpoint != nullptr) {
    while (netstack::Observer* observer = socket->endpoint->observers.pop_front()) (void)observer;
    socket->endpoint->release();
  }
  if (socket->reserve != nullptr) socket->reserve->release();
  files().datagrams.release(socket);
}

bool owned_by_stack(const ParsedAddress& to) noexcept { return is_stacks_kind(to) && stack_at(to.address.address) != nullptr; }

long join_stack(int fd, netstack::Stack* stack) noexcept { return join_stack_at(fd, stack, all_of(fd, 0).address); }

void join_unnamed(int fd) noexcept {
  netstack::Stack* const stack = the_stack();
  if (stack == nullptr || !may_be_stacks(IPPROTO_UDP, 0)) return;
  {
    Guard guard;
    const DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr || socket->endpoint != nullptr || socket->kernel_only || socket->kernel_peer) return;
  }
  (void)join_stack(fd, stack);  // or it stays the kernel's
}

void join_all_unnamed() noexcept {
  constexpr int kAtATime = 64;
  int numbers[kAtATime], count = kAtATime;
  for (int from = 0; count == kAtATime; from = numbers[count - 1] + 1) {
    count = 0;
    {
      Guard guard;
      for_each_entry(my_slot, [&](int fd, const Counted* file) {
        if (count < kAtATime && fd >= from && is_datagram(static_cast<const File*>(file))) numbers[count++] = fd;
      });
    }
    for (int i = 0; i < count; i++) {
      if (placeholder_end(numbers[i], SYS_getsockname).sin_port != 0) join_unnamed(numbers[i]);
    }
    if (count == 0) return;
  }
}

long bind_datagram(int fd, const ParsedAddress& to, bool* is_kernels) noexcept {
  const bool is_own = owned_by_stack(to);
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(fd);
    if (socket != nullptr && socket->kernel_only && is_own) return -EINVAL;
    if (socket == nullptr || socket->kernel_only) return kServedByKernel;
    if (socket->bound_here && socket->endpoint->local().port_be == 0) leave_stack(socket);  // disconnect() has taken it
    if (socket->endpoint != nullptr)  // the kernel has the port as well, and says what is wrong first
      return socket->bound_here || is_own ? -EINVAL : kServedByKernel;
  }
  const bool is_ours = is_stacks_kind(to) && may_be_stacks(IPPROTO_UDP, to.address.port_be);
  if (is_ours && (to.wildcard || to.address.address.is_multicast())) return bind_to_both(fd, to.address);
  if (is_ours && shared_stack_at(to.address.address) != nullptr) return bind_to_both(fd, to.address);
  if (!is_ours || !is_own) {
    *is_kernels = to.known;
    return kServedByKernel;
  }
  if (const long error = may_bind(to.address); error != 0) return error;
  if (placeholder_end(fd, SYS_getsockname).sin_port != 0) return -EINVAL;
  if (const long error = make_endpoint(fd, the_stack(), to.address, Port::asked_for, false); error != 0) return error;
  if (to.address.address.is_v4()) return 0;
  end_v4(fd);
  Guard guard;
  if (DatagramSocket* const socket = datagram_at(fd)) socket->v6_only = true;
  return 0;
}

long connect_datagram(int fd, const ParsedAddress& to, const void* named, size_t bytes) noexcept {
  netstack::Stack* const stack = stack_to_connect(fd, to);
  if (stack == nullptr) return connect_to_kernel(fd, to, named, bytes);
  bool had_endpoint;
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr || socket->kernel_only) return kServedByKernel;
    had_endpoint = socket->endpoint != nullptr;
  }
  if (!had_endpoint) {
    if (placeholder_end(fd, SYS_getpeername).sin_port != 0) disconnect_placeholder(fd);
    if (const long error = join_stack(fd, stack); error != 0) return error;
  }
  bool mute = false;
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr || socket->endpoint == nullptr) return -EBADF;
    if (const long error = socket->endpoint->connect(to.address); error != 0) return error;
    mute = !socket->bound_here && !socket->mute;
    if (mute) socket->mute = socket->filtered = true;
  }
  if (!mute) return 0;
  set_hearing(fd, Hearing::nothing);
  const bool left = placeholder_has_datagrams(fd);
  Guard guard;
  DatagramSocket* const socket = datagram_at(fd);
  if (socket == nullptr || socket->endpoint == nullptr || socket->both == left) return 0;
  socket->both = left;
  follow_sides(socket);
  return 0;
}

long disconnect_datagram(int fd) noexcept {
  bool deaf, stack_alone, has_former;
  const bool of_ip6 = domain_of(fd) == AF_INET6;
  const netstack::IpAddress kernels_peer = of_ip6 ? placeholder_peer(fd) : netstack::IpAddress{};
  {
    Guard guard;
    DatagramSocket* const socket = datagram_at(fd);
    if (socket == nullptr) return kServedByKernel;
    socket->kernel_peer = false;
    if (!kernels_peer.is_any()) socket->former_peer = kernels_peer;
    if (socket->endpoint == nullptr) return kServedByKernel;
    stack_alone = socket->bound_here;
    if (of_ip6 && socket->endpoint->connected()) socket->former_peer = socket->endpoint->peer().address;
    has_former = !socket->former_peer.is_any();
    socket->endpoint->disconnect();
    socket->endpoint->hear_only(socket->former_peer);
    deaf = std::exchange(socket->mute, false);
    if (deaf) socket->filtered = has_former;
    if (!socket->bound_here && socket->endpoint->local().port_be == 0) {
      leave_stack(socket);
    } else if (!socket->bound_here && !socket->both) {
      socket->both = true;
      follow_sides(socket);
    }
  }
  if (deaf) set_hearing(fd, has_former ? Hearing::ip4 : Hearing::all);
  return stack_alone ? 0 : kServedByKernel;  // the placeholder loses a port that nobody asked for as well
}

void forget_kernel_side(DatagramSocket* socket) noexcept {
  if (!socket->both) return;
  socket->both = false;
  follow_sides(socket);
}

bool goes_by_stack(const DatagramSocket& socket, netstack::Stack* stack, const SocketAddress& to) noexcept {
  if (socket.bound_here) return true;
  if ((socket.v6_only && to.address.is_v4()) || is_kernels_by_rule(socket, to.address)) return false;
  if (to.address.is_multicast()) return sends_to_groups(socket, *stack, to.address);
  if (to.address.is_any() || is_loopback(to.address) || is_for_many(to.address)) return false;
  return stack->routes(to.address);
}

netstack::Stack* stack_for_group(int fd, const netstack::IpAddress& group) noexcept {
  Guard guard;
  const DatagramSocket* const socket = datagram_at(fd);
  netstack::Stack* const stack = guard.stack();
  if (socket == nullptr || stack == nullptr || is_kernels_by_rule(*socket, group)) return nullptr;
  const bool sends = group.is_multicast() ? sends_to_groups(*socket, *stack, group) : socket->bound_here;  // ip_route_output_key_hash_rcu()
  return sends ? stack : nullptr;
}

netstack::Stack* stack_for_datagram(const ParsedAddress& to) noexcept {
  const netstack::IpAddress& address = to.address.address;
  if (!is_stacks_kind(to) || is_for_many(address)) return nullptr;
  if (the_stack() != nullptr) return stack_towards(IPPROTO_UDP, 0, address);
  // The first datagram makes the stack, in a call around which not all is kept.
  const auto make = [](long at) noexcept {
    return reinterpret_cast<long>(stack_towards(IPPROTO_UDP, 0, *reinterpret_cast<const netstack::IpAddress*>(at)));
  };
  const long made = zps_keep_everything(reinterpret_cast<long>(&address), make);
  return reinterpret_cast<netstack::Stack*>(made);
}

}  // namespace shim
