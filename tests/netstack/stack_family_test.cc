// A stack shared by forked processes: what a child does the parent sees, and a child that dies inside the lock takes nothing with it.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <csignal>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/killed.h"

using namespace netstack_test;

namespace {

class Family : public StackTest {
 protected:
  // Runs `work` in a child and returns its wait status.
  static int in_child(const std::function<void()>& work) {
    const pid_t child = fork();
    if (child == 0) {
      base::forget_thread_id();
      work();
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    EXPECT_EQ(child, waitpid(child, &status, 0));
    return status;
  }
  std::vector<TcpStream*> connect_many(int count) {
    std::vector<TcpStream*> clients;
    for (int i = 0; i < count; i++) {
      clients.push_back(connect(80));
      if (i % 100 == 99) pair_.settle();
    }
    pair_.pass(1000);
    return clients;
  }
  // How many of them were reset; all are released.
  static int release_reset(const std::vector<TcpStream*>& clients) {
    int reset = 0;
    for (TcpStream* client : clients) {
      reset += client->take_error() == ECONNRESET ? 1 : 0;
      client->release();
    }
    return reset;
  }
};

struct Recorder final : netstack::Observer {
  void on_ready(netstack::Pollable&, uint32_t events) noexcept override { seen |= events; }
  uint32_t seen = 0;
};

TEST_F(Family, ParentSeesWhatTheChildDid) {
  TcpListener* listener = listen(80);
  TcpStream* client = pair_.client->make_stream();
  const int status = in_child([&] {
    netstack::StackLock client_lock(*pair_.client);
    netstack::StackLock server_lock(*pair_.server);
    EXPECT_EQ(0, client->connect(address(kServerIp, 80)));
    pair_.settle();
    EXPECT_TRUE(client->connected());
    EXPECT_EQ(4, send_text(*client, "kids"));
    pair_.settle();
  });
  ASSERT_EQ(0, status);
  EXPECT_TRUE(client->connected());
  TcpStream* server = accept(*listener);
  ASSERT_NE(nullptr, server);
  EXPECT_EQ("kids", text_of(*server));
  // Both drive the connection in turn, through lwIP's own globals.
  for (int turn = 0; turn < 5; turn++) {
    EXPECT_EQ(0, in_child([&] {
      EXPECT_EQ(4, send_text(*server, "back"));
      pair_.settle();
    }));
    EXPECT_EQ("back", text_of(*client));
    EXPECT_EQ(5, send_text(*client, "forth"));
    pair_.settle();
    EXPECT_EQ(0, in_child([&] { EXPECT_EQ("forth", text_of(*server)); }));
  }
  client->release();
  server->release();
  listener->release();
}

void die(void*) { (void)kill(getpid(), SIGKILL); }

TEST_F(Family, DeathInsideTheLockResetsAndGoesOn) {
  TcpListener* listener = listen(80);
  std::vector<TcpStream*> clients, servers;
  for (int i = 0; i < 10; i++) {
    clients.push_back(connect(80));
    pair_.settle();
    servers.push_back(accept(*listener));
    ASSERT_NE(nullptr, servers.back());
  }
  TcpStream* waiting = connect(80);  // stays in the accept queue
  pair_.settle();
  TcpStream* fresh = pair_.server->make_stream();
  Recorder recorder;
  servers[0]->observers.push_back(&recorder);
  for (TcpStream* client : clients) send_text(*client, std::string(30'000, 'd'));

  const int status = in_child([&] {
    (void)pair_.server->lock.lock();
    pair_.server_wire().hook = die;  // the next frame that is given back, in the middle of poll()
    pair_.settle();
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  pair_.server_wire().hook = nullptr;
  {
    netstack::StackLock lock(*pair_.server);
    EXPECT_NE(0u, recorder.seen & EPOLLERR);
    EXPECT_NE(0u, servers[0]->ready() & (EPOLLERR | EPOLLHUP));
    EXPECT_EQ(static_cast<uint32_t>(EPOLLOUT | EPOLLWRNORM | EPOLLHUP), fresh->ready());
    recorder.unlink();
    for (TcpStream* server : servers) {
      EXPECT_EQ(-ECONNRESET, read_some(*server));
      EXPECT_EQ(0, read_some(*server));
      server->release();
    }
    fresh->release();
    EXPECT_EQ(server_before_.streams, pair_.server->levels().streams);
    EXPECT_EQ(nullptr, accept(*listener)) << "the accept queue is empty";
  }
  pair_.settle();  // the resets for the clients have waited for the neighbour's address
  EXPECT_EQ(server_before_.arena_bytes, pair_.server->levels().arena_bytes);
  // The listener lives.
  TcpStream* again = connect(80);
  TcpStream* served = nullptr;
  EXPECT_TRUE(pair_.until([&] { return (served = accept(*listener)) != nullptr; }));
  send_text(*again, "alive");
  pair_.settle();
  ASSERT_NE(nullptr, served);
  EXPECT_EQ("alive", text_of(*served));
  pair_.pass(2000);
  for (TcpStream* client : clients) {
    EXPECT_EQ(ECONNRESET, client->take_error());
    client->release();
  }
  (void)waiting->set_option(TcpOption::linger_s, 0);
  waiting->release();
  again->release();
  served->release();
  listener->release();
}

// What peers go on sending while the family recovers is answered too: by then more than the neighbour's queue holds.
TEST_F(Family, ResetsAreNotLostAmongAnswers) {
  constexpr int kConnections = 20, kSegments = 400;
  TcpListener* listener = listen(80);
  std::vector<TcpStream*> clients, servers;
  for (int i = 0; i < kConnections; i++) {
    clients.push_back(connect(80));
    pair_.settle();
    servers.push_back(accept(*listener));
    ASSERT_NE(nullptr, servers.back());
  }
  static std::vector<uint8_t> segment;
  pair_.client_wire().tap = [](const uint8_t* data, uint32_t length) { segment.assign(data, data + length); };
  send_text(*clients.back(), "a segment");
  pair_.settle();
  pair_.client_wire().tap = nullptr;

  pair_.server->recover();
  for (int i = 0; i < kSegments; i++) pair_.server_wire().deliver(segment.data(), static_cast<uint32_t>(segment.size()));
  pair_.pass(2000);
  for (TcpStream* client : clients) {
    EXPECT_EQ(ECONNRESET, client->take_error());
    client->release();
  }
  for (TcpStream* server : servers) server->release();
  listener->release();
}

// More connections than the wire takes frames at a time.
TEST_F(Family, EveryPeerOfManyIsTold) {
  constexpr int kConnections = 3000;
  TcpListener* listener = listen(80, 4096);
  const std::vector<TcpStream*> clients = connect_many(kConnections);
  for (TcpStream* client : clients) ASSERT_TRUE(client->connected());
  pair_.server->recover();
  pair_.pass(3000);
  EXPECT_EQ(kConnections, release_reset(clients));
  listener->release();
}

// So long that the neighbour tables forget; they notice when something is sent.
void forget_neighbours(const Pair& pair) {
  pair.pass(400'000, 1000);
  TcpStream* probe = pair.server->make_stream();
  EXPECT_EQ(0, probe->connect(address("198.18.0.77", 1)));
  pair.pass(2000);
  probe->release();
}

// The peer has not been heard of for long: its address is asked for, and more is owed to it than may wait for the answer.
TEST_F(Family, EveryPeerIsToldThatIsNotKnownAnyMore) {
  constexpr int kConnections = 500;
  TcpListener* listener = listen(80, 4096);
  const std::vector<TcpStream*> clients = connect_many(kConnections);
  std::vector<TcpStream*> servers;
  while (TcpStream* server = accept(*listener)) servers.push_back(server);
  ASSERT_EQ(size_t{kConnections}, servers.size());
  forget_neighbours(pair_);
  pair_.server->recover();
  pair_.pass(1000);
  EXPECT_EQ(kConnections, release_reset(clients));
  for (TcpStream* server : servers) server->release();
  listener->release();
}

TEST_F(Family, ANeighbourThatIsGoneIsNotWaitedForLong) {
  auto [client, server] = connected();
  forget_neighbours(pair_);
  pair_.client_wire().cut = true;
  pair_.server->recover();
  pair_.pass(20'000);
  EXPECT_GT(pair_.server->next_timer_ns(), test_clock->now_ns + 500 * kMs);
  pair_.client_wire().cut = false;
  EXPECT_TRUE(client->connected());
  send_text(*client, "who is there?");
  EXPECT_TRUE(pair_.until([&, c = client] { return !c->connected(); }, 10'000));
  client->release();
  server->release();
}

// The wire had to begin anew as well, and nobody was at its other end when the resets were sent.
TEST_F(Family, WhoeverComesToTheWireAfterwardsIsTold) {
  auto [client, server] = connected();
  pair_.client_wire().cut = true;
  pair_.server->recover();
  pair_.pass(100);
  pair_.client_wire().cut = false;
  EXPECT_TRUE(client->connected());
  pair_.server_wire().new_peer();
  pair_.pass(100);
  EXPECT_EQ(ECONNRESET, client->take_error());
  client->release();
  server->release();
}

TEST_F(Family, NothingIsToBeDeliveredAfterwards) {
  auto [client, server] = connected();
  pair_.client_wire().cut = true;
  send_text(*server, "last words");
  pair_.settle();
  EXPECT_EQ(10u, server->unsent_bytes());
  pair_.client_wire().cut = false;
  pair_.server->recover();
  EXPECT_EQ(0u, server->unsent_bytes());
  pair_.pass(1000);
  client->release();
  server->release();
}

// The program has closed, and what it had sent last is lost with the stack: the peer, who only waits for it, must hear of that.
TEST_F(Family, AReleasedConnectionsPeerIsTold) {
  auto [client, server] = connected();
  pair_.client_wire().cut = true;
  send_text(*server, "last words");
  server->release();
  pair_.settle();
  pair_.client_wire().cut = false;
  pair_.server->recover();
  EXPECT_TRUE(pair_.until([&] { return !client->connected(); }, 5000));
  EXPECT_EQ(ECONNRESET, client->take_error());
  client->release();
}

// The peer believes itself connected, and waits for a greeting; the ACK that says so went down with the stack. Its SYN did not.
TEST_F(Family, AHalfOpenConnectionGoesOn) {
  TcpListener* listener = listen(80);
  TcpStream* knows = connect(80);
  (void)pair_.client->poll(test_clock->now_ns);
  (void)pair_.server->poll(test_clock->now_ns);
  pair_.server_wire().cut = true;
  (void)pair_.client->poll(test_clock->now_ns);
  ASSERT_TRUE(knows->connected());
  pair_.client_wire().cut = true;
  pair_.server_wire().cut = false;
  TcpStream* knows_not = connect(80);
  pair_.settle();
  pair_.server->poll(test_clock->now_ns);
  ASSERT_TRUE(knows_not->connecting());
  pair_.client_wire().cut = false;

  pair_.server->recover();
  std::vector<TcpStream*> served;
  EXPECT_TRUE(pair_.until([&] {
    if (TcpStream* server = accept(*listener)) served.push_back(server);
    return served.size() == 2;
  }, 5000));
  for (TcpStream* client : {knows, knows_not}) {
    EXPECT_TRUE(client->connected());
    EXPECT_EQ(0, client->take_error());
    client->release();
  }
  for (TcpStream* server : served) server->release();
  listener->release();
}

// Who keeps account of what he holds says so: the rest was being made or released by whoever died.
TEST_F(Family, WhatNobodyHoldsIsFreed) {
  auto [client, server] = connected();
  TcpListener* kept = listen(81);
  TcpListener* lost = listen(82);
  TcpStream* fresh = pair_.server->make_stream();
  TcpStream* released = pair_.server->make_stream();
  released->release();
  pair_.server->forget_holders();
  EXPECT_TRUE(pair_.server->hold(server));
  EXPECT_FALSE(pair_.server->hold(server)) << "twice";
  EXPECT_FALSE(pair_.server->hold(released));
  EXPECT_FALSE(pair_.server->hold(static_cast<TcpStream*>(nullptr)));
  EXPECT_FALSE(pair_.server->hold(reinterpret_cast<TcpStream*>(reinterpret_cast<char*>(server) + 8)));
  EXPECT_TRUE(pair_.server->hold(kept));
  EXPECT_FALSE(pair_.server->hold(reinterpret_cast<TcpListener*>(server)));
  pair_.server->recover();
  (void)fresh, (void)lost;
  const auto levels = pair_.server->levels();
  EXPECT_EQ(1, levels.streams);
  EXPECT_EQ(1, levels.listeners);
  server->release();
  kept->release();
  pair_.pass(2000);
  client->release();
}

// Whoever recovers dies as well, anywhere on its way.
TEST_F(Family, DeathInTheRecovery) {
  constexpr int kSamples = 30;
  int deaths = 0;
  std::mt19937 random(std::random_device{}());
  uint64_t all_ns = 10'000'000'000;
  for (int sample = 0; sample <= kSamples; sample++) {
    TcpListener* listener = listen(80);
    TcpStream* client = connect(80);
    pair_.settle();
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server);
    send_text(*client, "lost");
    const uint64_t most_ns = sample == 0 ? all_ns : random() % all_ns;
    const auto fork_child = [] {
      const pid_t child = fork();
      if (child == 0) base::forget_thread_id();
      return child;
    };
    const uint64_t took_ns = kill_after(most_ns, fork_child, [&] {
      (void)pair_.server->lock.lock();
      pair_.server->recover();
    });
    if (sample == 0) all_ns = took_ns;
    // On a busy machine it may have died before it had the lock: nothing has happened then.
    if (pair_.server->lock.lock() == base::RobustLock::Taken::owner_died) {
      deaths++;
      pair_.server->recover();
      EXPECT_EQ(-ECONNRESET, read_some(*server)) << "killed after " << most_ns << " of " << all_ns << " ns";
    }
    server->release();
    pair_.server->lock.unlock();
    pair_.pass(1000);
    client->release();
    TcpStream* again = connect(80);
    TcpStream* served = nullptr;
    ASSERT_TRUE(pair_.until([&] { return (served = accept(*listener)) != nullptr; }))
        << "killed after " << most_ns << " of " << all_ns << " ns";
    send_text(*again, "alive");
    pair_.settle();
    EXPECT_EQ("alive", text_of(*served));
    again->release();
    served->release();
    listener->release();
    pair_.pass(3000, 50);
  }
  EXPECT_GT(deaths, 0);
}

TEST_F(Family, DeathAtEachPointOfAConversation) {
  // The child dies at its nth frame; the parent recovers and serves a new connection each time.
  static int countdown;
  for (int n = 1; n <= 12; n++) {
    TcpListener* listener = listen(80);
    const int status = in_child([&] {
      (void)pair_.server->lock.lock();
      countdown = n;
      pair_.server_wire().hook = [](void*) {
        if (--countdown == 0) die(nullptr);
      };
      TcpStream* client = connect(80);
      pair_.settle();
      TcpStream* server = accept(*listener);
      if (server == nullptr) _exit(1);
      for (int i = 0; i < 20; i++) {
        send_text(*client, std::string(4000, 'c'));
        pair_.settle();
        text_of(*server);
        send_text(*server, std::string(40'000, 's'));
        pair_.settle();
        text_of(*client);
      }
      _exit(0);
    });
    ASSERT_TRUE(WIFSIGNALED(status)) << n;
    pair_.server_wire().hook = nullptr;
    // The client stack was not in use when the child died, but its stream is the dead child's: nobody will release it.
    pair_.client->recover();
    netstack::StackLock lock(*pair_.server);
    pair_.settle();
    client_before_ = pair_.client->levels();
    TcpStream* client = connect(80);
    TcpStream* server = nullptr;
    ASSERT_TRUE(pair_.until([&] { return (server = accept(*listener)) != nullptr; })) << n;
    send_text(*client, "next");
    pair_.settle();
    EXPECT_EQ("next", text_of(*server)) << n;
    client->release();
    server->release();
    listener->release();
    pair_.pass(3000, 50);
    server_before_ = pair_.server->levels();
    EXPECT_EQ(0u, server_before_.arena_bytes) << n;
  }
}

}  // namespace
