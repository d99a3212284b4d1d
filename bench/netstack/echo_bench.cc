// What one request costs the server's stack: 60-byte requests and replies over a wire in memory, by number of connections.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: echo_bench [connections [seconds]]. Client and server run in turn on one core; the figure is the server's share of the
// CPU time (not of the wall clock, so that other programs on the core do not count).
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sys/epoll.h>
#include <vector>

#include "base/clock.h"
#include "netstack/lwip/build_stack.h"
#include "tests/netstack/memory_wire.h"

namespace {

using netstack::Stack;
using netstack::TcpStream;

constexpr size_t kMessage = 60;

struct Ready final : netstack::Observer {
  void on_ready(netstack::Pollable&, uint32_t) noexcept override {
    if (!queued) list->push_back(this);
    queued = true;
  }
  TcpStream* stream = nullptr;
  std::vector<Ready*>* list = nullptr;
  bool queued = false;
};

struct Side {
  Stack* stack = nullptr;
  std::vector<Ready*> ready;
  std::vector<Ready> watched;

  explicit Side(int connections) : watched(static_cast<size_t>(connections)) { ready.reserve(watched.size()); }
  void watch(size_t i, TcpStream* stream) {
    watched[i].stream = stream;
    watched[i].list = &ready;
    stream->observers.push_back(&watched[i]);
  }
  // One turn: poll, answer what is readable, send. Returns the messages answered.
  uint64_t turn(uint64_t now) {
    char buffer[4096];
    uint64_t answered = 0;
    (void)stack->poll(now);
    for (Ready* item : ready) {
      item->queued = false;
      iovec part{buffer, sizeof buffer};
      const long n = item->stream->read(&part, 1, false);
      if (n <= 0) continue;
      iovec reply{buffer, static_cast<size_t>(n)};
      answered += static_cast<uint64_t>(item->stream->write(&reply, 1, false)) / kMessage;
    }
    ready.clear();
    stack->flush();
    return answered;
  }
};

double cpu_ns() {
  timespec now;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

Stack* stack_on(netstack_test::MemoryWire& wire, const char* ip) {
  netstack::StackPlan plan;
  plan.wire = &wire;
  plan.address_be = inet_addr(ip);
  auto stack = netstack::build_stack(plan);
  if (!stack) {
    fprintf(stderr, "%s\n", stack.error().text);
    exit(1);
  }
  return *stack;
}

}  // namespace

int main(int argc, char** argv) {
  const int connections = argc > 1 ? atoi(argv[1]) : 50;
  const double seconds = argc > 2 ? atof(argv[2]) : 2;
  auto* link = netstack_test::MemoryLink::make(netstack_test::Segments::unchecked);
  Side client(connections), server(connections);
  client.stack = stack_on(link->ends[0], "198.18.0.1");
  server.stack = stack_on(link->ends[1], "198.18.0.2");
  long error = 0;
  auto* listener = server.stack->listen({{0, htons(80)}}, nullptr, connections, &error);
  for (int i = 0; i < connections; i++) {
    TcpStream* stream = client.stack->make_stream();
    if (stream->connect({inet_addr("198.18.0.2"), htons(80)}) != 0) return 1;
    TcpStream* accepted = nullptr;
    netstack::SocketAddress peer;
    while (accepted == nullptr || !stream->connected()) {
      (void)client.stack->poll(base::monotonic_ns());
      (void)server.stack->poll(base::monotonic_ns());
      if (accepted == nullptr) accepted = listener->accept(&peer, &error);
    }
    for (TcpStream* end : {stream, accepted}) (void)end->set_option(netstack::TcpOption::nodelay, 1);
    client.watch(static_cast<size_t>(i), stream);
    server.watch(static_cast<size_t>(i), accepted);
  }
  client.ready.clear();
  for (Ready& item : client.watched) item.queued = false;
  char message[kMessage] = "request";
  for (Ready& item : client.watched) {
    iovec part{message, kMessage};
    (void)item.stream->write(&part, 1, false);
  }
  client.stack->flush();

  uint64_t requests = 0, server_cycles = 0;
  const uint64_t start = base::monotonic_ns(), start_cycles = base::cycles();
  const double start_cpu = cpu_ns();
  uint64_t now = start;
  while (now - start < static_cast<uint64_t>(seconds * 1e9)) {
    now = base::monotonic_ns();
    const uint64_t before = base::cycles();
    requests += server.turn(now);
    server_cycles += base::cycles() - before;
    (void)client.turn(now);
  }
  const double cpu = cpu_ns() - start_cpu;
  const double share = static_cast<double>(server_cycles) / static_cast<double>(base::cycles() - start_cycles);
  printf("%d connections, %.2f M requests: %.0f ns of the server's CPU time per request (%.0f with the client's)\n", connections,
         static_cast<double>(requests) / 1e6, cpu * share / static_cast<double>(requests), cpu / static_cast<double>(requests));
}
