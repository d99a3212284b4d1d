// Groups in a differential test, by the one interface that there is between the two sides.
// SPDX-License-Identifier: BSD-3-Clause
//
// A test names IPv4's group, and the run's family makes IPv6's of it. The interface is the device where the kernel has one, and on the
// stack the loopback's (docs/differences.md, udp-interface) or its address.
#pragma once

#include <net/if.h>

#include "tests/lib/family.h"

namespace testing_lib {

inline unsigned interface_to_the_other() {
  for (const char* device : {"zps0p", "zps0"}) {
    if (const unsigned index = if_nametoindex(device)) return strcmp(getenv("ZPS_TEST_HOOKED"), "0") == 0 ? index : 1;
  }
  return 1;
}

inline in_addr own_address() {
  in_addr made{};
  (void)inet_pton(AF_INET, getenv("ZPS_TEST_OWN"), &made);
  return made;
}

// IP_ADD_MEMBERSHIP or IP_DROP_MEMBERSHIP, or those of IPv6.
inline int change_membership(int fd, const sockaddr_in& group, bool joins) {
  const Name name = in_family(group);
  if (family() != Family::ip6) {
    const ip_mreq request{group.sin_addr, own_address()};
    return setsockopt(fd, IPPROTO_IP, joins ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP, &request, sizeof request);
  }
  const ipv6_mreq request{name.address.sin6_addr, interface_to_the_other()};
  return setsockopt(fd, IPPROTO_IPV6, joins ? IPV6_ADD_MEMBERSHIP : IPV6_DROP_MEMBERSHIP, &request, sizeof request);
}

// What this socket sends to groups goes to the other side.
inline int send_by_interface(int fd) {
  if (family() != Family::ip6) {
    const in_addr own = own_address();
    return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &own, sizeof own);
  }
  const auto index = static_cast<int>(interface_to_the_other());
  return setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index);
}

}  // namespace testing_lib
