// The test's side of its peer process, and the ready-made connections most tests start from.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/lib/peer_protocol.h"

namespace testing_lib {

// Which side does the active open of a connection.
enum class Way { accepted, connected };

// Where this run stands: the mode ("kernel", "zpstack-veth", "zpstack-memif", "zpstack-host", "zpstack-afxdp") and the two addresses, from
// the environment.
bool on_stack();
bool on_host_wire();
sockaddr_in self_address(uint16_t port_be = 0);
sockaddr_in peer_address(uint16_t port_be = 0);
std::string scratch_file(const char* name);
std::string to_text(const sockaddr_in& address);
uint64_t now_ms();

// `act` is done within `limit_ms`, at least once: a machine that is busy, or stands still for a while, gets several tries.
template <typename Act>
void expect_within(uint64_t limit_ms, Act act) {
  constexpr int kMostTries = 5;
  uint64_t least_ms = UINT64_MAX;
  for (int tries = 0; tries < kMostTries && least_ms >= limit_ms; tries++) {
    const uint64_t start = now_ms();
    ASSERT_NO_FATAL_FAILURE(act());
    least_ms = std::min(least_ms, now_ms() - start);
  }
  EXPECT_LT(least_ms, limit_ms) << "in none of " << kMostTries << " tries";
}

// Skips the running test on the stack, visibly, naming the row of docs/differences.md that says why.
#define KNOWN_DIFFERENCE(row) \
  if (::testing_lib::on_stack()) GTEST_SKIP() << "known difference " row " of docs/differences.md"

// The same where the stack shares the kernel's address.
#define KNOWN_DIFFERENCE_OF_HOST(row) \
  if (::testing_lib::on_host_wire()) GTEST_SKIP() << "known difference " row " of docs/differences.md"

// One call into the peer. `result` and `error` are what the peer's system call returned.
struct Reply {
  int64_t result = -1;
  int error = 0;
  sockaddr_in name{};
  std::string payload;
};

class Peer {
 public:
  Peer();
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  Reply call(PeerOp op, int fd, int64_t a = 0, int64_t b = 0, int64_t c = 0, std::string_view payload = {});
  // The same in a thread of the peer's; finish() waits for it.
  int start(PeerOp op, int fd, int64_t a = 0, int64_t b = 0, int64_t c = 0, std::string_view payload = {});
  Reply finish(int job);

  // Listening socket at the peer; `at` gets the address to connect to.
  int listen(sockaddr_in* at, int backlog = 64);
  int socket(int type_flags = 0) { return static_cast<int>(call(PeerOp::socket, -1, type_flags).result); }
  int socket_of(int type) { return static_cast<int>(call(PeerOp::socket, -1, 0, type).result); }
  Reply accept(int fd) { return call(PeerOp::accept, fd); }
  Reply connect(int fd, const sockaddr_in& to);
  int start_connect(int fd, const sockaddr_in& to);
  Reply send(int fd, std::string_view data, int flags = 0) { return call(PeerOp::send, fd, flags, 0, 0, data); }
  Reply recv(int fd, size_t most, int flags = 0) { return call(PeerOp::recv, fd, static_cast<int64_t>(most), flags); }
  // Exactly `count` bytes, or fewer at end of stream or error.
  std::string recv_all(int fd, size_t count);
  // A datagram socket at the peer, bound to all its addresses; `at` gets the one to send to.
  int datagram_socket(sockaddr_in* at);
  Reply send_to(int fd, const sockaddr_in& to, std::string_view data);
  Reply recv_from(int fd, size_t most = 65536, int flags = 0) { return call(PeerOp::recv_from, fd, static_cast<int64_t>(most), flags); }
  void shutdown(int fd, int how) { call(PeerOp::shutdown, fd, how); }
  void close(int fd) { call(PeerOp::close, fd); }
  void reset(int fd) { call(PeerOp::reset, fd); }

 private:
  Reply exchange(const PeerRequest& request, std::string_view payload);
  int control_;
};

// Listens on 0.0.0.0 and a port of the kernel's or the stack's choice; `at` gets what the peer connects to.
int listen_here(sockaddr_in* at, int backlog = 64, int type_flags = 0);

// A fresh connection: `mine` is a descriptor of this process, `theirs` one of the peer's.
struct Connection {
  int mine = -1;
  int theirs = -1;
};

// Base of the differential fixtures: a peer, and connections to it.
class DiffTest : public ::testing::Test {
 protected:
  Connection connect_pair(Way way = Way::accepted);
  // Waits for `events` on `fd` and returns what poll() says; 0 after half a minute.
  static short wait_for(int fd, short events, int timeout_ms = 30000);
  // Reads until `count` bytes or the end.
  static std::string read_all(int fd, size_t count);
  Peer peer;
};

class BothWays : public DiffTest, public ::testing::WithParamInterface<Way> {
 protected:
  Connection connect_pair() { return DiffTest::connect_pair(GetParam()); }
};

#define ZPS_BOTH_WAYS(suite)                                                                              \
  INSTANTIATE_TEST_SUITE_P(Way, suite, ::testing::Values(Way::accepted, Way::connected), [](const auto& way) { \
    return std::string(way.param == Way::accepted ? "accepted" : "connected");                            \
  })

}  // namespace testing_lib
