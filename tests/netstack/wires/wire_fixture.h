// What the wire tests share: a network namespace of their own, a wire from the probe library, a little ARP and ICMP.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/high_fd.h"
#include "base/result.h"
#include "netstack/wires/open_wire.h"
#include "netstack/wire.h"

namespace wires {

using netstack::RxFrame;
using netstack::TxFrame;
using netstack::Wire;

struct Opened {
  Wire* wire = nullptr;
  netstack::WireAddress address;
  base::Error error;
  double open_ms = 0, load_ms = 0;
};

inline double now_ms() { return static_cast<double>(base::monotonic_ns()) / 1e6; }

// Loads the probe into a link namespace of its own and opens a wire there.
inline Opened open_wire(const netstack::StackConfig& config) {
  using Open = Wire* (*)(const netstack::StackConfig*, netstack::WireAddress*, base::Error*);
  Opened opened;
  const double before = now_ms();
  // Once per process: a child that inherited a wire and opens one as if it were another program needs a copy of its own.
  static void* library = nullptr;
  static pid_t owner = 0;
  if (owner != getpid()) library = dlmopen(LM_ID_NEWLM, WIRE_PROBE, RTLD_NOW | RTLD_LOCAL);
  owner = getpid();
  if (library == nullptr) {
    strncpy(opened.error.text, dlerror(), sizeof opened.error.text - 1);
    return opened;
  }
  opened.load_ms = now_ms() - before;
  const double loaded = now_ms();
  opened.wire = reinterpret_cast<Open>(dlsym(library, "probe_open_wire"))(&config, &opened.address, &opened.error);
  opened.open_ms = now_ms() - loaded;
  return opened;
}

// Opens a wire that cannot be, for the error to say why.
inline void expect_refused(const char* wire, const char* says) {
  netstack::StackConfig config;
  config.wire = wire;
  const Opened opened = open_wire(config);
  EXPECT_EQ(opened.wire, nullptr);
  EXPECT_NE(std::string(opened.error.text).find(says), std::string::npos) << opened.error.text;
}

inline std::string dotted(uint32_t address_be) {
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, &address_be, text, sizeof text);
}

// Enters a fresh network namespace; false without the right to.
inline bool enter_own_network() { return unshare(CLONE_NEWNET) == 0; }

// Descriptors of this process under the hidden range.
inline std::vector<std::string> low_descriptors() {
  std::vector<std::string> found;
  for (int fd = 0; fd < base::fd_floor(); fd++) {
    char target[256];
    const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
    if (length > 0) found.push_back(std::to_string(fd) + " -> " + std::string(target, static_cast<size_t>(length)));
  }
  return found;
}

// The stack's side of ARP and ICMP echo, answered on the wire.
class Responder {
 public:
  Responder(Wire& wire, uint32_t address_be) : wire_(wire), address_be_(address_be) {}

  // One turn; returns how many frames came.
  int turn() {
    RxFrame frames[netstack::kBurst];
    const int count = wire_.receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      answer(frames[i]);
      wire_.release(frames[i].handle);
    }
    wire_.flush();
    return count;
  }

  int echoes = 0;

 private:
  void answer(const RxFrame& frame) {
    if (frame.length < 42) return;
    const uint8_t* in = frame.data;
    const bool arp = in[12] == 8 && in[13] == 6 && in[21] == 1 && memcmp(in + 38, &address_be_, 4) == 0;
    const bool echo = in[12] == 8 && in[13] == 0 && in[23] == 1 && in[34] == 8 && memcmp(in + 30, &address_be_, 4) == 0;
    if (!arp && !echo) return;
    TxFrame out;
    ASSERT_TRUE(wire_.allocate(&out));
    ASSERT_GE(out.capacity, frame.length);
    memcpy(out.data, in, frame.length);
    memcpy(out.data, in + 6, 6);
    memcpy(out.data + 6, wire_.facts().mac, 6);
    if (arp) {
      out.data[21] = 2;
      memcpy(out.data + 32, in + 22, 10);
      memcpy(out.data + 22, wire_.facts().mac, 6);
      memcpy(out.data + 28, &address_be_, 4);
    } else {
      memcpy(out.data + 26, in + 30, 4);
      memcpy(out.data + 30, in + 26, 4);
      out.data[34] = 0;
      const uint32_t sum = (uint32_t{in[36]} << 8 | in[37]) + 0x0800;
      const uint16_t folded = static_cast<uint16_t>(sum + (sum >> 16));
      out.data[36] = static_cast<uint8_t>(folded >> 8);
      out.data[37] = static_cast<uint8_t>(folded);
      echoes++;
    }
    wire_.send(out.handle, frame.length);
  }

  Wire& wire_;
  uint32_t address_be_;
};

// Sends ICMP echo requests from the kernel and waits for the answers.
class Pinger {
 public:
  explicit Pinger(uint32_t address_be) : fd_(socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_ICMP)) {
    to_.sin_family = AF_INET;
    to_.sin_addr.s_addr = address_be;
    const int bytes = 8 << 20;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  }
  ~Pinger() { close(fd_); }

  bool send(uint16_t sequence, size_t bytes = 56) {
    std::vector<uint8_t> packet(8 + bytes);
    packet[0] = 8;
    packet[4] = 0x5a;
    packet[6] = static_cast<uint8_t>(sequence >> 8);
    packet[7] = static_cast<uint8_t>(sequence);
    uint32_t sum = 0;
    for (size_t i = 0; i < packet.size(); i += 2) sum += uint32_t{packet[i]} << 8 | packet[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    const uint16_t check = static_cast<uint16_t>(~(sum + (sum >> 16)));
    packet[2] = static_cast<uint8_t>(check >> 8);
    packet[3] = static_cast<uint8_t>(check);
    return sendto(fd_, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to_), sizeof to_) ==
           static_cast<ssize_t>(packet.size());
  }
  // Answers that have come since the last call.
  int answers() {
    uint8_t packet[2048];
    int count = 0;
    while (true) {
      const ssize_t length = recv(fd_, packet, sizeof packet, 0);
      if (length < 0) return count;
      if (length >= 28 && packet[20] == 0) count++;
    }
  }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
  sockaddr_in to_{};
};

// Repeats `step` until it returns true or ten seconds are over.
inline bool until(const std::function<bool()>& step) {
  const double end = now_ms() + 10000;
  while (!step()) {
    if (now_ms() > end) return false;
  }
  return true;
}

// A process of the test: runs a body, and talks to its maker by single bytes.
class Process {
 public:
  template <class F>
  explicit Process(F body) {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds_), 0);
    pid_ = fork();
    if (pid_ != 0) return;
    std::swap(fds_[0], fds_[1]);
    body(*this);
    fflush(stdout);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  ~Process() {
    if (pid_ > 0) kill_now();
    close(fds_[0]);
    close(fds_[1]);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] int fd() const { return fds_[0]; }
  void tell(char what) { EXPECT_EQ(write(fds_[0], &what, 1), 1); }
  // Waits for a byte, running `step` meanwhile.
  char hear(const std::function<void()>& step = [] {}) {
    char what = 0;
    EXPECT_TRUE(until([&] {
      step();
      return recv(fds_[0], &what, 1, MSG_DONTWAIT) == 1;
    }));
    return what;
  }
  void kill_now() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void stop() const {
    kill(pid_, SIGSTOP);
    siginfo_t info;
    waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED);
  }
  void go_on() const { kill(pid_, SIGCONT); }
  int wait_exit() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
  }

 private:
  int fds_[2];
  pid_t pid_;
};

}  // namespace wires
