// Looking at sockets without changing them.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/diff/random/arrival.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

namespace random_sequences {

int tcp_state(int fd) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 ? info.tcpi_state : -1;
}

uint32_t unread_bytes(int fd) {
  int count = 0;
  return ioctl(fd, FIONREAD, &count) == 0 ? static_cast<uint32_t>(count) : 0;
}

bool has_arrived(int fd, const Arrival& arrival) {
  const int state = tcp_state(fd);
  if (state == TCP_CLOSE || state < 0) return true;
  if (arrival.closed) return false;
  if (arrival.connected && (state == TCP_SYN_SENT || state == TCP_SYN_RECV)) return false;
  if (arrival.fin && state != TCP_CLOSE_WAIT && state != TCP_LAST_ACK && state != TCP_CLOSING && state != TCP_TIME_WAIT) return false;
  return arrival.unread_bytes == 0 || unread_bytes(fd) >= arrival.unread_bytes;
}

bool is_acknowledged(int fd) {
  int unacknowledged = 0;
  switch (tcp_state(fd)) {
    case TCP_CLOSE: return true;
    case TCP_FIN_WAIT1:
    case TCP_CLOSING:
    case TCP_LAST_ACK: return false;
    default: return ioctl(fd, SIOCOUTQ, &unacknowledged) != 0 || unacknowledged == 0;
  }
}

void acknowledge_now(int fd) {
  const int once = 2;  // an odd value would leave the mode in which answers carry acknowledgements (__tcp_sock_set_quickack)
  (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &once, sizeof once);
}

void nap() {
  const timespec pause{0, 20'000};
  (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

uint64_t now_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000 + static_cast<uint64_t>(now.tv_nsec) / 1000;
}

bool Patience::goes_on() {
  constexpr int kQuickLooks = 20, kFewestLooks = 1000;
  if (++looks_ > kQuickLooks) nap();
  return looks_ < kFewestLooks || now_us() < end_us_;
}

void fill_endless(char* data, unsigned bytes, uint32_t offset) {
  for (unsigned i = 0; i < bytes; i++) data[i] = static_cast<char>((offset + i) * 2654435761u >> 24);
}

bool drain(int fd, uint32_t skipped, uint32_t bytes) {
  static char got[32768], expected[32768];
  Patience patience(5'000'000);
  for (uint32_t done = 0; done < skipped + bytes;) {
    const uint32_t left = done < skipped ? skipped - done : skipped + bytes - done;
    const ssize_t n = recv(fd, got, left < sizeof got ? left : sizeof got, MSG_DONTWAIT);
    if (n == 0) return false;
    if (n < 0) {
      pollfd one{fd, POLLIN, 0};
      (void)poll(&one, 1, 1);
      if (!patience.goes_on()) return false;
      continue;
    }
    if (done >= skipped) {
      fill_endless(expected, static_cast<unsigned>(n), done - skipped);
      if (memcmp(got, expected, static_cast<size_t>(n)) != 0) return false;
    }
    done += static_cast<uint32_t>(n);
  }
  return true;
}

void fill(char* data, unsigned bytes, unsigned origin) {
  for (unsigned i = 0; i < bytes; i++) data[i] = static_cast<char>(origin * 37 + i + (i >> 8) * 13);
}

uint32_t digest(const void* data, unsigned bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  uint32_t hash = 2166136261u;
  for (unsigned i = 0; i < bytes; i++) hash = (hash ^ at[i]) * 16777619u;
  return hash;
}

}  // namespace random_sequences
