// Sends forged TCP segments at a fixed rate: flood TO PORT KIND RATE SECONDS [FROM]
// SPDX-License-Identifier: BSD-3-Clause
//
// KIND: syn, ack, rst, synack or fin; RATE: segments a second; FROM: a network of sources (198.19.0.0/16 if not given), from whose every
// address and any port they seem to come. Needs CAP_NET_RAW. Prints how many were sent a second. Ends by itself, or with its parent.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

#include <map>
#include <string>

namespace {

constexpr int kBatch = 64;
constexpr long kTurnNs = 500'000;
constexpr long kMostLateNs = 3'000'000;  // what was missed in a longer pause is not made up for: it would come as one burst

struct Forged {
  iphdr ip;
  tcphdr tcp;
  uint8_t options[12];
};

// Maximum segment size 1460, SACK permitted, no operation, window scale 7: what Linux says without timestamps, padded.
constexpr uint8_t kSynOptions[12] = {2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 0, 0};

const std::map<std::string, uint8_t> kKinds = {
    {"syn", TH_SYN}, {"ack", TH_ACK}, {"rst", TH_RST}, {"synack", TH_SYN | TH_ACK}, {"fin", TH_FIN | TH_ACK}};

uint64_t random_state = 88172645463325252u;

uint32_t draw() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<uint32_t>(random_state >> 16);
}

long now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

uint32_t sum_words(const void* data, size_t bytes, uint32_t sum) {
  for (size_t i = 0; i < bytes; i += 2) {
    uint16_t word;
    memcpy(&word, static_cast<const char*>(data) + i, 2);
    sum += word;
  }
  return sum;
}

uint16_t folded(uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

size_t forge(Forged* out, const sockaddr_in& to, uint32_t from_be, uint8_t flags) {
  memset(out, 0, sizeof *out);
  const size_t options = flags == TH_SYN ? sizeof out->options : 0;
  const size_t tcp_bytes = sizeof(tcphdr) + options;
  out->ip.version = 4, out->ip.ihl = 5, out->ip.ttl = 64, out->ip.protocol = IPPROTO_TCP;
  out->ip.tot_len = htons(static_cast<uint16_t>(sizeof(iphdr) + tcp_bytes));
  out->ip.saddr = from_be, out->ip.daddr = to.sin_addr.s_addr;
  out->tcp.th_sport = htons(static_cast<uint16_t>(1024 + draw() % 64000));
  out->tcp.th_dport = to.sin_port;
  out->tcp.th_seq = draw();
  out->tcp.th_ack = (flags & TH_ACK) != 0 ? draw() : 0;
  out->tcp.th_off = static_cast<uint8_t>(tcp_bytes / 4);
  out->tcp.th_flags = flags;
  out->tcp.th_win = htons(64240);
  memcpy(out->options, kSynOptions, options);
  uint32_t sum = sum_words(&out->ip.saddr, 8, htons(IPPROTO_TCP) + htons(static_cast<uint16_t>(tcp_bytes)));
  out->tcp.th_sum = folded(sum_words(&out->tcp, tcp_bytes, sum));
  return sizeof(iphdr) + tcp_bytes;
}

// Sends `count` segments; how many the kernel took.
long send_batch(int fd, sockaddr_in* to, uint32_t network, uint32_t hosts, uint8_t flags, int count) {
  static Forged segments[kBatch];
  static iovec parts[kBatch];
  static mmsghdr messages[kBatch];
  for (int i = 0; i < count; i++) {
    parts[i] = {&segments[i], forge(&segments[i], *to, htonl(network + 1 + draw() % hosts), flags)};
    messages[i].msg_hdr = {to, sizeof *to, &parts[i], 1, nullptr, 0, 0};
  }
  return sendmmsg(fd, messages, static_cast<unsigned>(count), 0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6 || kKinds.count(argv[3]) == 0) {
    fprintf(stderr, "usage: flood TO PORT syn|ack|rst|synack|fin RATE SECONDS [FROM/PREFIX]\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = inet_addr(argv[1]);
  to.sin_port = htons(static_cast<uint16_t>(atoi(argv[2])));
  const long rate = atol(argv[4]);
  const double seconds = atof(argv[5]);
  char from[32] = "198.19.0.0";
  int prefix = 16;
  if (argc > 6) sscanf(argv[6], "%31[0-9.]/%d", from, &prefix);
  const uint32_t hosts = (1u << (32 - prefix)) - 2;

  const int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  if (fd < 0) {
    perror("raw socket");
    return 1;
  }
  const long start = now_ns();
  const long end = start + static_cast<long>(seconds * 1e9);
  const long most_at_once = rate * kMostLateNs / 1'000'000'000 + 1;
  long sent = 0, last = start;
  double due = 0;
  for (long now = start; now < end; now = now_ns()) {
    due += static_cast<double>(now - last) * static_cast<double>(rate) / 1e9;
    last = now;
    if (due > static_cast<double>(most_at_once)) due = static_cast<double>(most_at_once);
    for (long left = static_cast<long>(due); left > 0;) {
      const int count = static_cast<int>(left < kBatch ? left : kBatch);
      const long taken = send_batch(fd, &to, ntohl(inet_addr(from)), hosts, kKinds.at(argv[3]), count);
      if (taken <= 0) break;
      sent += taken;
      left -= taken;
      due -= static_cast<double>(taken);
      if (now_ns() >= end) break;
    }
    const timespec turn{0, kTurnNs};
    nanosleep(&turn, nullptr);
  }
  printf("%.0f\n", static_cast<double>(sent) * 1e9 / static_cast<double>(now_ns() - start));
  return 0;
}
