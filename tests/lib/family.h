// The address family that a run's connections are of: a test that says IPv4 addresses runs over IPv6 as well.
// SPDX-License-Identifier: BSD-3-Clause
//
// ZPS_TEST_FAMILY: ip4 (or nothing); ip6; mapped (sockets of AF_INET6 with v4-mapped addresses). The two sides have an address of each
// family (ZPS_TEST_SELF, ZPS_TEST_SELF6, ZPS_TEST_PEER, ZPS_TEST_PEER6). A test names the IPv4 ones, and what is made here of them is what
// the sockets get; what the sockets say is turned back.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

namespace testing_lib {

enum class Family { ip4, ip6, mapped };

inline Family family() {
  const char* const name = getenv("ZPS_TEST_FAMILY");
  if (name == nullptr) return Family::ip4;
  return strcmp(name, "ip6") == 0 ? Family::ip6 : strcmp(name, "mapped") == 0 ? Family::mapped : Family::ip4;
}
inline int domain() { return family() == Family::ip4 ? AF_INET : AF_INET6; }

struct Name {
  sockaddr_in6 address{};
  socklen_t bytes = 0;
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

// The same place, or group, in both families.
struct End {
  const char *ip4, *ip6;
};
inline End end_at(int which) {
  if (which == 0) return {getenv("ZPS_TEST_SELF"), getenv("ZPS_TEST_SELF6")};
  if (which == 1) return {getenv("ZPS_TEST_PEER"), getenv("ZPS_TEST_PEER6")};
  return which == 2 ? End{"127.0.0.1", "::1"} : End{"239.1.2.3", "ff15::1:2:3"};
}
constexpr int kEnds = 4;

// `name` as a socket of AF_INET6 is given it to go by IPv4.
inline Name mapped(const sockaddr_in& name) {
  Name made;
  made.bytes = sizeof made.address;
  made.address.sin6_family = AF_INET6;
  made.address.sin6_port = name.sin_port;
  made.address.sin6_addr.s6_addr32[2] = htonl(0xffff);
  made.address.sin6_addr.s6_addr32[3] = name.sin_addr.s_addr;
  return made;
}

// `name` as a socket of the run's family is given it.
inline Name in_family(const sockaddr_in& name) {
  Name made;
  made.bytes = sizeof name;
  memcpy(&made.address, &name, sizeof name);
  if (family() == Family::ip4) return made;
  if (name.sin_addr.s_addr != INADDR_ANY && family() == Family::mapped) return mapped(name);
  made = {};
  made.bytes = sizeof made.address;
  made.address.sin6_family = AF_INET6;
  made.address.sin6_port = name.sin_port;
  if (name.sin_addr.s_addr == INADDR_ANY) return made;
  for (int i = 0; i < kEnds; i++) {
    const End end = end_at(i);
    in_addr ip4{};
    const bool is_it = end.ip4 != nullptr && inet_pton(AF_INET, end.ip4, &ip4) == 1 && ip4.s_addr == name.sin_addr.s_addr;
    if (is_it && inet_pton(AF_INET6, end.ip6, &made.address.sin6_addr) == 1) return made;
  }
  return mapped(name);
}

// And back.
inline sockaddr_in from_family(const sockaddr_in6& name) {
  sockaddr_in made{};
  memcpy(&made, &name, sizeof made);
  if (name.sin6_family != AF_INET6) return made;
  made = {};
  made.sin_family = AF_INET;
  made.sin_port = name.sin6_port;
  if (IN6_IS_ADDR_V4MAPPED(&name.sin6_addr)) made.sin_addr.s_addr = name.sin6_addr.s6_addr32[3];
  for (int i = 0; i < kEnds; i++) {
    const End end = end_at(i);
    in6_addr ip6{};
    const bool is_it = end.ip6 != nullptr && inet_pton(AF_INET6, end.ip6, &ip6) == 1 && memcmp(&ip6, &name.sin6_addr, sizeof ip6) == 0;
    if (is_it) (void)inet_pton(AF_INET, end.ip4, &made.sin_addr);
  }
  return made;
}

}  // namespace testing_lib
