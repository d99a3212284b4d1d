// Measures the wires through the Wire interface: time to open, memory, round trip, frames per second. Not a test: run it by hand.
// SPDX-License-Identifier: BSD-3-Clause
//
// usage: wire_bench [memif|veth]. Two processes, pinned to the first two processors that are allowed; medians of nine rounds with min and
// max.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "wire_fixture.h"

namespace {

using namespace wires;

constexpr int kRounds = 9;
constexpr uint32_t kFrameBytes = 60;

void pin(int which) {
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof all, &all);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &all) && which-- == 0) CPU_SET(cpu, &one);
  }
  if (CPU_COUNT(&one) == 1) sched_setaffinity(0, sizeof one, &one);
}

// Resident memory in KiB, pages of shared mappings included.
long resident_kb() {
  FILE* file = fopen("/proc/self/smaps_rollup", "r");
  char line[256];
  long kb = 0;
  while (file != nullptr && fgets(line, sizeof line, file) != nullptr) {
    if (sscanf(line, "Rss: %ld", &kb) == 1) break;
  }
  if (file != nullptr) fclose(file);
  return kb;
}

void report(const char* what, std::vector<double> values, const char* unit) {
  std::sort(values.begin(), values.end());
  printf("%-34s %8.2f %s (%.2f-%.2f)\n", what, values[values.size() / 2], unit, values.front(), values.back());
}

Opened open_or_die(const char* name) {
  netstack::StackConfig config;
  config.wire = name;
  const long before = resident_kb();
  Opened opened = open_wire(config);
  if (opened.wire == nullptr) {
    fprintf(stderr, "%s\n", opened.error.text);
    exit(1);
  }
  printf("%-34s load %.1f ms, open %.1f ms, memory +%ld KiB\n", opened.address.wire, opened.load_ms, opened.open_ms,
         resident_kb() - before);
  return opened;
}

int drain(Wire& wire, bool answer) {
  RxFrame frames[netstack::kBurst];
  const int count = wire.receive(frames, netstack::kBurst);
  for (int i = 0; i < count; i++) {
    TxFrame out;
    if (answer && frames[i].data[12] == 1 && wire.allocate(&out)) {
      memcpy(out.data, frames[i].data, frames[i].length);
      wire.send(out.handle, frames[i].length);
    }
    wire.release(frames[i].handle);
  }
  if (answer) wire.flush();
  return count;
}

bool put(Wire& wire, uint8_t kind) {
  TxFrame out;
  if (!wire.allocate(&out)) return false;
  memset(out.data, 0, kFrameBytes);
  out.data[12] = kind;
  wire.send(out.handle, kFrameBytes);
  return true;
}

// Frame type 1 is answered, type 2 is only counted.
void bench_memif() {
  const std::string name = "memif:/tmp/zps_bench_" + std::to_string(getpid()) + ".sock";
  const pid_t peer = fork();
  if (peer == 0) {
    pin(1);
    Opened opened = open_or_die(name.c_str());
    while (true) drain(*opened.wire, true);
  }
  pin(0);
  Opened opened = open_or_die((name + ",role=client").c_str());
  Wire& wire = *opened.wire;
  // Until the peer answers; the first frames are dropped while nobody is there.
  while (true) {
    put(wire, 1);
    wire.flush();
    wire.run_control();
    if (drain(wire, false) > 0) break;
    usleep(1000);
  }
  while (drain(wire, false) > 0) usleep(1000);

  std::vector<double> trip, rate;
  for (int round = 0; round < kRounds; round++) {
    constexpr int kTrips = 20000;
    const double begin = now_ms();
    for (int i = 0; i < kTrips; i++) {
      put(wire, 1);
      wire.flush();
      while (drain(wire, false) == 0) {
      }
    }
    trip.push_back((now_ms() - begin) * 1e3 / kTrips);

    constexpr int kFrames = 500000;
    const double start = now_ms();
    for (int i = 0; i < kFrames;) {
      for (int burst = 0; burst < 32 && wire.backlog() < 128 && put(wire, 2); burst++) i++;
      wire.flush();
    }
    while (wire.backlog() > 0) wire.flush();
    rate.push_back(kFrames / (now_ms() - start) / 1e3);
  }
  report("round trip", trip, "us");
  report("one way, 60 bytes", rate, "Mpps");
  printf("%-34s %ld KiB\n", "memory of the process", resident_kb());
  kill(peer, SIGKILL);
  waitpid(peer, nullptr, 0);
  unlink(name.c_str() + 6);
}

// The kernel pings the wire: a raw socket on one side, the wire on the other.
void bench_veth() {
  if (!enter_own_network()) {
    fprintf(stderr, "needs CAP_SYS_ADMIN\n");
    exit(1);
  }
  Opened opened = open_or_die("veth");
  Wire& wire = *opened.wire;
  const uint32_t address_be = opened.address.address_be;
  const pid_t pinging = fork();
  if (pinging == 0) {
    pin(1);
    Pinger pinger(address_be);
    std::vector<double> trip;
    for (int round = 0; round < kRounds; round++) {
      constexpr int kTrips = 3000;
      const double begin = now_ms();
      for (int i = 0; i < kTrips; i++) {
        (void)pinger.send(1);
        while (pinger.answers() == 0) {
        }
      }
      trip.push_back((now_ms() - begin) * 1e3 / kTrips);
    }
    report("round trip of a ping", trip, "us");
    fflush(stdout);
    _exit(0);
  }
  pin(0);
  Responder responder(wire, address_be);
  int status;
  while (waitpid(pinging, &status, WNOHANG) == 0) responder.turn();
  std::vector<double> rate;
  for (int round = 0; round < kRounds; round++) {
    constexpr int kFrames = 200000;
    const double start = now_ms();
    for (int i = 0; i < kFrames;) {
      for (int burst = 0; burst < 32 && wire.backlog() < 128 && put(wire, 2); burst++) i++;
      wire.flush();
    }
    rate.push_back(kFrames / (now_ms() - start) / 1e3);
  }
  report("sent one way, 60 bytes", rate, "Mpps");
  printf("%-34s %ld KiB\n", "memory of the process", resident_kb());
}

}  // namespace

int main(int count, char** arguments) {
  const std::string which = count > 1 ? arguments[1] : "memif";
  setlinebuf(stdout);
  if (which == "veth") bench_veth();
  else bench_memif();
}
