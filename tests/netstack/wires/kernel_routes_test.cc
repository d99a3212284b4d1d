// What the kernel's tables say of an interface, read in a namespace of the test's own, and read again when they change.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/kernel_routes.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>

#include <cstdlib>
#include <string>

#include "netstack/wires/kernel/rtnetlink.h"
#include "ip_command.h"

namespace {

using netstack_test::ip;
using netstack_test::run;
using netstack::KernelRoutes;

class Routes : public testing::Test {
 protected:
  void SetUp() override {
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    run("link set lo up");
    for (const char* each : {"veth-a", "veth-b"}) {
      run(std::string("link add ") + each + " type veth peer name " + each + "1");
      run(std::string("link set ") + each + "1 up");
      run(std::string("link set ") + each + " up");
    }
    run("address add 198.18.1.2/24 dev veth-a");
    run("address add 198.18.1.9/24 dev veth-a");
    run("address add 198.18.2.2/24 dev veth-b");
    run("address add fd00:1::2/64 dev veth-a nodad");
    ASSERT_EQ(0, routes_.open(netstack::link_index("veth-a")));
  }
  void TearDown() override { routes_.close(); }

  bool leads(const char* to) { return routes_.lead_to(ip(to)); }
  // The next change is told, and read.
  void follow() {
    pollfd one{routes_.changes_fd(), POLLIN, 0};
    ASSERT_EQ(1, poll(&one, 1, 10'000));
    ASSERT_TRUE(routes_.take_changes(nullptr, nullptr));
    ASSERT_EQ(0, routes_.read());
  }

  KernelRoutes routes_;
};

TEST_F(Routes, OwnNetworksAndNoOthers) {
  EXPECT_TRUE(leads("198.18.1.77"));
  EXPECT_TRUE(leads("fd00:1::77"));
  for (const char* other : {"198.18.2.77", "10.1.1.1", "127.0.0.1", "fd00:2::1", "::1"}) EXPECT_FALSE(leads(other)) << other;
  for (const char* own : {"198.18.1.2", "198.18.1.9", "198.18.2.2", "198.18.1.255", "fd00:1::2"}) EXPECT_FALSE(leads(own)) << own;
  for (const char* never : {"0.0.0.0", "::", "224.0.0.1", "ff02::1", "fe80::1"}) EXPECT_FALSE(leads(never)) << never;
}

TEST_F(Routes, TheLongestPrefixAndTheLeastMetric) {
  run("route add default via 198.18.1.1 metric 50");
  run("route add default via 198.18.2.1 metric 60");
  run("route add 10.0.0.0/8 via 198.18.2.1");
  run("route add 10.1.0.0/16 via 198.18.1.1");
  run("route add 10.1.2.0/24 via 198.18.2.1");
  run("route add blackhole 10.1.2.7/32");
  run("route add 10.9.0.0/16 nexthop via 198.18.1.1 nexthop via 198.18.2.1");
  run("-6 route add default via fd00:1::1");
  follow();
  for (const char* here : {"1.1.1.1", "10.1.1.1", "2001:db8::1"}) EXPECT_TRUE(leads(here)) << here;
  for (const char* other : {"10.2.1.1", "10.1.2.1", "10.1.2.7", "10.9.1.1"}) EXPECT_FALSE(leads(other)) << other;
  EXPECT_EQ(netstack::link_index("veth-a"), netstack::default_interface());
  run("route delete default via 198.18.1.1");
  follow();
  EXPECT_FALSE(leads("1.1.1.1"));
  EXPECT_EQ(netstack::link_index("veth-b"), netstack::default_interface());
}

TEST_F(Routes, AddressesAndTheMtu) {
  EXPECT_EQ(ip("198.18.1.2"), routes_.address(0).address);
  EXPECT_EQ(24, routes_.address(0).prefix);
  EXPECT_EQ(ip("198.18.1.9"), routes_.address(ip("198.18.1.9").v4_be()).address);
  EXPECT_EQ(ip("198.18.1.2"), routes_.address(ip("198.18.2.2").v4_be()).address) << "another interface's";
  netstack::IpNetwork own6[netstack::kMostIp6Addresses];
  routes_.addresses6(own6);
  EXPECT_EQ(ip("fd00:1::2"), own6[0].address);
  EXPECT_EQ(0, own6[1].prefix) << "the link-local one is not told";
  EXPECT_EQ(1500u, routes_.mtu());
  run("link set veth-a mtu 1400");
  follow();
  EXPECT_EQ(1400u, routes_.mtu());
  run("address flush dev veth-a");
  follow();
  EXPECT_EQ(0, routes_.address(0).prefix);
  EXPECT_FALSE(leads("198.18.1.77"));
}

// The message about it is longer than others are.
TEST_F(Routes, ARouteByManyRouters) {
  for (int begin = 1001; begin <= 1401; begin += 100) {
    std::string route = begin == 1001 ? "-6 route add 2001:db8::/32" : "-6 route append 2001:db8::/32";
    for (int i = begin; i < begin + 100; i++) route += " nexthop via fd00:1::" + std::to_string(i) + " dev veth-a";
    run(route);
    follow();
    EXPECT_TRUE(leads("2001:db8::1")) << begin;
  }
}

TEST_F(Routes, MoreThanThereIsRoomFor) {
  FILE* const batch = popen("ip -batch -", "w");
  ASSERT_NE(nullptr, batch);
  for (int i = 0; i < 600; i++) fprintf(batch, "route add 10.%d.%d.0/24 via 198.18.1.1\n", i / 256, i % 256);
  ASSERT_EQ(0, pclose(batch));
  follow();
  EXPECT_TRUE(leads("198.18.1.77")) << "on the link";
  EXPECT_TRUE(leads("fd00:1::77"));
  EXPECT_FALSE(leads("198.18.1.2"));
  EXPECT_FALSE(leads("10.0.1.1"));
}

}  // namespace
