// What lwIP's IP layers call in place of its ICMP: the protocols hear first what is said of their packets.
// SPDX-License-Identifier: BSD-3-Clause
//
// What is about nothing of ours goes on to lwIP, which answers echo requests and drops the rest.
#include "lwip/icmp.h"
#include "lwip/icmp6.h"
#include "netstack/tcp/tcp.h"
#include "netstack/tcp/tcp_reports.h"
#include "netstack/udp/udp.h"

using netstack::the_tcp;
using netstack::the_udp;

extern "C" {

// ip4.c calls this in place of icmp_input().
void zps_icmp_input(pbuf* p, netif* interface) {
  if (!the_udp->icmp_input(p, *interface) && !netstack::report_segment_v4(*the_tcp, p, *interface)) icmp_input(p, interface);
}

// And ip6.c this in place of icmp6_input().
void zps_icmp6_input(pbuf* p, netif* interface) {
  if (!the_udp->icmp6_input(p, *interface) && !netstack::report_segment_v6(*the_tcp, p, *interface)) icmp6_input(p, interface);
}

}  // extern "C"
