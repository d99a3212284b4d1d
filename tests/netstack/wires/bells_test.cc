// Bells: each frame rings one bell, that of the thread which it is for, once, and when it lies in the ring.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <array>
#include <fstream>
#include <string>
#include <thread>

#include "wire_fixture.h"

namespace {

using namespace wires;
using netstack::SocketAddress;
using netstack::WakeBells;

constexpr uint8_t kAck = 0x10, kSyn = 0x02;

struct Flow {
  SocketAddress local, peer;
};

Flow flow_v4(uint16_t peer_port) { return {{inet_addr("198.18.0.2"), htons(80)}, {inet_addr("198.18.0.1"), htons(peer_port)}}; }
Flow flow_v6(uint16_t peer_port) {
  Flow flow;
  EXPECT_EQ(inet_pton(AF_INET6, "fdc6:1200::2", &flow.local.address), 1);
  EXPECT_EQ(inet_pton(AF_INET6, "fdc6:1200::1", &flow.peer.address), 1);
  flow.local.port_be = htons(80);
  flow.peer.port_be = htons(peer_port);
  return flow;
}

// An Ethernet frame of a flow: headers only.
std::vector<uint8_t> frame_of(const Flow& flow, uint8_t protocol, uint8_t flags, uint16_t fragment = 0) {
  const bool v4 = flow.local.address.is_v4();
  const size_t ip = ETH_HLEN, transport = ip + (v4 ? 20 : 40);
  std::vector<uint8_t> frame(transport + 20);
  frame[0] = frame[6] = 2;
  frame[12] = v4 ? 0x08 : 0x86;
  frame[13] = v4 ? 0x00 : 0xdd;
  if (v4) {
    frame[ip] = 0x45;
    frame[ip + 3] = 40;
    frame[ip + 6] = static_cast<uint8_t>(fragment >> 8);
    frame[ip + 7] = static_cast<uint8_t>(fragment);
    frame[ip + 8] = 64;
    frame[ip + 9] = protocol;
    memcpy(&frame[ip + 12], &flow.peer.address.words_be[3], 4);
    memcpy(&frame[ip + 16], &flow.local.address.words_be[3], 4);
  } else {
    frame[ip] = 0x60;
    frame[ip + 5] = 20;
    frame[ip + 6] = protocol;
    frame[ip + 7] = 64;
    memcpy(&frame[ip + 8], &flow.peer.address, 16);
    memcpy(&frame[ip + 24], &flow.local.address, 16);
  }
  memcpy(&frame[transport], &flow.peer.port_be, 2);
  memcpy(&frame[transport + 2], &flow.local.port_be, 2);
  frame[transport + 12] = 0x50;
  frame[transport + 13] = flags;
  return frame;
}

// On a link of the wire's own, and on one that somebody else takes frames from.
enum class On { own_link, port_of_bridge };

class Bells : public testing::TestWithParam<On> {
 protected:
  static constexpr int kFirst = 1, kSecond = 2;

  void SetUp() override {
    if (!enter_own_network()) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    // Whoever else sends (neighbour discovery, reports of groups) rings too.
    for (const char* which : {"all", "default"}) {
      std::ofstream(std::string("/proc/sys/net/ipv6/conf/") + which + "/disable_ipv6") << 1;
    }
    netstack::StackConfig config;
    const char* peer = "zps0";
    if (GetParam() == On::port_of_bridge) {
      ASSERT_EQ(system("ip link add left type veth peer name right && ip link add between type bridge && "
                       "ip link set right master between && ip link set left up && ip link set right up && ip link set between up"),
                0);
      config.wire = "af_packet:right";
      config.address_be = inet_addr("198.19.0.2");
      peer = "left";
    }
    opened_ = open_wire(config);
    ASSERT_NE(opened_.wire, nullptr) << opened_.error.text;
    bells_ = &opened_.wire->bells();
    ASSERT_TRUE(bells_->exist());
    ASSERT_TRUE(opened_.wire->hang_bells());
    for (const int bell : {kFirst, kSecond}) {
      void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, bells_->fd(bell), 0);
      ASSERT_NE(page, MAP_FAILED);
      pages_[static_cast<size_t>(bell)] = static_cast<WakeBells::Page*>(page);
    }
    pages_[WakeBells::kCommon] = bells_->common_page();
    sender_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    to_.sll_family = AF_PACKET;
    to_.sll_ifindex = static_cast<int>(if_nametoindex(peer));
    ASSERT_GE(sender_, 0);
    ASSERT_GT(to_.sll_ifindex, 0);
    while (receive() > 0) {
    }
  }
  void TearDown() override {
    if (sender_ >= 0) close(sender_);
  }

  void arm(int bell) { bells_->arm(bell, pages_[static_cast<size_t>(bell)]); }
  void arm_all() {
    for (const int bell : {WakeBells::kCommon, kFirst, kSecond}) arm(bell);
  }
  void send(const std::vector<uint8_t>& frame) {
    ASSERT_EQ(sendto(sender_, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&to_), sizeof to_),
              static_cast<ssize_t>(frame.size()));
  }
  int receive() {
    RxFrame frames[netstack::kBurst];
    const int count = opened_.wire->receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) opened_.wire->release(frames[i].handle);
    return count;
  }
  [[nodiscard]] bool is_readable(int bell) const {
    pollfd sleeper{bells_->fd(bell), POLLIN, 0};
    return poll(&sleeper, 1, 0) == 1;
  }
  // Which of the armed bells a frame has rung, as their sum of 1 << bell; it lies in the ring by then.
  int rung_by(const std::vector<uint8_t>& frame) {
    arm_all();
    send(frame);
    pollfd sleepers[3];
    for (int bell = 0; bell < 3; bell++) sleepers[bell] = {bells_->fd(bell), POLLIN, 0};
    EXPECT_GT(poll(sleepers, 3, 10000), 0);
    EXPECT_EQ(receive(), 1);
    int rung = 0;
    for (int bell = 0; bell < 3; bell++) {
      EXPECT_EQ(is_readable(bell), bells_->has_rung(bell)) << bell;
      if (is_readable(bell)) rung |= 1 << bell;
    }
    return rung;
  }

  Opened opened_;
  const WakeBells* bells_ = nullptr;
  std::array<WakeBells::Page*, 3> pages_{};
  int sender_ = -1;
  sockaddr_ll to_{};
};

TEST_P(Bells, RingForEveryProtocol) {
  auto frame = frame_of(flow_v4(1000), IPPROTO_UDP, 0);
  frame[12] = ETH_P_ARP >> 8;
  frame[13] = ETH_P_ARP & 0xff;
  EXPECT_EQ(rung_by(frame), 1 << WakeBells::kCommon);
  EXPECT_TRUE(opened_.wire->hang_bells()) << "once more";
  EXPECT_EQ(rung_by(frame), 1 << WakeBells::kCommon);
}

TEST_P(Bells, RingForTheOwnerOfAFlowAlone) {
  for (const Flow& flow : {flow_v4(1000), flow_v6(1000)}) {
    const auto frame = frame_of(flow, IPPROTO_TCP, kAck);
    EXPECT_EQ(rung_by(frame), 1 << WakeBells::kCommon);
    bells_->bring_home(flow.local, flow.peer, kFirst);
    EXPECT_EQ(rung_by(frame), 1 << kFirst);
    bells_->bring_home(flow.local, flow.peer, kSecond);
    EXPECT_EQ(rung_by(frame), 1 << kSecond);
    bells_->leave_home(flow.local, flow.peer, kFirst);
    EXPECT_EQ(rung_by(frame), 1 << kSecond);
    bells_->leave_home(flow.local, flow.peer, kSecond);
    EXPECT_EQ(rung_by(frame), 1 << WakeBells::kCommon);
  }
}

TEST_P(Bells, OtherFlowsAreEverybodys) {
  const Flow v4 = flow_v4(1000), v6 = flow_v6(1000);
  for (const Flow& flow : {v4, v6}) {
    bells_->bring_home(flow.local, flow.peer, kFirst);
    EXPECT_EQ(rung_by(frame_of(flow, IPPROTO_TCP, kSyn)), 1 << WakeBells::kCommon) << "a SYN";
    EXPECT_EQ(rung_by(frame_of(flow, IPPROTO_TCP, kSyn | kAck)), 1 << kFirst);
    EXPECT_EQ(rung_by(frame_of(flow, IPPROTO_UDP, kAck)), 1 << WakeBells::kCommon) << "UDP";
  }
  EXPECT_EQ(rung_by(frame_of(v4, IPPROTO_TCP, kAck, 0x2000)), 1 << WakeBells::kCommon) << "a first fragment";
  EXPECT_EQ(rung_by(frame_of(v4, IPPROTO_TCP, kAck, 0x0010)), 1 << WakeBells::kCommon) << "a fragment";
  EXPECT_EQ(rung_by(frame_of(v4, IPPROTO_TCP, kAck, 0x4000)), 1 << kFirst) << "do not fragment";
  auto with_options = frame_of(v4, IPPROTO_TCP, kAck);
  with_options[ETH_HLEN] = 0x46;
  EXPECT_EQ(rung_by(with_options), 1 << WakeBells::kCommon);
}

TEST_P(Bells, RingOnce) {
  const Flow flow = flow_v4(1000);
  bells_->bring_home(flow.local, flow.peer, kFirst);
  const auto frame = frame_of(flow, IPPROTO_TCP, kAck);
  EXPECT_EQ(rung_by(frame), 1 << kFirst);
  const uint64_t rings = bells_->rings(kFirst);
  for (int i = 0; i < 100; i++) send(frame);
  int received = 0;
  ASSERT_TRUE(until([&] { return (received += receive()) == 100; }));
  EXPECT_EQ(bells_->rings(kFirst), rings);
  EXPECT_TRUE(is_readable(kFirst)) << "it has been told and not been heard";
  arm(kFirst);
  EXPECT_FALSE(is_readable(kFirst));
  EXPECT_FALSE(bells_->has_rung(kFirst));
}

TEST_P(Bells, AnOwnerWhoDoesNotLookIsRepresented) {
  const Flow flow = flow_v4(1000), other = flow_v4(1001);
  const auto frame = frame_of(flow, IPPROTO_TCP, kAck);
  bells_->bring_home(flow.local, flow.peer, kFirst);
  bells_->bring_home(other.local, other.peer, kSecond);
  const auto awaits = [&](int bell) {
    pollfd sleeper{bells_->fd(bell), POLLIN, 0};
    return poll(&sleeper, 1, 10000) == 1 && until([&] { return receive() > 0; });
  };
  // One processor serves frames in turn.
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);

  bells_->note_look(kFirst, base::monotonic_ns() + 3'600'000'000'000u);
  arm(WakeBells::kCommon);
  arm(kSecond);
  send(frame);
  send(frame_of(other, IPPROTO_TCP, kAck));
  EXPECT_TRUE(awaits(kSecond));
  EXPECT_FALSE(is_readable(WakeBells::kCommon)) << "it looks";

  bells_->vacate(kFirst);
  send(frame);
  EXPECT_TRUE(awaits(WakeBells::kCommon)) << "nobody's";

  arm(WakeBells::kCommon);
  arm(kFirst);
  send(frame);
  EXPECT_TRUE(awaits(kFirst));
  EXPECT_FALSE(is_readable(WakeBells::kCommon));
  const uint64_t late_ns = base::monotonic_ns() + 2 * WakeBells::kLateNs;
  ASSERT_TRUE(until([&] { return base::monotonic_ns() > late_ns; }));
  send(frame);
  EXPECT_TRUE(awaits(WakeBells::kCommon)) << "woken, and has not looked";
}

TEST_P(Bells, NoFrameFindsASleeperAsleep) {
  constexpr int kFrames = 20000;
  const Flow flow = flow_v4(1000);
  const auto frame = frame_of(flow, IPPROTO_TCP, kAck);
  bells_->bring_home(flow.local, flow.peer, kFirst);
  std::atomic<int> received{0};
  // One frame at a time: a sleeper that misses one has nothing that could wake it later.
  std::thread sender([&] {
    for (int i = 0; i < kFrames; i++) {
      send(frame);
      const double end = now_ms() + 10000;
      while (received.load(std::memory_order_relaxed) == i && now_ms() < end) {
        if ((i & 1) != 0) std::this_thread::yield();
      }
      if (received.load(std::memory_order_relaxed) == i) return;
    }
  });
  while (received.load(std::memory_order_relaxed) < kFrames) {
    bells_->note_look(kFirst, base::monotonic_ns());
    arm(kFirst);
    int count = receive();
    if (count == 0) {
      pollfd sleeper{bells_->fd(kFirst), POLLIN, 0};
      if (poll(&sleeper, 1, 5000) == 0) break;
      count = receive();
    }
    received.fetch_add(count, std::memory_order_relaxed);
  }
  sender.join();
  EXPECT_EQ(received.load(), kFrames);
}

INSTANTIATE_TEST_SUITE_P(, Bells, testing::Values(On::own_link, On::port_of_bridge),
                         [](const auto& test) { return test.param == On::own_link ? "OwnLink" : "PortOfBridge"; });

}  // namespace
