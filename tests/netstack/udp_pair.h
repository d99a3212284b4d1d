// Endpoints on a pair of stacks, and datagrams that no stack would send.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "forged_segment.h"
#include "netstack/udp_endpoint.h"
#include "stack_pair.h"

namespace netstack_test {

using netstack::Datagram;
using netstack::SendRequest;
using netstack::UdpEndpoint;
using netstack::UdpError;
using netstack::UdpOption;

// An IPv4 packet with a datagram or a part of one, from the client's address to the server's.
struct ForgedDatagram {
  uint16_t from = 1000, to = 53;
  std::string data = {};
  int length = -1;            // what the UDP header says, if not the truth
  bool checksum = true;       // a right one; else `sum`
  uint16_t sum = 0;
  uint16_t fragment = 0;      // flags and offset
  uint16_t id = 1;
  bool has_header = true;     // false: `data` is all there is behind the IP header
  uint8_t protocol = 17;
  int ip_length = -1;
  uint32_t target_be = inet_addr("198.18.0.2");

  std::vector<uint8_t> frame(const MemoryWire& source, const MemoryWire& target) const {
    const size_t header = has_header ? 8 : 0;
    std::vector<uint8_t> f(14 + 20 + header + data.size());
    const auto put16 = [](uint8_t* at, uint32_t v) { at[0] = static_cast<uint8_t>(v >> 8), at[1] = static_cast<uint8_t>(v); };
    const auto put32 = [&](uint8_t* at, uint32_t v) { put16(at, v >> 16), put16(at + 2, v & 0xffff); };
    memcpy(&f[0], target.facts().mac, 6);
    memcpy(&f[6], source.facts().mac, 6);
    f[12] = 8;
    uint8_t* ip = &f[14];
    ip[0] = 0x45;
    put16(ip + 2, static_cast<uint32_t>(ip_length >= 0 ? ip_length : static_cast<int>(f.size() - 14)));
    put16(ip + 4, id);
    put16(ip + 6, fragment);
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, 0xc612'0001);
    put32(ip + 16, ntohl(target_be));
    put16(ip + 10, sum_of(ip, 20, 0));
    uint8_t* udp = ip + 20;
    if (has_header) {
      put16(udp, from);
      put16(udp + 2, to);
      put16(udp + 4, static_cast<uint32_t>(length >= 0 ? length : static_cast<int>(8 + data.size())));
    }
    memcpy(udp + header, data.data(), data.size());
    const size_t bytes = header + data.size();
    if (has_header)
      put16(udp + 6, checksum ? sum_of(udp, bytes, static_cast<uint16_t>(~sum_of(ip + 12, 8, 17 + static_cast<uint32_t>(bytes)))) : sum);
    return f;
  }
};

class UdpTest : public StackTest {
 protected:
  static void check_endpoints(const netstack::PoolLevels& before, const netstack::PoolLevels& after) {
    EXPECT_EQ(before.endpoints, after.endpoints);
  }
  void TearDown() override {
    for (UdpEndpoint* endpoint : opened_) endpoint->release();
    opened_.clear();
    StackTest::TearDown();
    check_endpoints(client_before_, pair_.client->levels());
    check_endpoints(server_before_, pair_.server->levels());
  }

  UdpEndpoint* open(Stack* on) {
    UdpEndpoint* made = on->make_endpoint();
    EXPECT_NE(nullptr, made);
    opened_.push_back(made);
    return made;
  }
  UdpEndpoint* bound(Stack* on, uint16_t port, const char* ip = "0.0.0.0", netstack::PortSharing sharing = {}) {
    UdpEndpoint* made = open(on);
    EXPECT_EQ(0, made->bind({address(ip, port), sharing})) << port;
    return made;
  }
  void close(UdpEndpoint* endpoint) {
    endpoint->release();
    std::erase(opened_, endpoint);
  }
  static long send_to(UdpEndpoint* from, const SocketAddress& to, const std::string& text) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    SendRequest request;
    request.to = &to;
    return from->send(request, &part, 1);
  }
  static long send_on(UdpEndpoint* from, const std::string& text) {
    iovec part{const_cast<char*>(text.data()), text.size()};
    return from->send({}, &part, 1);
  }
  // What has come, or the error as text.
  static std::string take(UdpEndpoint* at, Datagram* about = nullptr, bool peek = false) {
    static char buffer[65536];
    Datagram unused;
    iovec part{buffer, sizeof buffer};
    const long n = at->receive(&part, 1, peek, about != nullptr ? about : &unused);
    return n >= 0 ? std::string(buffer, static_cast<size_t>(n)) : strerror(static_cast<int>(-n));
  }
  void inject(const ForgedDatagram& datagram) {
    const std::vector<uint8_t> frame = datagram.frame(pair_.client_wire(), pair_.server_wire());
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair_.settle();
  }

  std::vector<UdpEndpoint*> opened_;
};

}  // namespace netstack_test
