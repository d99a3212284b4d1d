// The programs by which the kernel shares an interface and its addresses with a stack: which frames are whose.
// SPDX-License-Identifier: BSD-3-Clause
//
// The problem. The kernel has one owner for all that comes to an address: itself. A stack beside it on the same address would see every
// frame (a packet socket is given copies), and the kernel would answer each segment of the stack's connections with a reset.
//
// How. Two programs of the traffic control (tcx), each linked to an interface for as long as a member of the family lives:
//   on the host's interface  takes what is for a port that the stack has out of the kernel's way and puts it into the stack's end of a veth
//                            pair (bpf_redirect_peer(): no queue between). All else goes on untouched, to other programs that are linked
//                            behind it as well (TCX_NEXT).
//   on the pair's other end  sends what comes from a port of the stack out by the host's interface, to the next hop and the station that
//                            the kernel's tables name (bpf_redirect_neigh()), and drops all else: a stack can speak for its ports alone.
// Offloads stay what they are: segments of 64 KB and unfinished checksums cross in both directions.
//
// Whose is a frame: PortSteering says for each port whether the stack has it, and whether it wants beginnings of connections there. The
// kernel cannot give the port to anybody else meanwhile, because a socket of the program holds it there. But it may have had connections
// at the port before, and may get some when the stack's last listener at a port is gone and its connections go on. So a segment that does
// not begin a connection is looked up in the kernel's own table: where it knows the connection the segment is its. (Rejected: a table of
// the stack's connections. It takes system calls for each connection, the kernel's is there.)
//
// A report that a datagram of the stack's did not arrive, or that a packet of IPv6 was too long for its path, is the stack's as well. All
// others are the kernel's.
//
// Datagrams in fragments are the kernel's to put together, which gives them to the socket that holds the port; the later fragments name no
// port. What of TCP comes in fragments is lost: no host sends it (RFC 9293, 3.7.1 with path MTU discovery), and the kernel would reset the
// connection.
//
// Sources: net/core/filter.c and kernel/bpf/tcx.c of Linux; docs/decisions/host-wire.md has the figures.
#pragma once

#include "netstack/port_steering.h"

namespace netstack {

// Where the frames go. Indices of interfaces in the host's network namespace.
struct SteeringPath {
  int interface;    // the host's
  int pair;         // the host's end of the pair
  int stack_end;    // the stack's, or -1 if that is in another namespace
};

// Out of the program's sight; `board` is to be mapped (map_steering()), and stays open for the program that a member executes.
struct SteeringFds {
  int board = -1;
  int ingress = -1, egress = -1;  // links: as long as they are open anywhere the programs run
};

// Links both programs, in the calling thread's network namespace. 0 or a negative errno; *what is what the kernel refused.
[[nodiscard]] long link_steering(const SteeringPath& path, SteeringFds* out, const char** what) noexcept;
// The third program, for a stack that has sockets of AF_XDP at the interface: it puts what the first would take into the socket of the
// queue that it came by, and passes on all else. What the stack sends goes past the kernel.
struct XdpSteering {
  int interface;
  uint32_t flags;  // XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE
  int sockets;     // a BPF_MAP_TYPE_XSKMAP, by number of the queue
};
// The same, but for out->egress. -EBUSY if another program is linked there.
[[nodiscard]] long link_xdp_steering(const XdpSteering& at, SteeringFds* out, const char** what) noexcept;
void close_steering(const SteeringFds& fds) noexcept;
// Has what comes to an interface be dropped behind its packet sockets. A link, or a negative errno.
[[nodiscard]] int link_drop(int interface) noexcept;
// The board in memory that the family shares, or nullptr.
[[nodiscard]] PortSteering* map_steering(int board) noexcept;

}  // namespace netstack
