// Two stacks joined by a memory wire, with the test's own clock.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <vector>

#include "memory_wire.h"
#include "netstack/lwip/build_stack.h"

namespace netstack_test {

using netstack::IpAddress;
using netstack::SocketAddress;
using netstack::Stack;
using netstack::TcpListener;
using netstack::TcpOption;
using netstack::TcpStream;

inline constexpr uint64_t kMs = 1'000'000;

struct SharedClock {
  uint64_t now_ns = 1'000'000'000'000;
};
inline SharedClock* test_clock = new (map_shared(4096)) SharedClock();
inline uint64_t test_now() { return test_clock->now_ns; }

inline SocketAddress address(const char* text, uint16_t port) { return {inet_addr(text), htons(port)}; }

inline constexpr const char* kClientIp = "198.18.0.1";
inline constexpr const char* kServerIp = "198.18.0.2";
inline constexpr const char* kClientIp6 = "fdc6:1200::1";
inline constexpr const char* kServerIp6 = "fdc6:1200::2";

inline IpAddress ip6(const char* text) {
  IpAddress made;
  EXPECT_EQ(1, inet_pton(AF_INET6, text, made.words_be));
  return made;
}
inline SocketAddress address6(const char* text, uint16_t port) { return {ip6(text), htons(port)}; }

// The stacks are made once per process: an image is never unloaded. Each test starts and ends with everything closed.
struct Pair {
  MemoryLink* link;
  Stack* client;
  Stack* server;

  static Pair& get(Segments segments = Segments::checked) {
    static Pair pairs[3] = {make(Segments::unchecked), make(Segments::checked), make(Segments::by_reference)};
    return pairs[static_cast<int>(segments)];
  }

  static Pair make(Segments segments) { return make(MemoryLink::make(segments)); }
  static Pair make(MemoryLink* link) {
    Pair pair{};
    pair.link = link;
    Stack** stacks[2] = {&pair.client, &pair.server};
    const char *ips[2] = {kClientIp, kServerIp}, *ip6s[2] = {kClientIp6, kServerIp6};
    for (int i = 0; i < 2; i++) {
      netstack::StackPlan plan;
      plan.wire = &pair.link->ends[i];
      plan.address_be = inet_addr(ips[i]);
      plan.ip6[0] = {ip6(ip6s[i]), 64};
      plan.now_ns = test_now;
      plan.time_wait_ms = 1000;
      auto stack = netstack::build_stack(plan);
      if (!stack) {
        ADD_FAILURE() << stack.error().text;
        abort();
      }
      *stacks[i] = *stack;
    }
    return pair;
  }

  MemoryWire& client_wire() const { return link->ends[0]; }
  MemoryWire& server_wire() const { return link->ends[1]; }

  // Lets both stacks work until nothing is in flight; time stands still.
  void settle() const {
    for (int quiet = 0; quiet < 2;) {
      const int moved = client->poll(test_clock->now_ns) + server->poll(test_clock->now_ns);
      quiet = moved == 0 && link->ends[0].idle() && link->ends[1].idle() ? quiet + 1 : 0;
    }
  }
  // Lets `ms` milliseconds pass in steps.
  void pass(int ms, int step = 10) const {
    for (int passed = 0; passed < ms; passed += step) {
      test_clock->now_ns += static_cast<uint64_t>(step) * kMs;
      settle();
    }
  }
  // Until `done` holds, at most `ms` milliseconds of the test's time.
  bool until(const std::function<bool()>& done, int ms = 60'000) const {
    for (int passed = 0; passed < ms; passed += 5) {
      settle();
      if (done()) return true;
      test_clock->now_ns += 5 * kMs;
    }
    return done();
  }
};

inline std::string text_of(TcpStream& stream) {
  std::string all;
  char buffer[8192];
  iovec part{buffer, sizeof buffer};
  for (long n; (n = stream.read(&part, 1, false)) > 0;) all.append(buffer, static_cast<size_t>(n));
  return all;
}

inline long send_text(TcpStream& stream, const std::string& text, bool more = false) {
  iovec part{const_cast<char*>(text.data()), text.size()};
  return stream.write(&part, 1, more);
}

inline long read_some(TcpStream& stream, size_t bytes = 100) {
  std::vector<char> buffer(bytes);
  iovec part{buffer.data(), bytes};
  return stream.read(&part, 1, false);
}

class StackTest : public testing::Test {
 protected:
  void SetUp() override {
    make_contact();
    pair_.settle();
    client_before_ = pair_.client->levels();
    server_before_ = pair_.server->levels();
  }
  void TearDown() override {
    for (int i = 0; i < 2; i++) pair_.link->ends[i].impairment = {};
    pair_.pass(40'000, 50);
    check_level(client_before_, pair_.client->levels());
    check_level(server_before_, pair_.server->levels());
  }
  // Both stacks know each other's MAC, as after any earlier traffic: a test that cuts the wire then loses what it means to lose.
  void make_contact() {
    pair_.settle();
    for (Stack* from : {pair_.client, pair_.server}) {
      TcpStream* probe = from->make_stream();
      EXPECT_EQ(0, probe->connect(address(from == pair_.client ? kServerIp : kClientIp, 1)));
      EXPECT_TRUE(pair_.until([&] { return !probe->connecting(); }));
      EXPECT_EQ(ECONNREFUSED, probe->take_error());
      probe->release();
    }
    pair_.pass(20'000, 100);
  }
  static void check_level(const netstack::PoolLevels& before, const netstack::PoolLevels& after) {
    EXPECT_EQ(before.arena_bytes, after.arena_bytes);
    EXPECT_EQ(before.streams, after.streams);
    EXPECT_EQ(before.listeners, after.listeners);
    EXPECT_EQ(before.bindings, after.bindings);
    EXPECT_EQ(before.pcbs, after.pcbs);
    EXPECT_EQ(before.half_open, after.half_open);
    EXPECT_EQ(before.free_frames, after.free_frames);
  }

  TcpListener* listen(uint16_t port, int backlog = 128, bool reuse_port = false) {
    long error = 1;
    TcpListener* listener = pair_.server->listen({address("0.0.0.0", port), {true, reuse_port}}, nullptr, backlog, &error);
    EXPECT_EQ(0, error);
    return listener;
  }
  TcpStream* connect(uint16_t port) {
    TcpStream* stream = pair_.client->make_stream();
    EXPECT_EQ(0, stream->connect(address(kServerIp, port)));
    return stream;
  }
  TcpStream* accept(TcpListener& listener) {
    SocketAddress peer;
    long error = 0;
    return listener.accept(&peer, &error);
  }
  // A connection, both ends established.
  std::pair<TcpStream*, TcpStream*> connected(uint16_t port = 80) {
    TcpListener* listener = listen(port);
    TcpStream* client = connect(port);
    TcpStream* server = nullptr;
    pair_.until([&] { return server != nullptr || (server = accept(*listener)) != nullptr; });
    EXPECT_NE(nullptr, server);
    EXPECT_TRUE(client->connected());
    listener->release();
    return {client, server};
  }

  Pair pair_ = Pair::get();
  netstack::PoolLevels client_before_{}, server_before_{};
};

}  // namespace netstack_test
