// IPv6 packets that nobody should send, or not so many: neighbour discovery, extension headers, fragments.
// SPDX-License-Identifier: BSD-3-Clause
#include "forged_segment.h"
#include "stack_pair.h"

#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <random>

using namespace netstack_test;

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> seen;  // what the server has sent
void look(const uint8_t* data, uint32_t length) { seen.emplace_back(data, data + length); }

Bytes operator+(Bytes one, const Bytes& other) {
  one.insert(one.end(), other.begin(), other.end());
  return one;
}

Bytes bytes_of(const IpAddress& address) {
  const auto* at = reinterpret_cast<const uint8_t*>(address.words_be);
  return {at, at + 16};
}

class Ip6Hostile : public StackTest {
 protected:
  void SetUp() override {
    StackTest::SetUp();
    seen.clear();
    pair_.server_wire().tap = look;
  }
  void TearDown() override {
    pair_.server_wire().tap = nullptr;
    pair_.pass(20'000, 200);
    StackTest::TearDown();
  }
  // From the client's station to the server's.
  void inject(const IpAddress& source, uint8_t next_header, const Bytes& payload, uint8_t hop_limit = 255,
              const IpAddress& to = ip6(kServerIp6)) {
    Bytes frame(14 + 40);
    memcpy(&frame[0], pair_.server_wire().facts().mac, 6);
    memcpy(&frame[6], pair_.client_wire().facts().mac, 6);
    frame[12] = 0x86, frame[13] = 0xdd, frame[14] = 0x60;
    frame[18] = static_cast<uint8_t>(payload.size() >> 8), frame[19] = static_cast<uint8_t>(payload.size());
    frame[20] = next_header, frame[21] = hop_limit;
    memcpy(&frame[22], source.words_be, 16);
    memcpy(&frame[38], to.words_be, 16);
    frame = frame + payload;
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
  }
  static Bytes icmp(uint8_t type, Bytes body, const IpAddress& source, const IpAddress& to = ip6(kServerIp6)) {
    Bytes message = Bytes{type, 0, 0, 0} + body;
    const Bytes addresses = bytes_of(source) + bytes_of(to);
    const auto length = static_cast<uint32_t>(message.size());
    const uint16_t sum = sum_of(message.data(), length, static_cast<uint16_t>(~sum_of(addresses.data(), 32, IPPROTO_ICMPV6 + length)));
    message[2] = static_cast<uint8_t>(sum >> 8), message[3] = static_cast<uint8_t>(sum);
    return message;
  }
  void inject_icmp(const IpAddress& source, uint8_t type, const Bytes& body) { inject(source, IPPROTO_ICMPV6, icmp(type, body, source)); }
  void solicit(const IpAddress& source, const Bytes& mac) {
    inject_icmp(source, ND_NEIGHBOR_SOLICIT, Bytes(4) + bytes_of(ip6(kServerIp6)) + Bytes{1, 1} + mac);
  }
  static int count(uint8_t type) {
    int found = 0;
    for (const Bytes& f : seen) found += f.size() > 54 && f[12] == 0x86 && f[20] == IPPROTO_ICMPV6 && f[54] == type;
    return found;
  }
  void expect_service() {
    TcpListener* listener = listen(80);
    long error = 0;
    TcpListener* listener6 = pair_.server->listen({{IpAddress{}, htons(81)}, {}}, nullptr, 10, &error);
    for (const SocketAddress& to : {address(kServerIp, 80), address6(kServerIp6, 81)}) {
      TcpStream* stream = pair_.client->make_stream();
      EXPECT_EQ(0, stream->connect(to));
      EXPECT_TRUE(pair_.until([&] { return stream->connected(); }));
      (void)stream->set_option(TcpOption::linger_s, 0);
      stream->release();
      pair_.settle();
    }
    listener->release();
    listener6->release();
  }
};

TEST_F(Ip6Hostile, AnEchoIsAnswered) {
  inject_icmp(ip6(kClientIp6), ICMP6_ECHO_REQUEST, Bytes{0, 7, 0, 1} + Bytes(100, 'e'));
  pair_.settle();
  EXPECT_EQ(1, count(ICMP6_ECHO_REPLY));
  inject(ip6(kClientIp6), IPPROTO_ICMPV6, Bytes{ICMP6_ECHO_REQUEST, 0, 1, 2, 0, 7, 0, 1});  // a wrong checksum
  pair_.settle();
  EXPECT_EQ(1, count(ICMP6_ECHO_REPLY));
}

Bytes fragment(uint8_t next_header, uint32_t offset, bool more, const Bytes& part, uint8_t id) {
  const uint32_t field = offset | (more ? 1 : 0);
  return Bytes{next_header, 0, static_cast<uint8_t>(field >> 8), static_cast<uint8_t>(field), 0, 0, 0, id} + part;
}

TEST_F(Ip6Hostile, FragmentsAreJoinedUnlessTheyOverlap) {
  const IpAddress from = ip6(kClientIp6);
  const Bytes message = icmp(ICMP6_ECHO_REQUEST, Bytes{0, 7, 0, 1} + Bytes(2400, 'f'), from);
  const Bytes first(message.begin(), message.begin() + 1400), second(message.begin() + 1400, message.end());
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 1400, false, second, 1));
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 0, true, first, 1));
  pair_.settle();
  size_t replied = 0;
  for (const Bytes& f : seen) {
    if (f.size() > 62 && f[12] == 0x86 && f[20] == IPPROTO_FRAGMENT) replied += f.size() - 62;
    EXPECT_LE(f.size(), 1514u);
  }
  EXPECT_EQ(message.size(), replied);  // in fragments as well
  seen.clear();
  const Bytes overlap(message.begin() + 1392, message.end());
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 0, true, first, 2));
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 1392, false, overlap, 2));
  pair_.settle();
  EXPECT_EQ(0u, seen.size());
}

// Headers and options that end behind the packet, fragments of nothing or with headers of their own, frames that are cut: dropped unread.
TEST_F(Ip6Hostile, HeadersThatAreNotThere) {
  const IpAddress from = ip6(kClientIp6);
  const Bytes echo = icmp(ICMP6_ECHO_REQUEST, Bytes{0, 7, 0, 1, 'e', 'c', 'h', 'o'}, from);
  const Bytes options[] = {
      {IPPROTO_ICMPV6, 0, 1, 5, 0, 0, 0, 0}, {IPPROTO_ICMPV6, 0, 0, 0, 0, 0, 0, 1}, {IPPROTO_ICMPV6, 30, 1, 4, 0, 0, 0, 0}};
  for (const Bytes& header : options) {
    for (const uint8_t kind : {IPPROTO_HOPOPTS, IPPROTO_DSTOPTS}) inject(from, kind, header + echo);
  }
  for (const uint8_t kind : {IPPROTO_HOPOPTS, IPPROTO_DSTOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT}) {
    for (size_t bytes = 0; bytes < 8; bytes++) inject(from, kind, Bytes(bytes, IPPROTO_ICMPV6));
  }
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 8, false, {}, 1));
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 0, true, Bytes(echo.begin(), echo.begin() + 8), 1));
  inject(from, IPPROTO_FRAGMENT, fragment(IPPROTO_DSTOPTS, 0, false, Bytes{IPPROTO_ICMPV6, 0, 1, 4, 0, 0, 0, 0} + echo, 2));
  pair_.settle();
  EXPECT_EQ(0, count(ICMP6_ECHO_REPLY));
  for (const uint8_t kind : {IPPROTO_HOPOPTS, IPPROTO_DSTOPTS}) inject(from, kind, Bytes{IPPROTO_ICMPV6, 0, 1, 4, 0, 0, 0, 0} + echo);
  pair_.settle();
  EXPECT_EQ(2, count(ICMP6_ECHO_REPLY));
}

TEST_F(Ip6Hostile, AnAdvertisementsOptionHasALength) {
  const IpAddress to = ip6(kClientIp6);
  const auto ask = [&] {  // for nothing but a segment to the client
    TcpStream* stream = pair_.server->make_stream();
    EXPECT_EQ(0, stream->connect(address6(kClientIp6, 82)));
    EXPECT_TRUE(pair_.until([&] { return !stream->connecting(); }));
    stream->release();
  };
  ask();
  seen.clear();
  for (const Bytes& option : {Bytes{2, 0}, Bytes{2, 0, 2, 9, 9, 9, 9, 9}, Bytes{1, 1, 2, 9, 9, 9, 9, 9}, Bytes{2}}) {
    inject_icmp(to, ND_NEIGHBOR_ADVERT, Bytes{0x60, 0, 0, 0} + bytes_of(to) + option);
  }
  pair_.settle();
  ask();
  EXPECT_FALSE(seen.empty());
  for (const Bytes& f : seen) EXPECT_TRUE((f[0] & 1) != 0 || memcmp(f.data(), pair_.client_wire().facts().mac, 6) == 0);
}

TEST_F(Ip6Hostile, AFloodOfFragmentsIsBounded) {
  for (int i = 0; i < 20'000; i++) {
    inject(ip6(kClientIp6), IPPROTO_FRAGMENT, fragment(IPPROTO_ICMPV6, 0, true, Bytes(512, 'f'), static_cast<uint8_t>(i)));
    if (i % 32 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_GT(pair_.server->levels().free_frames, MemoryWire::kFrames / 2);
  expect_service();
}

TEST_F(Ip6Hostile, RedirectsAndRoutersAreRefused) {
  expect_service();
  seen.clear();
  const IpAddress liar = ip6("fe80::bad");
  const Bytes mac{2, 9, 9, 9, 9, 9};
  inject_icmp(liar, ND_REDIRECT, Bytes(4) + bytes_of(liar) + bytes_of(ip6(kClientIp6)) + Bytes{2, 1} + mac);
  inject_icmp(liar, ND_ROUTER_ADVERT, Bytes{64, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 0, 0, 0, 5, 0});  // a router, MTU 1280
  pair_.settle();
  EXPECT_FALSE(pair_.server->routes(ip6("2001:db8::1")));
  expect_service();
  for (const Bytes& f : seen) EXPECT_NE(0, memcmp(f.data(), mac.data(), 6));
}

TEST_F(Ip6Hostile, AFloodOfSolicitationsLeavesTheNeighboursAlone) {
  TcpListener* listener = nullptr;
  long error = 0;
  listener = pair_.server->listen({{IpAddress{}, htons(81)}, {}}, nullptr, 10, &error);
  TcpStream* client = pair_.client->make_stream();
  ASSERT_EQ(0, client->connect(address6(kServerIp6, 81)));
  TcpStream* server = nullptr;
  ASSERT_TRUE(pair_.until([&] { return server != nullptr || (server = accept(*listener)) != nullptr; }));
  EXPECT_EQ(4, send_text(*server, "warm"));  // the server knows its neighbour
  pair_.settle();
  EXPECT_EQ("warm", text_of(*client));
  seen.clear();
  constexpr int kSources = 5000;
  for (int i = 0; i < kSources; i++) {
    IpAddress source = ip6("fdc6:1200::1:0");
    source.words_be[3] |= htonl(static_cast<uint32_t>(i));
    solicit(source, {2, 1, 1, 1, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)});
    if (i % 32 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_EQ(kSources, count(ND_NEIGHBOR_ADVERT));
  EXPECT_EQ(0, count(ND_NEIGHBOR_SOLICIT));
  EXPECT_EQ(5, send_text(*server, "after"));
  pair_.settle();
  EXPECT_EQ("after", text_of(*client));
  EXPECT_EQ(0, count(ND_NEIGHBOR_SOLICIT));
  for (TcpStream* each : {client, server}) {
    (void)each->set_option(TcpOption::linger_s, 0);
    each->release();
  }
  listener->release();
}

// What is unknown among the options, so that an error is the answer.
TEST_F(Ip6Hostile, AFloodOfHopByHopOptionsIsAnsweredSeldom) {
  const Bytes header{IPPROTO_NONE, 0, 0x80, 4, 0, 0, 0, 0};
  for (int i = 0; i < 5000; i++) {
    inject(ip6(kClientIp6), IPPROTO_HOPOPTS, header);
    if (i % 32 == 0) pair_.settle();
  }
  pair_.settle();
  EXPECT_GT(count(ICMP6_PARAM_PROB), 0);
  EXPECT_LE(count(ICMP6_PARAM_PROB), 100);
  expect_service();
}

TEST_F(Ip6Hostile, RandomPackets) {
  std::mt19937 random(6);
  constexpr uint8_t kNext[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_DSTOPTS,
                               IPPROTO_ICMPV6,  IPPROTO_TCP,     IPPROTO_UDP,      IPPROTO_NONE};
  pair_ = Pair::get(Segments::unchecked);  // without checksums all of it gets through
  SetUp();
  for (int i = 0; i < 100'000; i++) {
    Bytes payload(random() % 200);
    for (uint8_t& byte : payload) byte = static_cast<uint8_t>(random());
    if (payload.size() > 9 && i % 2 == 0) {  // a chain of headers
      payload[0] = kNext[random() % 8], payload[1] = static_cast<uint8_t>(random() % 3);
      payload[8] = kNext[random() % 8], payload[9] = static_cast<uint8_t>(random() % 3);
    }
    if (payload.size() > 2 && i % 8 == 1) payload[0] = static_cast<uint8_t>(ND_ROUTER_SOLICIT + random() % 6), payload[1] = 0;
    inject(ip6(kClientIp6), i % 8 == 1 ? static_cast<uint8_t>(IPPROTO_ICMPV6) : kNext[random() % 8], payload);
    if (i % 16 == 0) pair_.settle();
  }
  pair_.settle();
  expect_service();
}

}  // namespace
