// What a byte costs: one connection, 64 KB writes and reads over a wire in memory, both stacks in turn on one core.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: bulk_bench [seconds [checksums]]. Reports bytes per second of CPU time, sender and receiver together.
#include <arpa/inet.h>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "base/clock.h"
#include "netstack/lwip/build_stack.h"
#include "tests/netstack/memory_wire.h"

namespace {

using netstack::Stack;
using netstack::TcpStream;

double cpu_s() {
  timespec now;
  (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
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
  const double seconds = argc > 1 ? atof(argv[1]) : 2;
  auto* link = netstack_test::MemoryLink::make(argc > 2 ? netstack_test::Segments::checked : netstack_test::Segments::unchecked);
  Stack* client = stack_on(link->ends[0], "198.18.0.1");
  Stack* server = stack_on(link->ends[1], "198.18.0.2");
  long error = 0;
  auto* listener = server->listen({{0, htons(80)}}, nullptr, 1, &error);
  TcpStream* sender = client->make_stream();
  if (sender->connect({inet_addr("198.18.0.2"), htons(80)}) != 0) return 1;
  TcpStream* receiver = nullptr;
  netstack::SocketAddress peer;
  while (receiver == nullptr) {
    (void)client->poll(base::monotonic_ns());
    (void)server->poll(base::monotonic_ns());
    receiver = listener->accept(&peer, &error);
  }
  std::vector<char> buffer(65536);
  iovec part{buffer.data(), buffer.size()};
  uint64_t bytes = 0;
  const double start = cpu_s();
  while (cpu_s() - start < seconds) {
    for (int i = 0; i < 50; i++) {
      const uint64_t now = base::monotonic_ns();
      (void)sender->write(&part, 1, false);
      (void)client->poll(now);
      (void)server->poll(now);
      for (long n; (n = receiver->read(&part, 1, false)) > 0;) bytes += static_cast<uint64_t>(n);
      server->flush();
    }
  }
  printf("bulk%s: %.1f Gbit per second of CPU time, %.2f ns per 1460 bytes\n", argc > 2 ? " with checksums" : "",
         static_cast<double>(bytes) * 8 / 1e9 / (cpu_s() - start), (cpu_s() - start) * 1e9 / (static_cast<double>(bytes) / 1460));
}
