// An address that the kernel has as well: which ports the stack says are its own, who knows the way, and what becomes of another address.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/udp_endpoint.h"
#include "stack_pair.h"

using namespace netstack_test;
using netstack::PortSteering;
using netstack::UdpEndpoint;

namespace {

constexpr int kConnections = PortSteering::takes | PortSteering::sends, kAll = kConnections | PortSteering::takes_syn;
constexpr int kGivenUp = PortSteering::sends;
constexpr const char* kOtherIp = "198.18.0.3";

// The server's address is shared, and the client's, so that nobody asks for a station.
struct SharedPair {
  PortSteering* steering[2];
  Pair pair;

  static SharedPair& get() {
    static SharedPair shared;
    return shared;
  }

 private:
  SharedPair() {
    MemoryLink* const link = MemoryLink::make(Segments::checked);
    const char* const ips[] = {kClientIp, kServerIp};
    for (int i = 0; i < 2; i++) {
      steering[i] = static_cast<PortSteering*>(map_shared(sizeof(PortSteering)));
      link->ends[i].share(steering[i], inet_addr(ips[i]));
    }
    pair = Pair::make(link);
  }
};

class SharedAddress : public StackTest {
 protected:
  SharedAddress() { pair_ = SharedPair::get().pair; }

  static int tcp(uint16_t port) { return SharedPair::get().steering[1]->tcp[port]; }
  static int udp(uint16_t port) { return SharedPair::get().steering[1]->udp[port]; }
};

TEST_F(SharedAddress, APortIsTheStacksAsLongAsItIsUsed) {
  EXPECT_EQ(0, tcp(4000));
  long error = 0;
  netstack::PortBinding* const binding = pair_.server->bind({address("0.0.0.0", 4000)}, &error);
  ASSERT_NE(nullptr, binding);
  EXPECT_EQ(kAll, tcp(4000));
  TcpListener* const listener = pair_.server->listen({address(kServerIp, 4000)}, binding, 5, &error);
  ASSERT_NE(nullptr, listener);
  binding->release();
  EXPECT_EQ(kAll, tcp(4000));
  listener->release();
  EXPECT_EQ(kGivenUp, tcp(4000)) << "what was sent from it may be under way still";
  EXPECT_EQ(0, tcp(4001));
}

TEST_F(SharedAddress, ConnectionsOutliveTheirListener) {
  const auto [client, server] = connected(4100);
  EXPECT_EQ(kConnections, tcp(4100)) << "a SYN may be for somebody else";
  server->release();
  pair_.settle();
  EXPECT_EQ(0, read_some(*client));
  client->release();
  pair_.settle();
  EXPECT_EQ(kConnections, tcp(4100)) << "TIME-WAIT";
  pair_.pass(5'000, 50);
  EXPECT_EQ(kGivenUp, tcp(4100));
}

TEST_F(SharedAddress, APortThatConnectHasChosen) {
  TcpListener* const listener = listen(4200);
  TcpStream* const client = connect(4200);
  const uint16_t port = ntohs(client->local().port_be);
  EXPECT_EQ(kConnections, SharedPair::get().steering[0]->tcp[port]);
  client->release();
  pair_.settle();
  EXPECT_EQ(kGivenUp, SharedPair::get().steering[0]->tcp[port]);
  listener->release();
}

TEST_F(SharedAddress, DatagramSockets) {
  UdpEndpoint* const one = pair_.server->make_endpoint();
  UdpEndpoint* const other = pair_.server->make_endpoint();
  EXPECT_EQ(0, one->bind({address("0.0.0.0", 4300), {true, false}}));
  EXPECT_EQ(kConnections, udp(4300));
  EXPECT_EQ(0, tcp(4300));
  EXPECT_EQ(0, other->bind({address(kServerIp, 4300), {true, false}}));
  EXPECT_EQ(0, one->connect(address(kClientIp, 9)));
  EXPECT_EQ(kConnections, udp(4300));
  one->release();
  EXPECT_EQ(kConnections, udp(4300));
  other->release();
  EXPECT_EQ(kGivenUp, udp(4300));
}

TEST_F(SharedAddress, AfterRecoveryWhatIsLeftHasItsPorts) {
  long error = 0;
  TcpListener* const listener = pair_.server->listen({address("0.0.0.0", 4400)}, nullptr, 5, &error);
  UdpEndpoint* const endpoint = pair_.server->make_endpoint();
  EXPECT_EQ(0, endpoint->bind({address("0.0.0.0", 4401)}));
  const auto [client, server] = connected(4402);
  EXPECT_EQ(kConnections, tcp(4402));
  pair_.server->recover();
  EXPECT_EQ(kAll, tcp(4400));
  EXPECT_EQ(kConnections, udp(4401));
  EXPECT_EQ(kGivenUp, tcp(4402));
  for (TcpStream* each : {client, server}) each->release();
  listener->release();
  endpoint->release();
}

TEST_F(SharedAddress, TheKernelsRoutesSayWhereTheStackLeads) {
  pair_.client_wire().leads = false;
  EXPECT_FALSE(pair_.client->routes(address(kServerIp, 0).address));
  EXPECT_FALSE(pair_.client->routes(address(kClientIp, 0).address)) << "the kernel sends to itself";
  EXPECT_TRUE(pair_.client->owns(address(kClientIp, 0).address));
  TcpStream* const stream = pair_.client->make_stream();
  EXPECT_EQ(-ENETUNREACH, stream->connect(address(kServerIp, 4500)));
  pair_.client_wire().leads = true;
  EXPECT_TRUE(pair_.client->routes(address("10.1.2.3", 0).address));
  stream->release();
}

// A frame to any station is taken, and none that asks for one is sent.
TEST_F(SharedAddress, NobodyIsAskedForAStation) {
  static int asked;
  asked = 0;
  for (MemoryWire* wire : {&pair_.client_wire(), &pair_.server_wire()}) {
    wire->tap = [](const uint8_t* frame, uint32_t) { asked += frame[12] == 8 && frame[13] == 6; };
  }
  const auto [client, server] = connected(4600);
  EXPECT_EQ(5, send_text(*client, "hello"));
  pair_.settle();
  EXPECT_EQ("hello", text_of(*server));
  EXPECT_EQ(0, asked);
  for (MemoryWire* wire : {&pair_.client_wire(), &pair_.server_wire()}) wire->tap = nullptr;
  client->release();
  server->release();
}

TEST_F(SharedAddress, ConnectionsOfAnAddressThatWentAreKept) {
  const auto [client, server] = connected(4700);
  pair_.client_wire().move_to(inet_addr(kOtherIp));
  pair_.client->run_control();
  EXPECT_TRUE(pair_.client->owns(address(kOtherIp, 0).address));
  EXPECT_FALSE(pair_.client->owns(address(kClientIp, 0).address));
  TcpListener* const listener = listen(4701);
  TcpStream* const later = connect(4701);
  EXPECT_EQ(address(kOtherIp, 0).address, later->local().address);
  EXPECT_TRUE(pair_.until([&] { return later->connected(); }));
  EXPECT_EQ(0, later->set_option(TcpOption::linger_s, 0));
  later->release();
  listener->release();
  EXPECT_EQ(4, send_text(*server, "lost"));
  pair_.pass(500);
  EXPECT_TRUE(client->connected());
  EXPECT_EQ(-EAGAIN, read_some(*client)) << "its address is nobody's";
  pair_.client_wire().move_to(inet_addr(kClientIp));
  pair_.client->run_control();
  EXPECT_TRUE(pair_.until([&] { return (client->ready() & EPOLLIN) != 0; }));
  EXPECT_EQ("lost", text_of(*client));
  for (TcpStream* each : {client, server}) each->release();
}

}  // namespace
