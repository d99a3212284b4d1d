// Which station a packet goes to, by the tables of a namespace of the test's own; and what a checksum that nobody has finished looks like.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/next_hops.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "netstack/wires/kernel/rtnetlink.h"
#include "netstack/wires/kernel/unfinished_checksum.h"
#include "ip_command.h"

namespace {

using netstack_test::ip;
using netstack_test::run;
using netstack::KernelRoutes;
using netstack::NextHops;
using Way = NextHops::Way;

class NextHop : public testing::Test {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    run("link add veth-a type veth peer name veth-a1");
    run("link set veth-a1 up");
    run("link set veth-a up");
    run("address add 198.18.1.2/24 dev veth-a");
    run("address add fd00:1::2/64 dev veth-a nodad");
    run("neighbour add 198.18.1.1 lladdr 02:00:00:00:00:01 dev veth-a nud permanent");
    ASSERT_EQ(0, routes_.open(netstack::link_index("veth-a"), NextHops::kNeighbourGroup));
    ASSERT_EQ(0, hops_->open(routes_));
  }
  void TearDown() override { routes_.close(); }

  // The last byte of the station that `to` is sent to; -1 if it is awaited, -2 if there is none.
  int station(const char* to) {
    const uint8_t* mac = nullptr;
    switch (hops_->to(ip(to), &mac)) {
      case Way::known: return mac[5];
      case Way::awaited: return -1;
      case Way::none: return -2;
    }
    return -3;
  }
  // Changes are told until the station of `to` is `expected`.
  void expect_soon(const char* to, int expected) {
    pollfd one{routes_.changes_fd(), POLLIN, 0};
    while (station(to) != expected) {
      ASSERT_EQ(1, poll(&one, 1, 10'000)) << to << ": " << station(to);
      if (!routes_.take_changes(NextHops::take_message, hops_.get())) continue;
      ASSERT_EQ(0, routes_.read());
      hops_->forget_ways();
    }
  }

  KernelRoutes routes_;
  std::unique_ptr<NextHops> hops_ = std::make_unique<NextHops>();
};

TEST_F(NextHop, NeighboursAreReadAndFollowed) {
  EXPECT_EQ(1, station("198.18.1.1"));
  run("neighbour replace 198.18.1.1 lladdr 02:00:00:00:00:22 dev veth-a nud reachable");
  expect_soon("198.18.1.1", 0x22);
  run("neighbour replace 198.18.1.1 lladdr 02:00:00:00:00:23 dev veth-a nud stale");
  expect_soon("198.18.1.1", 0x23);
  run("neighbour replace fd00:1::1 lladdr 02:00:00:00:00:66 dev veth-a nud permanent");
  expect_soon("fd00:1::1", 0x66);
  run("neighbour delete 198.18.1.1 dev veth-a");
  expect_soon("198.18.1.1", -1);
}

TEST_F(NextHop, TheKernelIsAskedForWhatItDoesNotKnow) {
  ASSERT_EQ(0, system("echo 50 > /proc/sys/net/ipv4/neigh/veth-a/retrans_time_ms"));
  EXPECT_EQ(-1, station("198.18.1.77"));
  FILE* const asked = popen("ip neighbour show 198.18.1.77 dev veth-a", "r");
  char line[200] = "";
  EXPECT_NE(nullptr, fgets(line, sizeof line, asked)) << "it is not being resolved";
  pclose(asked);
  expect_soon("198.18.1.77", -2);  // nobody answers
}

TEST_F(NextHop, RoutersAndPlacesElsewhere) {
  EXPECT_EQ(-2, station("10.1.1.1"));
  EXPECT_EQ(-2, station("198.18.1.2"));
  run("route add 10.0.0.0/8 via 198.18.1.1");
  expect_soon("10.1.1.1", 1);
  run("route add 10.1.0.0/16 via inet6 fd00:1::9");
  run("neighbour add fd00:1::9 lladdr 02:00:00:00:00:09 dev veth-a nud permanent");
  expect_soon("10.1.1.1", 9);
  EXPECT_EQ(1, station("10.2.1.1"));
}

// More than the table holds: what is asked for is found all the same.
TEST_F(NextHop, MoreNeighboursThanThereIsRoomFor) {
  for (int i = 0; i < 1500; i++) (void)station(("fd00:1::1:" + std::to_string(i)).c_str());
  EXPECT_EQ(1, station("198.18.1.1"));
  hops_->read();
  EXPECT_EQ(1, station("198.18.1.1"));
  EXPECT_EQ(0, system("ip neighbour show nud permanent | grep -q ^198.18.1.1")) << "the administrator's entry is another";
}

// A frame without payload, its checksum as the kernel leaves it to a device; `v6` or not.
std::vector<uint8_t> unfinished(bool v6, uint8_t protocol) {
  const size_t header = v6 ? 40 : 20, bytes = protocol == IPPROTO_TCP ? 20 : 8;
  std::vector<uint8_t> frame(14 + header + bytes);
  frame[12] = v6 ? 0x86 : 0x08;
  frame[13] = v6 ? 0xdd : 0x00;
  uint8_t* const packet = &frame[14];
  packet[0] = v6 ? 0x60 : 0x45;
  packet[v6 ? 6 : 9] = protocol;
  packet[v6 ? 5 : 3] = static_cast<uint8_t>(v6 ? bytes : header + bytes);
  const size_t from = v6 ? 8 : 12, count = v6 ? 32 : 8;
  for (size_t i = 0; i < count; i++) packet[from + i] = static_cast<uint8_t>(0xf0 + i);
  uint32_t sum = protocol + static_cast<uint32_t>(bytes);
  for (size_t i = 0; i < count; i += 2) sum += static_cast<uint32_t>(packet[from + i] << 8 | packet[from + i + 1]);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  const size_t at = header + (protocol == IPPROTO_TCP ? 16 : 6);
  packet[at] = static_cast<uint8_t>(sum >> 8);
  packet[at + 1] = static_cast<uint8_t>(sum);
  return frame;
}

TEST(UnfinishedChecksum, IsTheSumOverThePseudoHeader) {
  for (const bool v6 : {false, true}) {
    for (const uint8_t protocol : {uint8_t{IPPROTO_TCP}, uint8_t{IPPROTO_UDP}}) {
      std::vector<uint8_t> frame = unfinished(v6, protocol);
      const auto length = static_cast<uint32_t>(frame.size());
      EXPECT_TRUE(netstack::has_unfinished_checksum(frame.data(), length)) << v6 << " " << int{protocol};
      for (uint32_t cut = 0; cut < length; cut++) {
        const std::vector<uint8_t> begun(frame.begin(), frame.begin() + cut);
        (void)netstack::has_unfinished_checksum(begun.data(), cut);  // reads nothing behind it
      }
      frame[14 + (v6 ? 40 : 20) + (protocol == IPPROTO_TCP ? 17 : 7)] ^= 1;
      EXPECT_FALSE(netstack::has_unfinished_checksum(frame.data(), length));
    }
  }
}

}  // namespace
