// The first things a TCP stack must do: connect, echo, close.
#include "stack_pair.h"

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

TEST_F(TcpBasic, ConnectToItself) {
  long error = 1;
  TcpListener* listener = pair_.server->listen(address("0.0.0.0", 7), 8, false, &error);
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
