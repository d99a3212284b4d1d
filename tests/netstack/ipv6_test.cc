// TCP over IPv6 between two stacks: addresses, listeners of one family and of both, ports, routes, recovery.
// SPDX-License-Identifier: BSD-3-Clause
#include "forged_segment.h"
#include "stack_pair.h"

using namespace netstack_test;
using netstack::PortBinding;
using netstack::PortRequest;

namespace {

constexpr IpAddress kAll{};
const IpAddress kAll4 = IpAddress::v4(0);

class Ip6 : public StackTest {
 protected:
  TcpListener* listen_at(const IpAddress& at, uint16_t port, bool v6_only = false, long expected = 0) {
    PortRequest request{{at, htons(port)}, {}};
    request.v6_only = v6_only;
    long error = 1;
    TcpListener* listener = pair_.server->listen(request, nullptr, 128, &error);
    EXPECT_EQ(expected, error);
    return listener;
  }
  TcpStream* connect_to(const SocketAddress& to) {
    TcpStream* stream = pair_.client->make_stream();
    EXPECT_EQ(0, stream->connect(to));
    return stream;
  }
  // Whether somebody at `to` answers; if `listener` is given, it does.
  bool reaches(const SocketAddress& to, TcpListener* listener) {
    TcpStream* stream = connect_to(to);
    EXPECT_TRUE(pair_.until([&] { return !stream->connecting(); }));
    const bool connected = stream->connected();
    EXPECT_EQ(connected ? 0 : ECONNREFUSED, stream->take_error());
    TcpStream* accepted = listener != nullptr ? accept(*listener) : nullptr;
    if (accepted != nullptr) {
      EXPECT_EQ(stream->local(), accepted->peer());
    }
    end(stream);
    if (accepted != nullptr) end(accepted);
    return connected && (listener == nullptr || accepted != nullptr);
  }
  static void end(TcpStream* stream) {
    (void)stream->set_option(TcpOption::linger_s, 0);
    stream->release();
  }
  std::pair<TcpStream*, TcpStream*> connected6(uint16_t port = 80) {
    TcpListener* listener = listen_at(kAll, port);
    TcpStream* client = connect_to(address6(kServerIp6, port));
    TcpStream* server = nullptr;
    EXPECT_TRUE(pair_.until([&] { return server != nullptr || (server = accept(*listener)) != nullptr; }));
    listener->release();
    return {client, server};
  }
};

TEST_F(Ip6, AConnectionFromBeginningToEnd) {
  auto [client, server] = connected6();
  ASSERT_NE(nullptr, server);
  EXPECT_EQ(address6(kServerIp6, 80), client->peer());
  EXPECT_EQ(ip6(kClientIp6), client->local().address);
  EXPECT_EQ(client->local(), server->peer());
  EXPECT_EQ(server->local(), client->peer());
  const std::string much(200'000, 'm');
  std::string got;
  size_t written = 0;
  ASSERT_TRUE(pair_.until([&, c = client, s = server] {
    const long n = written < much.size() ? send_text(*c, much.substr(written)) : 0;
    written += n > 0 ? static_cast<size_t>(n) : 0;
    got += text_of(*s);
    return got.size() == much.size();
  }));
  EXPECT_EQ(much, got);
  EXPECT_EQ(5, send_text(*server, "reply"));
  pair_.settle();
  EXPECT_EQ("reply", text_of(*client));
  client->release();
  pair_.settle();
  EXPECT_EQ(0, read_some(*server));
  server->release();
}

TEST_F(Ip6, AListenerAtBothFamiliesAddressesServesBoth) {
  TcpListener* listener = listen_at(kAll, 80);
  EXPECT_TRUE(reaches(address6(kServerIp6, 80), listener));
  EXPECT_TRUE(reaches(address(kServerIp, 80), listener));
  listener->release();
}

TEST_F(Ip6, AListenerOfOneFamilyServesThatOne) {
  TcpListener* listener = listen_at(kAll, 80, true);
  EXPECT_TRUE(reaches(address6(kServerIp6, 80), listener));
  EXPECT_FALSE(reaches(address(kServerIp, 80), nullptr));
  listener->release();
  listener = listen_at(kAll4, 80);
  EXPECT_FALSE(reaches(address6(kServerIp6, 80), nullptr));
  EXPECT_TRUE(reaches(address(kServerIp, 80), listener));
  listener->release();
}

TEST_F(Ip6, TheClosestListenerIsTaken) {
  TcpListener* v6 = listen_at(kAll, 80, true);
  TcpListener* v4 = listen_at(kAll4, 80);
  TcpListener* exact = listen_at(ip6(kServerIp6), 81);
  EXPECT_TRUE(reaches(address6(kServerIp6, 80), v6));
  EXPECT_TRUE(reaches(address(kServerIp, 80), v4));
  EXPECT_TRUE(reaches(address6(kServerIp6, 81), exact));
  EXPECT_FALSE(reaches(address(kServerIp, 81), nullptr));
  for (TcpListener* listener : {v6, v4, exact}) listener->release();
}

// As inet_rcv_saddr_equal() has it.
TEST_F(Ip6, PortsAreTakenPerFamily) {
  struct Case {
    IpAddress first;
    bool first_only;
    IpAddress second;
    bool second_only, conflict;
  };
  const IpAddress v4 = IpAddress::v4(inet_addr(kServerIp)), v6 = ip6(kServerIp6);
  const Case cases[] = {
      {kAll, false, kAll4, false, true}, {kAll4, false, kAll, false, true}, {kAll, true, kAll4, false, false},
      {kAll4, false, kAll, true, false}, {kAll, false, v4, false, true},    {v4, false, kAll, false, true},
      {kAll, true, v4, false, false},    {kAll, false, v6, false, true},    {kAll, true, v6, true, true},
      {v4, false, v6, false, false},     {v6, false, kAll4, false, false},  {v6, false, v6, false, true},
      {kAll, true, kAll, false, true},   {v4, false, kAll4, false, true},
  };
  int number = 0;
  for (const Case& c : cases) {
    PortRequest first{{c.first, htons(700)}, {}}, second{{c.second, htons(700)}, {}};
    first.v6_only = c.first_only, second.v6_only = c.second_only;
    long error = 1;
    PortBinding* holder = pair_.server->bind(first, &error);
    ASSERT_EQ(0, error) << number;
    PortBinding* other = pair_.server->bind(second, &error);
    EXPECT_EQ(c.conflict ? -EADDRINUSE : 0, error) << number;
    if (other != nullptr) other->release();
    holder->release();
    number++;
  }
}

TEST_F(Ip6, TheStackReachesItself) {
  TcpListener* listener = listen_at(kAll, 80);
  TcpStream* stream = pair_.server->make_stream();
  ASSERT_EQ(0, stream->connect(address6(kServerIp6, 80)));
  EXPECT_TRUE(pair_.until([&] { return stream->connected(); }));
  TcpStream* accepted = accept(*listener);
  ASSERT_NE(nullptr, accepted);
  EXPECT_EQ(ip6(kServerIp6), accepted->peer().address);
  for (TcpStream* each : {stream, accepted}) end(each);
  listener->release();
}

TEST_F(Ip6, NeighboursReachEachOtherByTheirLinkLocalAddresses) {
  TcpListener* listener = listen_at(kAll, 80);
  const auto* mac = pair_.server_wire().facts().mac;
  IpAddress to = ip6("fe80::ff:fe00:0");
  auto* bytes = reinterpret_cast<uint8_t*>(to.words_be);
  bytes[8] = mac[0] ^ 2, bytes[9] = mac[1], bytes[10] = mac[2], bytes[13] = mac[3], bytes[14] = mac[4], bytes[15] = mac[5];
  EXPECT_TRUE(pair_.server->owns(to));
  EXPECT_TRUE(reaches({to, htons(80)}, listener));
  listener->release();
}

TEST_F(Ip6, WhereThereIsNoWay) {
  TcpStream* stream = pair_.client->make_stream();
  for (const char* nowhere : {"2001:db8::1", "::1", "ff02::1"}) EXPECT_EQ(-ENETUNREACH, stream->connect(address6(nowhere, 80))) << nowhere;
  EXPECT_TRUE(pair_.client->routes(ip6("fdc6:1200::77")));
  ASSERT_EQ(0, stream->connect(address6("fdc6:1200::77", 80)));  // a neighbour that is not there
  EXPECT_TRUE(pair_.until([&] { return !stream->connecting(); }, 20'000));
  EXPECT_EQ(EHOSTUNREACH, stream->take_error());
  stream->release();
}

TEST_F(Ip6, ABoundStreamComesFromThere) {
  TcpListener* listener = listen_at(kAll, 80);
  TcpStream* stream = pair_.client->make_stream();
  ASSERT_EQ(0, pair_.client->bind_stream(stream, address6(kClientIp6, 5000)));
  ASSERT_EQ(0, stream->connect(address6(kServerIp6, 80)));
  EXPECT_TRUE(pair_.until([&] { return stream->connected(); }));
  EXPECT_EQ(address6(kClientIp6, 5000), stream->local());
  TcpStream* accepted = accept(*listener);
  for (TcpStream* each : {stream, accepted}) end(each);
  TcpStream* other = pair_.client->make_stream();
  EXPECT_EQ(-EADDRNOTAVAIL, pair_.client->bind_stream(other, address6("fdc6:1200::9", 5000)));
  ASSERT_EQ(0, pair_.client->bind_stream(other, address6(kClientIp6, 5000)));
  EXPECT_EQ(-ENETUNREACH, other->connect(address(kServerIp, 80)));
  other->release();
  listener->release();
}

TEST_F(Ip6, SegmentsAreAsLargeAsAFrame) {
  auto [client, server] = connected6();
  int mss = 0;
  for (TcpStream* each : {client, server}) {
    EXPECT_EQ(0, each->get_option(TcpOption::max_segment, &mss));
    EXPECT_EQ(1500 - 60 - 12, mss);  // timestamps
    end(each);
  }
}

int wrong_sums, right_sums;

// A wire that sums up TCP over IPv4 does not over IPv6.
TEST_F(Ip6, SumsAreThereWhereTheWireMakesThoseOfIp4) {
  pair_ = Pair::get(Segments::by_reference);
  SetUp();
  wrong_sums = right_sums = 0;
  const auto check = [](const uint8_t* frame, uint32_t length) {
    if (frame[12] != 0x86 || frame[20] != 6) return;
    const uint32_t bytes = length - 54;
    const uint16_t sum = sum_of(frame + 54, bytes, static_cast<uint16_t>(~sum_of(frame + 22, 32, 6 + bytes)));
    (sum == 0 ? right_sums : wrong_sums)++;
    EXPECT_LE(length, 1514u);
  };
  pair_.client_wire().tap = pair_.server_wire().tap = check;
  auto [client, server] = connected6();
  for (int i = 0; i < 20; i++) {
    send_text(*client, std::string(5001, 'c'));
    send_text(*server, std::string(4, 's'));
    pair_.settle();
    text_of(*client);
    text_of(*server);
  }
  for (TcpStream* each : {client, server}) end(each);
  pair_.settle();
  pair_.client_wire().tap = pair_.server_wire().tap = nullptr;
  EXPECT_EQ(0, wrong_sums);
  EXPECT_GT(right_sums, 80);
}

int solicitations;

TEST_F(Ip6, ARecoveredStackResetsItsConnections) {
  auto [client, server] = connected6();
  EXPECT_EQ(4, send_text(*server, "warm"));
  pair_.settle();
  EXPECT_EQ("warm", text_of(*client));
  solicitations = 0;
  pair_.server_wire().tap = [](const uint8_t* frame, uint32_t) {
    solicitations += frame[12] == 0x86 && frame[20] == 58 && frame[54] == 135;
  };
  pair_.server->recover();
  pair_.settle();
  pair_.server_wire().tap = nullptr;
  EXPECT_EQ(0, solicitations);  // it knows its neighbours still
  EXPECT_EQ(ECONNRESET, server->take_error());
  EXPECT_EQ(-ECONNRESET, read_some(*client));
  for (TcpStream* each : {client, server}) each->release();
  TcpListener* listener = listen_at(kAll, 80);
  EXPECT_TRUE(reaches(address6(kServerIp6, 80), listener));
  listener->release();
}

}  // namespace
