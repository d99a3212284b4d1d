// The first things a TCP stack must do: connect, echo, close.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <netinet/in.h>

using namespace netstack_test;

namespace {

class TcpBasic : public StackTest {};

TEST_F(TcpBasic, EchoBetweenTwoStacks) {
  auto [client, server] = connected();
  ASSERT_EQ(5, send_text(*client, "hello"));
  pair_.settle();
  EXPECT_EQ("hello", text_of(*server));
  ASSERT_EQ(5, send_text(*server, "world"));
  pair_.settle();
  EXPECT_EQ("world", text_of(*client));
  client->release();
  pair_.settle();
  EXPECT_EQ(0, read_some(*server));
  server->release();
}

TEST_F(TcpBasic, AddressesAreKnownOnBothSides) {
  auto [client, server] = connected(8080);
  EXPECT_EQ(address(kServerIp, 8080), client->peer());
  EXPECT_EQ(client->local(), server->peer());
  EXPECT_EQ(server->local(), client->peer());
  EXPECT_GE(ntohs(client->local().port_be), 32768);
  client->release();
  server->release();
}

TEST_F(TcpBasic, NothingLeavesBeforeTheFlush) {
  auto [client, server] = connected();
  pair_.pass(200);
  const uint64_t before = pair_.client_wire().sent;
  for (int i = 0; i < 5; i++) ASSERT_EQ(3, send_text(*client, "abc"));
  EXPECT_EQ(before, pair_.client_wire().sent);
  pair_.client->flush();
  EXPECT_EQ(before + 1, pair_.client_wire().sent);
  pair_.settle();
  EXPECT_EQ("abcabcabcabcabc", text_of(*server));
  client->release();
  server->release();
}

int fins_alone, fins_with_data;

// A program that closes after each answer: after a few the FIN is in the answer's segment, or the peer might close first and be the one
// that keeps TIME-WAIT.
TEST_F(TcpBasic, TheLastAnswerCarriesTheFin) {
  pair_ = Pair::get(Segments::by_reference);
  SetUp();
  fins_alone = fins_with_data = 0;
  pair_.server_wire().tap = [](const uint8_t* data, uint32_t length) {
    if (data[23] == IPPROTO_TCP && (data[47] & 1) != 0) (length > 54u + (data[46] >> 4) * 4u - 20u ? fins_with_data : fins_alone)++;
  };
  const auto ask = [&] {
    auto ends = connected();
    EXPECT_EQ(1, send_text(*ends.first, "q"));
    pair_.settle();
    EXPECT_EQ("q", text_of(*ends.second));
    return ends;
  };
  constexpr int kCount = 20;
  for (int i = 0; i < kCount; i++) {
    auto [client, server] = ask();
    EXPECT_EQ(1, send_text(*server, "a"));
    server->release();
    pair_.server->flush();
    pair_.settle();
    EXPECT_EQ("a", text_of(*client));
    EXPECT_EQ(0, read_some(*client));
    client->release();
  }
  EXPECT_EQ(kCount, fins_alone + fins_with_data);
  EXPECT_GE(fins_with_data, kCount - 8);
  // Whoever goes on instead has the answer sent at the next turn, and the ones after it at once.
  auto [client, server] = ask();
  for (int i = 0; i < 3; i++) {
    const uint64_t before = pair_.server_wire().sent;
    EXPECT_EQ(1, send_text(*server, "b"));
    EXPECT_EQ(before + (i > 0), pair_.server_wire().sent) << i;
    pair_.settle();
    EXPECT_EQ("b", text_of(*client));
    EXPECT_EQ(1, send_text(*client, "q"));
    pair_.settle();
    EXPECT_EQ("q", text_of(*server));
  }
  pair_.server_wire().tap = nullptr;
  client->release();
  server->release();
}

TEST_F(TcpBasic, ConnectToItself) {
  long error = 1;
  TcpListener* listener = pair_.server->listen({address("0.0.0.0", 7)}, nullptr, 8, &error);
  ASSERT_EQ(0, error);
  TcpStream* client = pair_.server->make_stream();
  ASSERT_EQ(0, client->connect(address(kServerIp, 7)));
  TcpStream* accepted = nullptr;
  ASSERT_TRUE(pair_.until([&] { return (accepted = accept(*listener)) != nullptr; }));
  send_text(*client, "to myself");
  EXPECT_TRUE(pair_.until([&] { return accepted->readable_bytes() == 9; }));
  EXPECT_EQ("to myself", text_of(*accepted));
  client->release();
  accepted->release();
  listener->release();
}

}  // namespace
