// A wire over another one that tags and untags, and tags that are about priorities only.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

#include "netstack/vlan_tag.h"
#include "netstack/wires/vlan_wire.h"

using namespace netstack_test;
using netstack::VlanWire;

namespace {

using Bytes = std::vector<uint8_t>;
constexpr uint16_t kOurs = 0x105;

std::vector<Bytes> seen;
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

Bytes with_tag(Bytes frame, uint16_t tci) {
  const uint8_t tag[] = {0x81, 0, static_cast<uint8_t>(tci >> 8), static_cast<uint8_t>(tci)};
  frame.insert(frame.begin() + netstack::vlan_tag::kAddressBytes, tag, tag + sizeof tag);
  return frame;
}

// Two stacks on one VLAN of a link.
struct Tagged {
  Pair pair;
  VlanWire* ends[2];

  static Tagged& get() {
    static Tagged made = make();
    return made;
  }

 private:
  static Tagged make() {
    Tagged fresh{};
    fresh.pair.link = MemoryLink::make(Segments::checked);
    Stack** stacks[2] = {&fresh.pair.client, &fresh.pair.server};
    for (int i = 0; i < 2; i++) {
      fresh.ends[i] = new (map_shared(sizeof(VlanWire))) VlanWire(fresh.pair.link->ends[i], kOurs);
      netstack::StackPlan plan;
      plan.wire = fresh.ends[i];
      plan.address_be = inet_addr(i == 0 ? kClientIp : kServerIp);
      plan.ip6[0] = {ip6(i == 0 ? kClientIp6 : kServerIp6), 64};
      plan.now_ns = test_now;
      plan.time_wait_ms = 1000;
      auto stack = netstack::build_stack(plan);
      EXPECT_TRUE(stack);
      *stacks[i] = *stack;
    }
    return fresh;
  }
};

class Vlan : public UdpTest {
 protected:
  Vlan() { pair_ = Tagged::get().pair; }
  void SetUp() override {
    seen.clear();
    pair_.client_wire().tap = pair_.server_wire().tap = look;
    UdpTest::SetUp();
  }
  void TearDown() override {
    UdpTest::TearDown();
    pair_.client_wire().tap = pair_.server_wire().tap = nullptr;
  }
  uint64_t foreign() { return Tagged::get().ends[1]->foreign_frames(); }
  Bytes datagram(const std::string& data) { return ForgedDatagram{.data = data}.frame(pair_.client_wire(), pair_.server_wire()); }
  void deliver(const Bytes& frame) {
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair_.settle();
  }
};

TEST_F(Vlan, EveryFrameHasTheTag) {
  auto [client, server] = connected();
  const std::string text(100'000, 'x');
  std::string got;
  for (size_t at = 0; at < text.size();) {
    at += static_cast<size_t>(std::max(0L, send_text(*client, text.substr(at))));
    pair_.settle();
    got += text_of(*server);
  }
  EXPECT_EQ(text, got);
  client->release();
  server->release();
  pair_.pass(5000);
  size_t longest = 0;
  for (const Bytes& frame : seen) {
    ASSERT_GE(frame.size(), netstack::vlan_tag::kTaggedBytes);
    ASSERT_EQ((Bytes{0x81, 0, kOurs >> 8, kOurs & 255}), Bytes(frame.begin() + 12, frame.begin() + 16));
    longest = std::max(longest, frame.size());
  }
  EXPECT_EQ(MemoryWire::kMtu + 14u + 4u, longest) << "the tag takes nothing from the MTU";
  EXPECT_EQ(0u, foreign());
}

TEST_F(Vlan, OthersAreDroppedAndCounted) {
  UdpEndpoint* const at = bound(pair_.server, 53);
  deliver(with_tag(datagram("ours"), kOurs));
  EXPECT_EQ("ours", take(at));
  deliver(with_tag(datagram("ours, and urgent"), 0xe000 | kOurs));
  EXPECT_EQ("ours, and urgent", take(at));
  const uint64_t before = foreign();
  const Bytes others[] = {datagram("of none"), with_tag(datagram("with a priority"), 0xe000), with_tag(datagram("of another"), kOurs + 1),
                          with_tag(with_tag(datagram("of ours in another"), kOurs), 7), Bytes{1, 2, 3}};
  for (const Bytes& other : others) deliver(other);
  EXPECT_EQ(strerror(EAGAIN), take(at));
  EXPECT_EQ(before + std::size(others), foreign());
}

// A burst of which nothing is ours says nothing about what is behind it.
TEST_F(Vlan, AFloodOfOthersHidesNothing) {
  UdpEndpoint* const at = bound(pair_.server, 53);
  const Bytes other = with_tag(datagram("of another"), kOurs + 1), ours = with_tag(datagram("ours"), kOurs);
  for (int i = 0; i < 5 * netstack::kBurst; i++) pair_.server_wire().deliver(other.data(), static_cast<uint32_t>(other.size()));
  pair_.server_wire().deliver(ours.data(), static_cast<uint32_t>(ours.size()));
  (void)pair_.server->poll(test_clock->now_ns);
  EXPECT_EQ("ours", take(at));
}

class PriorityTag : public UdpTest {};

TEST_F(PriorityTag, IsNoVlan) {
  UdpEndpoint* const at = bound(pair_.server, 53);
  const auto deliver = [&](const Bytes& frame) {
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair_.settle();
  };
  const Bytes plain = ForgedDatagram{.data = "urgent"}.frame(pair_.client_wire(), pair_.server_wire());
  deliver(with_tag(plain, 0xe000));
  EXPECT_EQ("urgent", take(at));
  deliver(with_tag(plain, 5));
  EXPECT_EQ(strerror(EAGAIN), take(at));
  for (size_t cut = 1; cut < plain.size(); cut++) {
    const Bytes whole = with_tag(plain, 0xe000);
    deliver({whole.begin(), whole.begin() + static_cast<long>(cut)});
  }
  EXPECT_EQ(strerror(EAGAIN), take(at));
}

}  // namespace
