// Neighbour discovery (RFC 4861) around lwIP's: which messages it gets to see, and how much may wait for an answer.
// SPDX-License-Identifier: BSD-3-Clause
//
// What is at the other end of a link is not to be trusted with more than its own address:
//  1 Redirects are refused, and router advertisements but where the settings ask for them (autoconfiguration.h).
//  2 "Packet too big" is for the protocols to judge, who know what was sent (path_mtus.h): lwIP believes everybody.
//  3 A solicitation is answered to where it came from. lwIP takes every source of one into its table, so a flood of forged ones would push
//    the neighbours of connections out; here a source is learnt only while half of the table is free.
//  4 Messages that came in fragments are dropped (RFC 6980).
//  5 Of packets that wait for a neighbour's answer the oldest go when there are more than IPv4's table would hold (ARP_QUEUE_LEN). lwIP
//    holds as many as there is memory for.
//  6 Errors are few, whoever asks for them (RFC 4443, 2.4 f).
#pragma once

#include <cstdint>

#include "lwip/netif.h"
#include "lwip/ip6_addr.h"

namespace netstack {

// Whether the neighbour's hardware address is known.
[[nodiscard]] bool knows_neighbour_v6(const ip6_addr_t& hop) noexcept;
// Its hardware address, as nd6_get_next_hop_addr_or_queue() has it: one that has not been heard of for a while will be asked. nullptr: not
// known. `hint`: which entry it was the last time.
[[nodiscard]] const uint8_t* station_of_neighbour_v6(const ip6_addr_t& hop, uint8_t* hint) noexcept;
// Has lwIP ask for the way to `to`. False if there was no room.
[[nodiscard]] bool ask_neighbour_v6(netif& interface, const ip6_addr_t& to) noexcept;
// What lwIP remembers of the path to a destination, if it does.
void set_destination_mtu_v6(const ip6_addr_t& to, uint16_t mtu) noexcept;
// A packet in a frame to this station.
[[nodiscard]] err_t send_to_station(const uint8_t* mac, netif* interface, pbuf* p, uint16_t type) noexcept;
// netif->output_ip6.
[[nodiscard]] err_t send_packet_v6(netif* interface, pbuf* p, const ip6_addr_t* to) noexcept;

}  // namespace netstack
