// sockaddr_in and sockaddr_in6, with v4-mapped addresses.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/address.h"

#include <netinet/in.h>

#include <cerrno>
#include <cstring>

#include "shim/files/routing.h"
#include "shim/files/user_memory.h"

namespace shim {
namespace {

void parse_ipv4(const sockaddr_in& in, ParsedAddress* out) noexcept {
  out->known = true;
  out->wildcard = in.sin_addr.s_addr == INADDR_ANY;
  out->address = {in.sin_addr.s_addr, in.sin_port};
}

void parse_ipv6(const sockaddr_in6& in, ParsedAddress* out) noexcept {
  out->known = true;
  memcpy(out->address.address.words_be, &in.sin6_addr, sizeof in.sin6_addr);
  out->address.port_be = in.sin6_port;
  out->wildcard = out->address.address.is_any();
  if (!out->address.address.is_link_local()) [[likely]] return;
  out->scope = in.sin6_scope_id;
  out->elsewhere = !is_wires_scope(in.sin6_scope_id);
}

}  // namespace

long parse_address(int domain, const void* user, size_t bytes, ParsedAddress* out) noexcept {
  sockaddr_in6 raw{};
  constexpr size_t kWithoutScope = 24;  // SIN6_LEN_RFC2133
  if (bytes < sizeof(sockaddr_in)) return 0;
  if (long error = copy_in(&raw, user, bytes < sizeof raw ? bytes : sizeof raw); error != 0) return error;
  if (domain == AF_INET && raw.sin6_family == AF_INET) {
    sockaddr_in in;
    memcpy(&in, &raw, sizeof in);
    parse_ipv4(in, out);
  } else if (domain == AF_INET6 && raw.sin6_family == AF_INET6 && bytes >= kWithoutScope) {
    parse_ipv6(raw, out);
  }
  return 0;
}

socklen_t make_address(int domain, const netstack::SocketAddress& address, void* out) noexcept {
  if (domain == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = address.port_be;
    in.sin_addr.s_addr = address.address.v4_be();
    memcpy(out, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = address.port_be;
  if (!address.address.is_any()) memcpy(&in6.sin6_addr, &address.address, sizeof in6.sin6_addr);
  if (address.address.is_link_local()) [[unlikely]] in6.sin6_scope_id = wires_scope();
  memcpy(out, &in6, sizeof in6);
  return sizeof in6;
}

long write_address(int domain, const netstack::SocketAddress& address, void* user, socklen_t* user_bytes) noexcept {
  socklen_t room = 0;
  if (long error = copy_in(&room, user_bytes, sizeof room); error != 0) return error;
  if (static_cast<int>(room) < 0) return -EINVAL;
  sockaddr_in6 raw;
  const socklen_t full = make_address(domain, address, &raw);
  if (long error = copy_out(user, &raw, room < full ? room : full); error != 0) return error;
  return copy_out(user_bytes, &full, sizeof full);
}

}  // namespace shim
