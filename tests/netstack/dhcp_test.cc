// An address by DHCP, from a server that the test is.
// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <map>

#include "udp_pair.h"

using namespace netstack_test;

namespace {

using Bytes = std::vector<uint8_t>;
using Options = std::map<uint8_t, Bytes>;

constexpr uint8_t kDiscover = 1, kOffer = 2, kRequest = 3, kDecline = 4, kAck = 5, kNak = 6, kRelease = 7;
constexpr uint8_t kMask = 1, kRouter = 3, kMtu = 26, kRequested = 50, kLease = 51, kType = 53, kServer = 54, kList = 55, kClientId = 61;
constexpr size_t kEthernet = 14, kUdp = kEthernet + 20, kMessage = kUdp + 8, kOptions = kMessage + 240;
constexpr const char *kGiven = "198.18.0.9", *kOther = "198.18.0.10", *kGateway = "198.18.0.2", *kFar = "203.0.113.1";
constexpr int kSecond = 1000;

std::vector<Bytes> seen;  // what the host has sent
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

Bytes bytes_of(const char* address) {
  const uint32_t be = inet_addr(address);
  return {reinterpret_cast<const uint8_t*>(&be), reinterpret_cast<const uint8_t*>(&be) + 4};
}
Bytes number(uint32_t value) {
  return {static_cast<uint8_t>(value >> 24), static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value)};
}

struct Message {
  uint32_t xid_be = 0, from_be = 0, to_be = 0;
  Options options;
  uint8_t type() const { return options.at(kType)[0]; }
};

bool is_message(const Bytes& f) { return f.size() > kOptions && f[12] == 8 && f[23] == 17 && f[kUdp + 2] == 0 && f[kUdp + 3] == 67; }

Message parsed(const Bytes& frame) {
  Message made;
  memcpy(&made.xid_be, &frame[kMessage + 4], 4);
  memcpy(&made.from_be, &frame[kEthernet + 12], 4);
  memcpy(&made.to_be, &frame[kEthernet + 16], 4);
  for (size_t at = kOptions; at + 1 < frame.size() && frame[at] != 255; at += 2 + frame[at + 1]) {
    if (frame[at] == 0) break;
    made.options[frame[at]] = {frame.begin() + static_cast<long>(at) + 2, frame.begin() + static_cast<long>(at) + 2 + frame[at + 1]};
  }
  return made;
}

// Each test has stacks of its own: what is learnt stays. The server's stack is a host that the address is of use for.
class Dhcp : public ::testing::Test {
 protected:
  void SetUp() override {
    seen.clear();
    pair_.link = MemoryLink::make(Segments::checked);
    pair_.client_wire().tap = look;
    Stack** stacks[2] = {&pair_.client, &pair_.server};
    for (int i = 0; i < 2; i++) {
      netstack::StackPlan plan;
      plan.wire = &pair_.link->ends[i];
      plan.address_be = i == 0 ? 0 : inet_addr(kServerIp);
      plan.prefix = i == 0 ? 32 : 24;
      plan.dhcp = i == 0;
      plan.now_ns = test_now;
      auto stack = netstack::build_stack(plan);
      ASSERT_TRUE(stack);
      *stacks[i] = *stack;
    }
  }
  Stack& host() { return *pair_.client; }
  bool owns(const char* address) { return host().owns(IpAddress::v4(inet_addr(address))); }
  bool routes(const char* address) { return host().routes(IpAddress::v4(inet_addr(address))); }

  static int count(uint8_t type) {
    int found = 0;
    for (const Bytes& frame : seen) found += is_message(frame) && parsed(frame).type() == type;
    return found;
  }
  static Message last() {
    for (size_t i = seen.size(); i-- > 0;) {
      if (is_message(seen[i]) && parsed(seen[i]).type() != kRelease) return parsed(seen[i]);  // which may wait for its station
    }
    ADD_FAILURE() << "the host has asked nothing";
    return {};
  }
  // The next message of the host's, which comes within `ms`.
  Message wait_for(uint8_t type, int ms = 20 * kSecond) {
    const int before = count(type);
    EXPECT_TRUE(pair_.until([&] { return count(type) > before; }, ms)) << int{type};
    return last();
  }

  Bytes reply(uint8_t type, const char* address, uint32_t xid_be, Options options) {
    Bytes frame(kOptions);
    memcpy(&frame[0], pair_.client_wire().facts().mac, 6);
    memcpy(&frame[6], pair_.server_wire().facts().mac, 6);
    frame[12] = 8;
    frame[kEthernet] = 0x45, frame[kEthernet + 8] = 64, frame[kEthernet + 9] = 17;
    const Bytes from = bytes_of(kServerIp), to = bytes_of("255.255.255.255"), given = bytes_of(address);
    std::copy(from.begin(), from.end(), &frame[kEthernet + 12]);
    std::copy(to.begin(), to.end(), &frame[kEthernet + 16]);
    frame[kUdp + 1] = 67, frame[kUdp + 3] = 68;
    frame[kMessage] = 2, frame[kMessage + 1] = 1, frame[kMessage + 2] = 6;
    memcpy(&frame[kMessage + 4], &xid_be, 4);
    std::copy(given.begin(), given.end(), &frame[kMessage + 16]);
    memcpy(&frame[kMessage + 28], pair_.client_wire().facts().mac, 6);
    const uint8_t cookie[] = {99, 130, 83, 99};
    std::copy(cookie, cookie + 4, &frame[kMessage + 236]);
    options[kType] = {type};
    options.try_emplace(kServer, bytes_of(kServerIp));
    for (const auto& [option, value] : options) {
      frame.push_back(option);
      frame.push_back(static_cast<uint8_t>(value.size()));
      frame.insert(frame.end(), value.begin(), value.end());
    }
    frame.push_back(255);
    return whole(std::move(frame));
  }
  // With its lengths and the sum over its IP header; UDP's is none.
  static Bytes whole(Bytes frame) {
    const size_t ip = frame.size() - kEthernet, udp = frame.size() - kUdp;
    frame[kEthernet + 2] = static_cast<uint8_t>(ip >> 8), frame[kEthernet + 3] = static_cast<uint8_t>(ip);
    frame[kUdp + 4] = static_cast<uint8_t>(udp >> 8), frame[kUdp + 5] = static_cast<uint8_t>(udp);
    frame[kEthernet + 10] = frame[kEthernet + 11] = 0;
    const uint16_t sum = sum_of(&frame[kEthernet], 20, 0);
    frame[kEthernet + 10] = static_cast<uint8_t>(sum >> 8), frame[kEthernet + 11] = static_cast<uint8_t>(sum);
    return frame;
  }
  void deliver(const Bytes& frame) {
    pair_.client_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    pair_.settle();
  }
  static Options lease(uint32_t seconds) {
    return {{kMask, bytes_of("255.255.255.0")}, {kRouter, bytes_of(kGateway)}, {kLease, number(seconds)}};
  }
  void answer(uint8_t type, const char* address, uint32_t seconds = 1200, const Options& more = {}) {
    Options options = lease(seconds);
    options.insert(more.begin(), more.end());
    deliver(reply(type, address, last().xid_be, options));
  }
  // As far as an acknowledged lease whose address nobody has said yet to be his.
  void offer_and_acknowledge(const char* address, uint32_t seconds = 1200, const Options& more = {}) {
    if (count(kDiscover) == 0) (void)wait_for(kDiscover);
    const int requests = count(kRequest);
    answer(kOffer, address, seconds, more);
    ASSERT_EQ(requests + 1, count(kRequest));
    ASSERT_EQ(bytes_of(address), last().options[kRequested]);
    answer(kAck, address, seconds, more);
  }
  void get(const char* address, uint32_t seconds = 1200, const Options& more = {}) {
    offer_and_acknowledge(address, seconds, more);
    ASSERT_TRUE(pair_.until([&] { return owns(address); }, 3 * kSecond));
  }

  Pair pair_{};
};

TEST_F(Dhcp, AnAddressARouterAndAnMtu) {
  const Message discover = wait_for(kDiscover);
  EXPECT_EQ(0u, discover.from_be);
  EXPECT_EQ(~0u, discover.to_be);
  const Bytes& list = discover.options.at(kList);
  for (const uint8_t wanted : {kMask, kRouter, kMtu}) EXPECT_NE(list.end(), std::find(list.begin(), list.end(), wanted)) << int{wanted};
  EXPECT_EQ(0u, discover.options.count(kClientId)) << "its hardware address is its own";
  EXPECT_FALSE(routes(kServerIp));
  offer_and_acknowledge(kGiven, 1200, {{kMtu, {5, 120}}});
  EXPECT_FALSE(owns(kGiven)) << "somebody may have it";
  pair_.pass(2 * kSecond);
  EXPECT_TRUE(owns(kGiven));
  EXPECT_TRUE(routes(kServerIp));
  EXPECT_TRUE(routes(kFar));
  long error;
  netstack::TcpListener* listener = pair_.server->listen({address("0.0.0.0", 80), {}}, nullptr, 8, &error);
  TcpStream* stream = host().make_stream();
  EXPECT_EQ(0, stream->connect(address(kServerIp, 80)));
  EXPECT_TRUE(pair_.until([&] { return stream->connected(); }));
  EXPECT_EQ(inet_addr(kGiven), stream->local().address.v4_be());
  seen.clear();
  EXPECT_GT(send_text(*stream, std::string(20'000, 'x')), 0);
  pair_.settle();
  size_t longest = 0;
  for (const Bytes& frame : seen) longest = std::max(longest, frame.size());
  EXPECT_EQ(5u * 256 + 120 + kEthernet, longest);
  stream->release();
  listener->release();
}

// As clouds have it: every packet goes to the router, which is in no network of the host's.
TEST_F(Dhcp, AnAddressWithoutANetwork) {
  (void)wait_for(kDiscover);
  const Options alone = {{kMask, bytes_of("255.255.255.255")}, {kRouter, bytes_of(kGateway)}, {kLease, number(1200)}};
  deliver(reply(kOffer, kGiven, last().xid_be, alone));
  deliver(reply(kAck, kGiven, last().xid_be, alone));
  ASSERT_TRUE(pair_.until([&] { return owns(kGiven); }, 3 * kSecond));
  EXPECT_TRUE(routes(kOther));
  seen.clear();
  TcpStream* stream = host().make_stream();
  EXPECT_EQ(0, stream->connect(address(kOther, 80)));
  pair_.pass(kSecond);
  const bool by_router = std::any_of(seen.begin(), seen.end(), [&](const Bytes& frame) {
    return frame[12] == 8 && frame[13] == 0 && frame[23] == 6 && memcmp(&frame[0], pair_.server_wire().facts().mac, 6) == 0;
  });
  EXPECT_TRUE(by_router);
  stream->release();
}

TEST_F(Dhcp, AsksAgainUntilSomebodyAnswers) {
  pair_.pass(40 * kSecond, 100);
  EXPECT_GE(count(kDiscover), 4);
  EXPECT_LE(count(kDiscover), 8);
  get(kGiven);
}

TEST_F(Dhcp, IsRenewedInTime) {
  get(kGiven, 1200);
  seen.clear();
  pair_.pass(590 * kSecond, kSecond);
  EXPECT_EQ(0, count(kRequest));
  pair_.pass(20 * kSecond, 100);
  ASSERT_EQ(1, count(kRequest));
  EXPECT_EQ(inet_addr(kServerIp), last().to_be) << "of the server alone";
  EXPECT_EQ(inet_addr(kGiven), last().from_be);
  answer(kAck, kGiven, 1200);
  pair_.pass(590 * kSecond, kSecond);
  EXPECT_EQ(1, count(kRequest));
  EXPECT_TRUE(owns(kGiven));
}

TEST_F(Dhcp, EndsNoLaterThanTheServerSaysAndKeepsConnections) {
  get(kGiven, 125);
  long error;
  netstack::TcpListener* listener = pair_.server->listen({address("0.0.0.0", 80), {}}, nullptr, 8, &error);
  TcpStream* stream = host().make_stream();
  EXPECT_EQ(0, stream->connect(address(kServerIp, 80)));
  TcpStream* accepted = nullptr;
  SocketAddress peer;
  EXPECT_TRUE(pair_.until([&] { return (accepted = listener->accept(&peer, &error)) != nullptr; }));
  seen.clear();
  pair_.pass(118 * kSecond, 100);
  EXPECT_TRUE(owns(kGiven));
  EXPECT_GE(count(kRequest), 2) << "renewed, and rebound";
  EXPECT_EQ(~0u, last().to_be) << "of any server";
  pair_.pass(7 * kSecond, 100);
  EXPECT_FALSE(owns(kGiven));
  EXPECT_FALSE(routes(kServerIp));
  EXPECT_FALSE(owns("0.0.0.0"));
  EXPECT_GT(send_text(*stream, "kept"), 0);
  seen.clear();
  pair_.pass(3 * kSecond);
  for (const Bytes& frame : seen) EXPECT_FALSE(frame[12] == 8 && frame[13] == 0 && frame[23] == 6) << "the address is not ours any more";
  (void)wait_for(kDiscover, 60 * kSecond);
  get(kGiven);
  EXPECT_TRUE(pair_.until([&] { return accepted->readable_bytes() == 4; }));
  EXPECT_EQ("kept", text_of(*accepted));
  stream->release();
  accepted->release();
  listener->release();
}

TEST_F(Dhcp, AnAddressThatSomebodyHasIsDeclined) {
  offer_and_acknowledge(kServerIp);
  pair_.pass(kSecond);
  EXPECT_EQ(1, count(kDecline)) << "the other stack has answered for it";
  EXPECT_EQ(bytes_of(kServerIp), last().options[kRequested]);
  EXPECT_FALSE(owns(kServerIp));
  (void)wait_for(kDiscover, 30 * kSecond);
  get(kOther);
}

TEST_F(Dhcp, ARefusalEndsTheLease) {
  get(kGiven, 1200);
  pair_.pass(605 * kSecond, kSecond);
  const uint32_t xid_be = last().xid_be;
  seen.clear();
  deliver(reply(kNak, "0.0.0.0", xid_be, {}));
  EXPECT_FALSE(owns(kGiven));
  EXPECT_EQ(1, count(kDiscover));
  get(kOther);
}

TEST_F(Dhcp, WhatIsForgedIsNotHeeded) {
  const Message asked = wait_for(kDiscover);
  deliver(reply(kOffer, kGiven, asked.xid_be + 1, lease(100)));
  Bytes others = reply(kOffer, kGiven, asked.xid_be, lease(100));
  others[kMessage + 28] ^= 1;
  deliver(others);
  for (const char* nobodys : {"127.0.0.1", "224.0.0.1", "255.255.255.255"}) deliver(reply(kOffer, nobodys, asked.xid_be, lease(100)));
  const Bytes good = reply(kOffer, kGiven, asked.xid_be, lease(100));
  for (size_t cut = kUdp; cut < good.size() - 12; cut++) deliver(whole({good.begin(), good.begin() + static_cast<long>(cut)}));
  EXPECT_EQ(0, count(kRequest));
  for (const Bytes& mtu : {Bytes{0, 68}, Bytes{0}, Bytes{1, 2, 3}, Bytes{}}) deliver(reply(kNak, kGiven, asked.xid_be, {{kMtu, mtu}}));
  for (const uint32_t seconds : {0u, 1u, 59u}) {
    deliver(reply(kOffer, kGiven, last().xid_be, lease(seconds)));
    deliver(reply(kAck, kGiven, last().xid_be, lease(seconds)));
    pair_.pass(2 * kSecond);
    EXPECT_TRUE(owns(kGiven)) << seconds;
    (void)wait_for(kDiscover, 120 * kSecond);
    EXPECT_FALSE(owns(kGiven)) << seconds;
  }
}

TEST_F(Dhcp, ALongLeaseIsRenewedBeforeTheCounterEnds) {
  for (const uint32_t days : {8u, 60u}) {
    if (days == 8) get(kGiven, days * 86400);
    else answer(kAck, kGiven, days * 86400);
    seen.clear();
    pair_.pass(3 * 86400 * kSecond, 100 * kSecond);
    EXPECT_EQ(0, count(kRequest)) << days;
    pair_.pass(86400 * kSecond, 10 * kSecond);
    EXPECT_GE(count(kRequest), 1) << days;
    EXPECT_TRUE(owns(kGiven)) << days;
  }
  answer(kAck, kGiven, UINT32_MAX);
  seen.clear();
  pair_.pass(20 * 86400 * kSecond, 1000 * kSecond);
  EXPECT_TRUE(owns(kGiven)) << "for ever";
  EXPECT_EQ(0, count(kRequest));
}

TEST_F(Dhcp, ARecoveryKeepsTheAddressAndAsksWhetherItMay) {
  get(kGiven);
  seen.clear();
  host().recover();
  EXPECT_TRUE(owns(kGiven));
  pair_.settle();
  ASSERT_EQ(1, count(kRequest));
  EXPECT_EQ(bytes_of(kGiven), last().options[kRequested]);
  EXPECT_EQ(0u, last().options.count(kServer));
  answer(kAck, kGiven);
  EXPECT_TRUE(owns(kGiven));
  pair_.pass(590 * kSecond, kSecond);
  EXPECT_EQ(1, count(kRequest));
}

}  // namespace
