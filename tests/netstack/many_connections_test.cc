// The cost of a request does not grow with the number of connections, nor does opening and closing them.
// SPDX-License-Identifier: BSD-3-Clause
#include "stack_pair.h"

#include <algorithm>
#include <ctime>

using namespace netstack_test;

namespace {

double cpu_ns() {
  timespec now;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

struct Crowd {
  std::vector<TcpStream*> clients, servers;

  // One request and its answer on each of `count` connections from `start` on, 32 at a time.
  void converse(const Pair& pair, size_t start, size_t count) {
    for (size_t i = 0; i < count; i += 32) {
      const size_t end = std::min(i + 32, count);
      for (size_t k = i; k < end; k++) send_text(*at(clients, start + k), "a request of some forty bytes, as is usual");
      pair.settle();
      for (size_t k = i; k < end; k++) {
        char buffer[100];
        iovec part{buffer, sizeof buffer};
        const long n = at(servers, start + k)->read(&part, 1, false);
        part.iov_len = n > 0 ? static_cast<size_t>(n) : 0;
        ASSERT_EQ(42, n);
        ASSERT_EQ(n, at(servers, start + k)->write(&part, 1, false));
      }
      pair.settle();
      for (size_t k = i; k < end; k++) ASSERT_EQ(42, read_some(*at(clients, start + k)));
    }
  }
  static TcpStream* at(std::vector<TcpStream*>& streams, size_t i) { return streams[i % streams.size()]; }
};

class ManyConnections : public StackTest {
 protected:
  Crowd open(size_t count) {
    Crowd crowd;
    TcpListener* listener = listen(80, 256);
    while (crowd.clients.size() < count) {
      for (int i = 0; i < 64 && crowd.clients.size() < count; i++) crowd.clients.push_back(connect(80));
      pair_.settle();
      while (TcpStream* server = accept(*listener)) crowd.servers.push_back(server);
    }
    EXPECT_EQ(count, crowd.servers.size());
    listener->release();
    return crowd;
  }
  void close(Crowd& crowd) {
    for (TcpStream* client : crowd.clients) {
      client->release();
      if (rand() % 16 == 0) pair_.settle();
    }
    pair_.settle();
    for (TcpStream* server : crowd.servers) {
      EXPECT_EQ(0, read_some(*server));
      server->release();
    }
    pair_.settle();
  }
  // CPU time per request, the best of several rounds.
  double cost(Crowd& crowd) {
    constexpr size_t kRequests = 4096;
    double best = 1e18;
    for (size_t round = 0; round < 8; round++) {
      const double start = cpu_ns();
      crowd.converse(pair_, round * 37, kRequests);
      best = std::min(best, (cpu_ns() - start) / kRequests);
    }
    return best;
  }
};

TEST_F(ManyConnections, ARequestCostsTheSame) {
  pair_ = Pair::get(Segments::unchecked);
  SetUp();
  Crowd few = open(50);
  const double cost_of_few = cost(few);
  close(few);
  Crowd many = open(4096);
  const double cost_of_many = cost(many);
  RecordProperty("ns_per_request_50", static_cast<int>(cost_of_few));
  RecordProperty("ns_per_request_4096", static_cast<int>(cost_of_many));
  EXPECT_LT(cost_of_many, 1.5 * cost_of_few) << cost_of_few << " ns with 50 connections";
  close(many);
}

TEST_F(ManyConnections, TwentyThousandOpenAndClose) {
  Crowd crowd = open(20'000);
  crowd.converse(pair_, 0, 20'000);
  EXPECT_EQ(server_before_.pcbs + 20'000, pair_.server->levels().pcbs);
  // Idle connections cost no timer.
  pair_.pass(1000);
  EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
  close(crowd);
}

TEST_F(ManyConnections, ManyShortOnesInARow) {
  TcpListener* listener = listen(80, 64);
  for (int i = 0; i < 30'000; i++) {
    TcpStream* client = connect(80);
    pair_.settle();
    TcpStream* server = accept(*listener);
    ASSERT_NE(nullptr, server) << i;
    send_text(*client, "q");
    pair_.settle();
    ASSERT_EQ(1, read_some(*server));
    send_text(*server, "a");
    server->release();  // the server closes first and keeps TIME-WAIT, as HTTP/1.0
    pair_.settle();
    ASSERT_EQ(1, read_some(*client));
    ASSERT_EQ(0, read_some(*client));
    client->release();
    test_clock->now_ns += kMs / 10;
  }
  EXPECT_LE(pair_.server->levels().pcbs, 16'500) << "TIME-WAIT is bounded";
  listener->release();
}

// What many clients send at once is taken in one turn off a wire that may soon lose frames, and leaves the wire its frames, small as it is.
TEST_F(ManyConnections, ACrowdedWireIsEmptied) {
  constexpr size_t kCount = 1000;
  Crowd crowd = open(kCount);
  const auto is_asked = [](TcpStream* server) { return server->readable_bytes() == 9; };
  const auto readable = [&] { return std::count_if(crowd.servers.begin(), crowd.servers.end(), is_asked); };
  const int free_before = pair_.server_wire().free_frames();
  for (TcpStream* client : crowd.clients) ASSERT_EQ(9, send_text(*client, "a request"));
  pair_.client->flush();
  EXPECT_EQ(free_before - static_cast<int>(kCount), pair_.server_wire().free_frames());
  EXPECT_EQ(netstack::kBurst, pair_.server->poll(test_clock->now_ns));
  EXPECT_EQ(netstack::kBurst, readable()) << "as many as a program's turn is for";
  pair_.server_wire().crowd = true;
  EXPECT_EQ(static_cast<int>(kCount) - netstack::kBurst, pair_.server->poll(test_clock->now_ns));
  pair_.server_wire().crowd = false;
  EXPECT_EQ(static_cast<long>(kCount), readable());
  EXPECT_GE(pair_.server_wire().free_frames(), free_before - netstack::kBurst);
  for (TcpStream* server : crowd.servers) EXPECT_EQ("a request", text_of(*server));
  close(crowd);
}

}  // namespace
