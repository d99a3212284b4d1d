// The little of rtnetlink and ethtool that making a link needs: one request, one answer, no `ip` command.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "netstack/socket_address.h"

struct nlmsghdr;

namespace netstack {

struct VethRequest {
  const char* name;           // of the end in the socket's namespace
  const char* peer_name;
  int peer_namespace_fd;      // -1: the socket's own
  const uint8_t* peer_mac;    // 6 bytes
  uint32_t mtu;               // of both ends
};

class RtNetlink {
 public:
  // Opens a socket in the calling thread's network namespace.
  RtNetlink() noexcept;
  ~RtNetlink();
  RtNetlink(const RtNetlink&) = delete;
  RtNetlink& operator=(const RtNetlink&) = delete;

  // All of these: 0 or the kernel's negative errno.
  [[nodiscard]] long make_veth(const VethRequest& request) noexcept;
  [[nodiscard]] long remove_link(const char* name) noexcept;
  [[nodiscard]] long set_up(const char* name, const uint8_t* mac = nullptr, uint32_t mtu = 0) noexcept;
  [[nodiscard]] long add_address(const char* name, uint32_t address_be, uint8_t prefix) noexcept;
  // Usable at once: nobody else on the link has it.
  [[nodiscard]] long add_address(const char* name, const IpNetwork& address) noexcept;

 private:
  [[nodiscard]] long add_address(const char* name, int family, const void* address, size_t bytes, uint8_t prefix) noexcept;
  [[nodiscard]] long exchange(void* request) noexcept;

  int fd_;
};

// Sends a request for all that the kernel has of a kind (RTM_GETADDR, RTM_GETROUTE ...) to a socket of NETLINK_ROUTE, and calls visit() for
// each message of the answer. 0 or a negative errno; -EAGAIN if it changed meanwhile. What an earlier request has left unread is passed
// over.
using NetlinkVisit = void (*)(void* context, const nlmsghdr& message);
[[nodiscard]] long dump_rtnetlink(int fd, uint16_t type, uint8_t family, NetlinkVisit visit, void* context) noexcept;
// A socket of NETLINK_ROUTE in the calling thread's network namespace that is told of these groups (RTMGRP_): out of the program's sight,
// or a negative errno. It never blocks.
[[nodiscard]] int open_rtnetlink(uint32_t groups) noexcept;

// The index of a link in the calling thread's namespace, or a negative errno.
[[nodiscard]] int link_index(const char* name) noexcept;
// Writes its name into `out` (IFNAMSIZ bytes). 0 or a negative errno.
[[nodiscard]] long link_name(int index, char* out) noexcept;
// True if there is such a link and it is one end of a veth pair.
[[nodiscard]] bool is_veth(const char* name) noexcept;
[[nodiscard]] long link_mac(const char* name, uint8_t* mac) noexcept;
[[nodiscard]] int link_mtu(const char* name) noexcept;
// Its hardware type (ARPHRD_ETHER ...) or a negative errno.
[[nodiscard]] int link_type(const char* name) noexcept;
// IFF_UP, IFF_LOOPBACK ...
[[nodiscard]] int link_flags(const char* name) noexcept;

// Switches off what the kernel leaves to a network card: transmit checksums, TSO, GSO, GRO. What a link does not have is no error.
void switch_offloads_off(const char* name) noexcept;

}  // namespace netstack
