// What the tester leaves out because it is known to differ: each entry names its row of docs/differences.md, and the trace shows where it
// was met.
// SPDX-License-Identifier: BSD-3-Clause
//
// Socket options have entries of their own in the table of options (operation.cc).
#pragma once

namespace random_sequences {

constexpr char kSourceAddress[] = "source-address";  // connect() across the sides from a bound address
constexpr char kGoneToKernel[] =
    "gone-to-kernel";  // bind(), listen() and connect() to the stack's side after the kernel's, or the other way round
constexpr char kAcceptOrder[] = "accept-order";      // both sides' connections in one accept queue
constexpr char kDeadBind[] = "dead-bind";            // bind() on a connection that has ended

constexpr char kInheritedLate[] = "inherited-late";    // a listener's options between a handshake and its accept()

constexpr char kDatagramOrder[] = "udp-order";     // both sides' datagrams in one queue
constexpr char kDatagramTurn[] = "udp-turn";       // connect() to the kernel's side with something in the queue

constexpr char kDatagramEdges[] = "udp-edges";  // each datagram that leaves (generator.cc)

constexpr char kDeaf[] = "udp-deaf";  // what is sent by the loopback to the port of one that is connected

constexpr const char* kExclusions[] = {kSourceAddress, kGoneToKernel, kAcceptOrder,   kDeadBind, kInheritedLate, kDatagramOrder,
                                       kDatagramTurn, kDatagramEdges, kDeaf};

}  // namespace random_sequences
