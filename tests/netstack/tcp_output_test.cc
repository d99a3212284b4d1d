// When what was written leaves: before a reset, through a wire without room, in turn, by Nagle's algorithm, and when memory is back.
// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <thread>
#include <tuple>

#include "stack_pair.h"

namespace netstack_test {
namespace {

class TcpOutput : public StackTest {};

// A reset owed while the wire takes nothing, and what was written before it.
class ResetThroughAStarvedWire : public TcpOutput {
 protected:
  void expect_delivery(TcpStream* server, const std::string& text) {
    pair_.client->flush();
    pair_.pass(100);
    EXPECT_NE(UINT64_MAX, pair_.client->next_timer_ns());
    pair_.client_wire().refuse = false;
    pair_.settle();
    std::string seen(server->readable_bytes(), ' ');
    iovec part{seen.data(), seen.size()};
    if (!seen.empty()) {
      EXPECT_EQ(static_cast<long>(seen.size()), server->read(&part, 1, false));
    }
    EXPECT_EQ(text, seen);
    EXPECT_EQ(ECONNRESET, server->take_error());
    server->release();
  }
};

TEST_F(ResetThroughAStarvedWire, LingerZero) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::linger_s, 0));
  pair_.client_wire().refuse = true;
  const std::string text(10'000, 'z');
  ASSERT_EQ(10'000, send_text(*client, text));
  client->release();
  expect_delivery(server, text);
}

TEST_F(ResetThroughAStarvedWire, Unread) {
  auto [client, server] = connected();
  send_text(*server, "unread");
  pair_.settle();
  pair_.client_wire().refuse = true;
  ASSERT_EQ(3, send_text(*client, "end"));
  client->release();
  expect_delivery(server, "end");
}

TEST_F(ResetThroughAStarvedWire, NothingWritten) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::linger_s, 0));
  pair_.client_wire().refuse = true;
  client->release();
  expect_delivery(server, "");
}

TEST_F(ResetThroughAStarvedWire, OfAQueueThatNobodyAccepted) {
  TcpListener* listener = listen(80);
  TcpStream* client = connect(80);
  ASSERT_TRUE(pair_.until([&] { return client->connected() && (listener->ready() & EPOLLIN) != 0; }));
  pair_.server_wire().refuse = true;
  listener->release();
  pair_.server->flush();
  pair_.pass(100);
  EXPECT_EQ(0, client->take_error());
  pair_.server_wire().refuse = false;
  pair_.settle();
  EXPECT_EQ(ECONNRESET, client->take_error());
  client->release();
}

// The peer resets first, or never has the wire back: the stream ends all the same (the fixture counts).
TEST_F(ResetThroughAStarvedWire, WhosePeerIsGone) {
  auto [client, server] = connected();
  ASSERT_EQ(0, client->set_option(TcpOption::linger_s, 0));
  ASSERT_EQ(0, server->set_option(TcpOption::linger_s, 0));
  pair_.client_wire().refuse = true;
  client->release();
  server->release();
  pair_.settle();
  EXPECT_EQ(client_before_.streams, pair_.client->levels().streams);
  pair_.client_wire().refuse = false;
}

// Minshall's variant: the end of a large write goes with the rest, a second short segment waits for the first.
TEST_F(TcpOutput, OnlyOneShortSegmentIsInFlight) {
  auto [client, server] = connected();
  send_text(*client, std::string(5000, 'a'));
  pair_.client->flush();
  pair_.server->poll(test_clock->now_ns);
  EXPECT_EQ(5000u, server->readable_bytes());
  send_text(*client, "short");
  pair_.client->flush();
  pair_.server->poll(test_clock->now_ns);
  EXPECT_EQ(5000u, server->readable_bytes());
  pair_.pass(100);
  EXPECT_EQ(5005u, text_of(*server).size());
  client->release();
  server->release();
}

// Nobody can add to what a full send buffer holds: it leaves, short segments, cork and all.
TEST_F(TcpOutput, AFullSendBufferLeaves) {
  for (const bool cork : {false, true}) {
    auto [client, server] = connected();
    ASSERT_EQ(0, client->set_option(TcpOption::send_buffer_bytes, 4000));
    ASSERT_EQ(0, client->set_option(TcpOption::cork, cork));
    EXPECT_EQ(4000, send_text(*client, std::string(5000, 'f')));
    pair_.client->flush();
    pair_.server->poll(test_clock->now_ns);
    EXPECT_EQ(4000u, server->readable_bytes()) << "cork " << cork;
    EXPECT_EQ(4000u, text_of(*server).size());
    client->release();
    server->release();
  }
}

// Where a frame costs a kernel call.
class DearAcknowledgements : public TcpOutput {
 protected:
  DearAcknowledgements() { pair_ = Pair::get(Segments::by_reference); }
  void SetUp() override {
    TcpOutput::SetUp();
    std::tie(client_, server_) = connected();
    send_text(*client_, "short");
    pair_.settle();
    EXPECT_EQ(5u, server_->readable_bytes());
    EXPECT_EQ(5u, client_->unsent_bytes()) << "nobody has read it yet";
  }
  void TearDown() override {
    client_->release();
    server_->release();
    TcpOutput::TearDown();
  }
  void by_another_thread(const std::function<void()>& deed) {
    std::thread([&] {
      const netstack::StackLock lock(*pair_.server);
      deed();
    }).join();
  }
  TcpStream *client_ = nullptr, *server_ = nullptr;
};

TEST_F(DearAcknowledgements, LeaveWhenTheReaderComesForMore) {
  EXPECT_EQ("short", text_of(*server_));
  pair_.settle();
  EXPECT_EQ(0u, client_->unsent_bytes());
}

TEST_F(DearAcknowledgements, LeaveWhenTheReaderHasOnlyPeeked) {
  char byte;
  iovec part{&byte, 1};
  EXPECT_EQ(1, server_->read(&part, 1, true));
  pair_.settle();
  EXPECT_EQ(0u, client_->unsent_bytes());
}

TEST_F(DearAcknowledgements, DoNotLeaveForThreadsThatHaveNotRead) {
  by_another_thread([&] { EXPECT_EQ("short", text_of(*server_)); });
  pair_.settle();
  EXPECT_EQ(5u, client_->unsent_bytes());
  EXPECT_LE(pair_.server->next_timer_ns(), test_now() + kMs) << "or for a while";
  pair_.pass(1, 1);
  EXPECT_EQ(0u, client_->unsent_bytes());
}

TEST_F(DearAcknowledgements, LeaveWithTheAnswer) {
  by_another_thread([&] {
    EXPECT_EQ("short", text_of(*server_));
    EXPECT_EQ(6, send_text(*server_, "answer"));
  });
  pair_.settle();
  EXPECT_EQ(0u, client_->unsent_bytes());
  EXPECT_EQ("answer", text_of(*client_));
}

TEST_F(DearAcknowledgements, OfWhatNobodyReadsLeaveSoon) {
  EXPECT_LE(pair_.server->next_timer_ns(), test_now() + 10 * kMs);
  pair_.pass(10, 1);
  EXPECT_EQ(0u, client_->unsent_bytes());
  EXPECT_EQ(5u, server_->readable_bytes());
  EXPECT_EQ("short", text_of(*server_));
}

// A program that is told of so many bytes only has to get them.
TEST_F(DearAcknowledgements, DoNotWaitForWhoIsNotTold) {
  EXPECT_EQ("short", text_of(*server_));
  ASSERT_EQ(0, server_->set_option(TcpOption::receive_low_water, 20));
  send_text(*client_, "less than that");
  pair_.settle();
  EXPECT_EQ(14u, server_->readable_bytes());
  EXPECT_EQ(0u, client_->unsent_bytes());
  EXPECT_EQ("less than that", text_of(*server_));
}

// Who only reads acknowledges what was pushed when it has read it; who answers lets the answer do so.
TEST_F(TcpOutput, AReaderAcknowledgesWhatItHasRead) {
  auto [client, server] = connected();
  for (int i = 0; i < 16; i++) {  // the first are not delayed (TCP_MAX_QUICKACKS)
    send_text(*client, "quick");
    pair_.settle();
    EXPECT_EQ(0u, client->unsent_bytes());
    EXPECT_EQ(5u, text_of(*server).size());
  }
  send_text(*client, "push");
  pair_.settle();
  EXPECT_EQ(4u, client->unsent_bytes()) << "a delayed acknowledgement";
  EXPECT_EQ(4u, text_of(*server).size());
  pair_.settle();
  EXPECT_EQ(0u, client->unsent_bytes());
  send_text(*server, "answer");
  pair_.settle();
  send_text(*client, "and again");
  pair_.settle();
  EXPECT_EQ(9u, text_of(*server).size());
  send_text(*server, "answer");
  const uint64_t before = pair_.server_wire().sent;
  pair_.server->flush();
  EXPECT_EQ(before + 1, pair_.server_wire().sent) << "one segment for both";
  pair_.settle();
  send_text(*client, "no answer");
  pair_.settle();
  EXPECT_EQ(9u, text_of(*server).size());
  pair_.settle();
  EXPECT_EQ(9u, client->unsent_bytes());
  pair_.pass(100);
  EXPECT_EQ(0u, client->unsent_bytes());
  text_of(*client);
  client->release();
  server->release();
}

// Whoever writes much has looked at the acknowledgements of it before the next write: their memory is there for that.
TEST_F(TcpOutput, AWriterLooksAtWhatHasCome) {
  auto [client, server] = connected();
  auto [other_client, other_server] = connected();
  for (int i = 0; i < 8; i++) {  // so that the window lets all of it out
    send_text(*server, std::string(100'000, 'w'));
    pair_.settle();
    text_of(*client);
    pair_.settle();
  }
  send_text(*server, std::string(100'000, 'm'));
  send_text(*other_server, "now it leaves");
  for (int i = 0; i < 2; i++) {
    pair_.client->poll(test_clock->now_ns);
    text_of(*client);
  }
  EXPECT_EQ(100'000u, server->unsent_bytes());
  send_text(*other_server, std::string(70'000, 'm'));
  send_text(*other_server, "now they are seen");
  EXPECT_LT(server->unsent_bytes(), 2 * 1460u) << "but for a delayed one";
  text_of(*other_client);
  pair_.settle();
  text_of(*other_client);
  pair_.settle();
  for (TcpStream* stream : {client, server, other_client, other_server}) stream->release();
}

// A wire that takes few frames at a time takes them from each in turn.
TEST_F(TcpOutput, StreamsShareANarrowWire) {
  constexpr size_t kStreams = 12;
  TcpListener* listener = listen(80);
  std::vector<TcpStream*> clients, servers;
  for (size_t i = 0; i < kStreams; i++) {
    clients.push_back(connect(80));
    ASSERT_TRUE(pair_.until([&] {
      if (TcpStream* server = accept(*listener)) servers.push_back(server);
      return servers.size() == clients.size();
    }));
  }
  listener->release();
  struct Meter {
    MemoryWire* wire;
    int left;
  } meter{&pair_.client_wire(), 0};
  pair_.client_wire().hook_argument = &meter;
  pair_.client_wire().hook = [](void* argument) {
    auto* m = static_cast<Meter*>(argument);
    m->wire->refuse = m->left-- <= 0;
  };
  std::vector<size_t> got(kStreams);
  const std::string piece(100'000, 'n');
  for (int turn = 0; turn < 2000; turn++) {
    for (TcpStream* client : clients) (void)send_text(*client, piece);
    meter.left = 30;
    test_clock->now_ns += kMs;
    pair_.client->poll(test_clock->now_ns);
    pair_.server->poll(test_clock->now_ns);
    for (size_t i = 0; i < kStreams; i++) got[i] += text_of(*servers[i]).size();
    pair_.server->flush();
  }
  pair_.client_wire().hook = nullptr;
  pair_.client_wire().refuse = false;
  const auto [least, most] = std::minmax_element(got.begin(), got.end());
  EXPECT_GT(*least, 0u);
  EXPECT_LT(*most, 2 * *least);
  for (size_t i = 0; i < kStreams; i++) {
    ASSERT_EQ(0, clients[i]->set_option(TcpOption::linger_s, 0));
    clients[i]->release();
    servers[i]->release();
  }
}

// Whose stream has nothing to send hears of no acknowledgement and of no tick; but it waits to write, and others have filled the memory.
TEST_F(TcpOutput, WhoWaitsForMemoryIsToldWithAnEmptyQueue) {
  auto link = MemoryLink::make(Segments::unchecked);
  Stack* stacks[2];
  for (int i = 0; i < 2; i++) {
    netstack::StackPlan plan;
    plan.wire = &link->ends[i];
    plan.address_be = inet_addr(i == 0 ? kClientIp : kServerIp);
    plan.now_ns = test_now;
    plan.arena_bytes = 2 << 20;
    auto stack = netstack::build_stack(plan);
    ASSERT_TRUE(static_cast<bool>(stack));
    stacks[i] = *stack;
  }
  Pair small{link, stacks[0], stacks[1]};
  long error = 0;
  TcpListener* listener = small.server->listen({address("0.0.0.0", 80)}, nullptr, 200, &error);
  std::vector<TcpStream*> clients, servers;
  for (int i = 0; i < 150; i++) {
    clients.push_back(small.client->make_stream());
    ASSERT_EQ(0, clients.back()->connect(address(kServerIp, 80)));
    ASSERT_TRUE(small.until([&] {
      SocketAddress peer;
      TcpStream* server = listener->accept(&peer, &error);
      if (server != nullptr) servers.push_back(server);
      return servers.size() == clients.size();
    }));
  }
  small.pass(1000, 50);
  struct Told final : netstack::Observer {
    uint32_t events = 0;
    void on_ready(netstack::Pollable&, uint32_t what) noexcept override { events |= what; }
  } told;
  TcpStream* idle = clients.back();
  for (int round = 0; round < 4; round++) {
    for (size_t i = 0; i + 1 < clients.size(); i++) (void)send_text(*clients[i], std::string(200'000, 'm'));
  }
  ASSERT_EQ(0u, idle->ready() & EPOLLOUT) << "the memory is full";
  idle->observers.push_back(&told);
  EXPECT_TRUE(small.until([&] {
    for (TcpStream* server : servers) (void)read_some(*server, 50'000);
    return (told.events & EPOLLOUT) != 0;
  }, 5000));
  told.unlink();
  EXPECT_NE(0u, idle->ready() & EPOLLOUT);
  for (TcpStream* client : clients) client->release();
  EXPECT_TRUE(small.until([&] {
    for (TcpStream* server : servers) (void)read_some(*server, 50'000);
    return small.client->levels().streams == 0;
  }));
  for (TcpStream* server : servers) server->release();
  listener->release();
}

// TIME-WAIT has no timer that would repeat it, and a process that ends has no time to wait until the peer repeats its FIN.
TEST_F(TcpOutput, TheLastAcknowledgementLeavesWhenTheWireTakesFramesAgain) {
  for (const bool released_first : {true, false}) {
    auto [client, server] = connected();
    ASSERT_EQ(0, client->shutdown(SHUT_WR));
    if (released_first) client->release();
    pair_.settle();
    ASSERT_EQ(0, read_some(*server));
    pair_.client_wire().refuse = true;
    server->release();
    pair_.settle();
    EXPECT_EQ(1, pair_.server->levels().pcbs) << "LAST-ACK";
    if (!released_first) {
      EXPECT_EQ(0, read_some(*client));
      client->release();
    }
    EXPECT_EQ(1, pair_.client->levels().time_wait);
    EXPECT_FALSE(pair_.client->all_sent());
    pair_.settle();
    pair_.client_wire().refuse = false;
    pair_.settle();
    EXPECT_EQ(0, pair_.server->levels().pcbs);
    EXPECT_TRUE(pair_.client->all_sent());
    pair_.pass(2000, 50);
  }
}

}  // namespace
}  // namespace netstack_test
