// bind() and the ports that are in use: bound, listened at, or held by connections in any state, with SO_REUSEADDR, SO_REUSEPORT and the
// socket's user.
// SPDX-License-Identifier: BSD-3-Clause
//
// The expectations follow inet_bind_conflict() and inet_csk_get_port(); natively the kernel says whether they do.

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

enum class At { self, any, mapped, any6 };

const char* name_of(At at) {
  constexpr const char* kNames[] = {"self", "any", "mapped", "any6"};
  return kNames[static_cast<int>(at)];
}

int new_socket(At at = At::self) { return socket(at == At::self || at == At::any ? AF_INET : AF_INET6, SOCK_STREAM, 0); }

// 0 or errno.
int bind_at(int fd, At at, uint16_t port_be) {
  sockaddr_in v4 = at == At::self ? self_address(port_be) : sockaddr_in{AF_INET, port_be, {INADDR_ANY}, {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = port_be;
  if (at == At::mapped) {
    v6.sin6_addr.s6_addr32[2] = htonl(0xffff);
    v6.sin6_addr.s6_addr32[3] = self_address().sin_addr.s_addr;
  }
  const bool six = at == At::mapped || at == At::any6;
  const auto* name = six ? reinterpret_cast<sockaddr*>(&v6) : reinterpret_cast<sockaddr*>(&v4);
  return bind(fd, name, six ? sizeof v6 : sizeof v4) == 0 ? 0 : errno;
}

int connect_to(int fd, const sockaddr_in& to) { return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ? 0 : errno; }

int listen_at(int fd, int backlog = 8) { return listen(fd, backlog) == 0 ? 0 : errno; }

void set(int fd, int option, int value = 1) { ASSERT_EQ(setsockopt(fd, SOL_SOCKET, option, &value, sizeof value), 0); }

void set_ip(int fd, int option, int value) { ASSERT_EQ(setsockopt(fd, IPPROTO_IP, option, &value, sizeof value), 0) << strerror(errno); }

uint16_t port_of(int fd) {
  sockaddr_in6 name{};
  socklen_t size = sizeof name;
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  return name.sin6_port;
}

// Row "timestamps".
bool has_timestamps() { return strcmp(getenv("ZPS_TEST_MODE"), "zpstack-memif") != 0; }

struct Sharing {
  bool address = false, port = false;  // SO_REUSEADDR, SO_REUSEPORT
};

void share(int fd, Sharing sharing) {
  set(fd, SO_REUSEADDR, sharing.address);
  set(fd, SO_REUSEPORT, sharing.port);
}

// What a fresh socket's bind() to a used port says; the socket is closed again.
int try_bind(At at, uint16_t port_be, Sharing sharing = {}) {
  const int fd = new_socket(at);
  share(fd, sharing);
  const int error = bind_at(fd, at, port_be);
  close(fd);
  return error;
}

class Ports : public DiffTest {
 protected:
  int listening(sockaddr_in* to) {
    if (listener_ < 0) listener_ = peer.listen(&at_);
    *to = at_;
    return listener_;
  }
  // A connection to the peer from `fd`, bound or not.
  Connection to_peer(int fd) {
    sockaddr_in to{};
    const int listener = listening(&to);
    EXPECT_EQ(connect_to(fd, to), 0);
    return {fd, static_cast<int>(peer.accept(listener).result)};
  }
  // The peer has closed its end and knows that we know.
  void end_at_peer(const Connection& c) {
    EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
    peer.close(c.theirs);
  }
  // Waits until the end of the connection has come, and closes: our side was the first, so TIME-WAIT is here.
  void enter_time_wait(const Connection& c) {
    shutdown(c.mine, SHUT_WR);
    end_at_peer(c);
    EXPECT_EQ(read_all(c.mine, 1), "");
    close(c.mine);
  }

 private:
  int listener_ = -1;
  sockaddr_in at_{};
};

// ---------------------------------------------------------------- who holds a port

TEST_F(Ports, OfAnAcceptedConnectionAfterItsListener) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  int fd = accept(listener, nullptr, nullptr);
  ASSERT_GE(fd, 0);
  close(listener);
  for (At where : {At::self, At::any, At::mapped, At::any6}) {
    EXPECT_EQ(try_bind(where, at.sin_port), EADDRINUSE) << name_of(where);
    EXPECT_EQ(try_bind(where, at.sin_port, {true, true}), EADDRINUSE) << name_of(where) << ": the connection does not share";
  }
  set(fd, SO_REUSEADDR);
  for (At where : {At::self, At::any, At::mapped, At::any6}) {
    EXPECT_EQ(try_bind(where, at.sin_port), EADDRINUSE) << name_of(where);
    EXPECT_EQ(try_bind(where, at.sin_port, {true, false}), 0) << name_of(where);
  }
  peer.reset(theirs);
  ASSERT_TRUE(wait_for(fd, POLLIN));
  EXPECT_EQ(try_bind(At::any, at.sin_port), 0) << "reset: nobody has it any more";
}

TEST_F(Ports, OfAClientInEveryState) {
  Connection c = to_peer(new_socket());
  const uint16_t port = port_of(c.mine);
  const auto in_use = [&](const char* state) {
    for (At where : {At::self, At::any, At::mapped, At::any6})
      EXPECT_EQ(try_bind(where, port, {true, false}), EADDRINUSE) << state << name_of(where);
    const int loop = new_socket();
    sockaddr_in near{AF_INET, port, {htonl(INADDR_LOOPBACK)}, {}};
    EXPECT_EQ(bind(loop, reinterpret_cast<sockaddr*>(&near), sizeof near), 0) << state << " at another address: " << strerror(errno);
    close(loop);
    const int only = new_socket(At::any6);
    int on = 1;
    EXPECT_EQ(setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
    EXPECT_EQ(bind_at(only, At::any6, port), 0) << state << " in another family";
    close(only);
  };
  in_use("established ");
  shutdown(c.mine, SHUT_WR);
  EXPECT_EQ(peer.recv(c.theirs, 1).result, 0);
  in_use("FIN-WAIT-2 ");
  close(c.mine);
  in_use("FIN-WAIT-2, closed ");
  peer.close(c.theirs);
  in_use("TIME-WAIT ");
}

TEST_F(Ports, OfAClientThatTheOtherSideLeft) {
  Connection c = to_peer(new_socket());
  const uint16_t port = port_of(c.mine);
  peer.close(c.theirs);
  ASSERT_TRUE(wait_for(c.mine, POLLIN));
  EXPECT_EQ(try_bind(At::self, port), EADDRINUSE) << "CLOSE-WAIT";
  close(c.mine);
  const uint64_t start = now_ms();
  while (try_bind(At::self, port) != 0 && now_ms() - start < 5000) {
  }
  EXPECT_EQ(try_bind(At::self, port), 0) << "the last acknowledgement is in: no TIME-WAIT on this side";
}

TEST_F(Ports, OfBoundSockets) {
  for (At first : {At::self, At::any, At::mapped, At::any6}) {
    for (At second : {At::self, At::any, At::mapped, At::any6}) {
      const int fd = new_socket(first);
      ASSERT_EQ(bind_at(fd, first, 0), 0);
      EXPECT_EQ(try_bind(second, port_of(fd)), EADDRINUSE) << name_of(first) << " " << name_of(second);
      EXPECT_EQ(bind_at(fd, first, 0), EINVAL) << "it has a name";
      const uint16_t port = port_of(fd);
      close(fd);
      EXPECT_EQ(try_bind(second, port), 0) << name_of(first) << " " << name_of(second);
    }
  }
}

// ---------------------------------------------------------------- who may share it

enum class Stage { bound, listening, connected, accepted, waiting };
constexpr const char* kStages[] = {"bound", "listening", "connected", "accepted", "waiting"};

class Pairs : public Ports, public ::testing::WithParamInterface<Stage> {
 protected:
  // The first user of a port, in this stage. Returns descriptors to close.
  std::vector<int> first_user(At at, Sharing sharing, uint16_t* port, std::vector<int>* theirs) {
    const int fd = bound_to_a_new_port(at, sharing);
    *port = port_of(fd);
    if (GetParam() == Stage::listening || GetParam() == Stage::accepted) {
      EXPECT_EQ(listen_at(fd), 0);
    }
    if (GetParam() == Stage::connected || GetParam() == Stage::waiting) {
      const Connection c = to_peer(fd);
      if (GetParam() == Stage::connected) theirs->push_back(c.theirs);
      if (GetParam() == Stage::waiting) {
        enter_time_wait(c);
        return {};
      }
    }
    if (GetParam() != Stage::accepted) return {fd};
    const int other = peer.socket();
    theirs->push_back(other);
    EXPECT_EQ(peer.connect(other, self_address(*port)).result, 0);
    const int accepted = accept(fd, nullptr, nullptr);
    close(fd);
    return {accepted};
  }
  // Of those that may be shared bind() may choose one that is in TIME-WAIT, from which the same peer cannot be reached in any mode.
  int bound_to_a_new_port(At at, Sharing sharing) {
    for (;;) {
      const int fd = new_socket(at);
      share(fd, sharing);
      EXPECT_EQ(bind_at(fd, at, 0), 0);
      if (used_.insert(port_of(fd)).second) return fd;
      close(fd);
    }
  }
  // inet_bind_conflict() for an explicit port and one user.
  static bool conflict(Sharing first, Sharing second) {
    if (first.address && second.address && GetParam() != Stage::listening) return false;
    return !(first.port && second.port);
  }

 private:
  std::set<uint16_t> used_;
};

INSTANTIATE_TEST_SUITE_P(Stage, Pairs, ::testing::Values(Stage::bound, Stage::listening, Stage::connected, Stage::accepted, Stage::waiting),
                         [](const auto& stage) { return std::string(kStages[static_cast<int>(stage.param)]); });

TEST_P(Pairs, OfEachSharing) {
  constexpr At kPairs[][2] = {{At::self, At::self}, {At::self, At::any6}, {At::any, At::mapped}, {At::any, At::any}};
  for (int bits = 0; bits < 16; bits++) {
    const Sharing first{(bits & 1) != 0, (bits & 2) != 0}, second{(bits & 4) != 0, (bits & 8) != 0};
    for (const auto& where : kPairs) {
      uint16_t port = 0;
      std::vector<int> theirs;
      const std::vector<int> mine = first_user(where[0], first, &port, &theirs);
      const int expected = conflict(first, second) ? EADDRINUSE : 0;
      EXPECT_EQ(try_bind(where[1], port, second), expected) << "first " << first.address << first.port << " second " << second.address
                                                            << second.port << " " << name_of(where[0]) << " " << name_of(where[1]);
      for (int fd : theirs) peer.reset(fd);
      for (int fd : mine) close(fd);
    }
  }
}

TEST_F(Ports, OneOfSeveralSharersMayListen) {
  for (At at : {At::self, At::any}) {
    const int first = new_socket(at), second = new_socket(at);
    share(first, {true, false});
    share(second, {true, false});
    ASSERT_EQ(bind_at(first, at, 0), 0);
    const uint16_t port = port_of(first);
    ASSERT_EQ(bind_at(second, at, port), 0);
    EXPECT_EQ(listen_at(first), 0);
    EXPECT_EQ(listen_at(second), EADDRINUSE);
    EXPECT_EQ(try_bind(at, port, {true, false}), EADDRINUSE) << "beside a listener only by SO_REUSEPORT";
    close(first);
    EXPECT_EQ(listen_at(second), 0);
    const int theirs = peer.socket();
    EXPECT_EQ(peer.connect(theirs, self_address(port)).result, 0);
    const int accepted = accept(second, nullptr, nullptr);
    EXPECT_GE(accepted, 0);
    close(second);
    const int third = new_socket(at);
    share(third, {true, false});
    EXPECT_EQ(bind_at(third, at, port), 0);
    set(third, SO_REUSEADDR, 0);
    EXPECT_EQ(listen_at(third), EADDRINUSE) << "listen() looks again";
    set(third, SO_REUSEADDR, 1);
    EXPECT_EQ(listen_at(third), 0);
    close(third);
    close(accepted);
    peer.close(theirs);
  }
}

TEST_F(Ports, SharingIsKeptByAcceptedConnections) {
  const int listener = new_socket();
  share(listener, {true, true});
  ASSERT_EQ(bind_at(listener, At::self, 0), 0);
  ASSERT_EQ(listen_at(listener), 0);
  const int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, self_address(port_of(listener))).result, 0);
  const int fd = accept(listener, nullptr, nullptr);
  int value = 0;
  socklen_t size = sizeof value;
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, &size), 0);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &value, &size), 0);
  EXPECT_EQ(value, 1);
}

// tb->fastreuseport: what the last socket said decides for those that say the same.
TEST_F(Ports, WhatWasSaidAtBindCounts) {
  for (At at : {At::self, At::any}) {
    for (int option : {SO_REUSEADDR, SO_REUSEPORT}) {
      const Sharing sharing{option == SO_REUSEADDR, option == SO_REUSEPORT};
      const int first = new_socket(at);
      set(first, option);
      ASSERT_EQ(bind_at(first, at, 0), 0);
      const uint16_t port = port_of(first);
      set(first, option, 0);
      EXPECT_EQ(try_bind(at, port), EADDRINUSE);
      // For SO_REUSEADDR older kernels look at bind() time as well.
      if (sharing.port) {
        EXPECT_EQ(try_bind(at, port, sharing), 0) << "FASTREUSEPORT_STRICT: the option was on at bind()";
      }
      close(first);

      const int late = new_socket(at);
      ASSERT_EQ(bind_at(late, at, 0), 0);
      set(late, option);
      EXPECT_EQ(try_bind(at, port_of(late), sharing), 0) << "or is on now";
      set(late, option, 0);
      EXPECT_EQ(try_bind(at, port_of(late), sharing), option == SO_REUSEPORT ? 0 : EADDRINUSE) << "or was when the last one came";
      close(late);
    }
  }
}

TEST_F(Ports, OneUserEach) {
  ASSERT_EQ(geteuid(), 0u) << "needs root to be somebody else";
  for (At at : {At::self, At::any}) {
    const int first = new_socket(at);
    share(first, {false, true});
    ASSERT_EQ(bind_at(first, at, 0), 0);
    const uint16_t port = port_of(first);
    setfsuid(65534);
    const int stranger = new_socket(at);
    setfsuid(0);
    share(stranger, {false, true});
    EXPECT_EQ(bind_at(stranger, at, port), EADDRINUSE) << "another user's";
    ASSERT_EQ(fchown(stranger, 0, 0), 0);
    EXPECT_EQ(bind_at(stranger, at, port), 0) << "given to the same user";
    close(stranger);
    close(first);
  }
}

// ---------------------------------------------------------------- when it comes back

TEST_F(Ports, AChosenOneIsFreeAfterARefusal) {
  for (At at : {At::self, At::any}) {
    const int chosen = new_socket(at), fixed = new_socket(at);
    ASSERT_EQ(bind_at(chosen, at, 0), 0);
    ASSERT_EQ(bind_at(fixed, at, 0), 0);
    const uint16_t first = port_of(chosen), second = port_of(fixed);
    close(fixed);
    const int asked = new_socket(at);
    ASSERT_EQ(bind_at(asked, at, second), 0);
    sockaddr_in nobody{};
    listening(&nobody);  // the peer is there
    nobody.sin_port = htons(9);
    EXPECT_EQ(connect_to(chosen, nobody), ECONNREFUSED);
    EXPECT_EQ(connect_to(asked, nobody), ECONNREFUSED);
    EXPECT_EQ(try_bind(at, first), 0) << name_of(at) << ": bind() had chosen it";
    EXPECT_EQ(try_bind(at, second), EADDRINUSE) << name_of(at) << ": the program had";
    EXPECT_EQ(port_of(chosen), first) << "its name all the same";
    EXPECT_EQ(port_of(asked), second);
    Connection c = to_peer(asked);
    EXPECT_EQ(port_of(c.mine), second);
    EXPECT_EQ(bind_at(chosen, at, first), 0) << "it has none, and may have this one again";
    Connection d = to_peer(chosen);
    EXPECT_EQ(port_of(d.mine), first);
    close(asked);
    close(chosen);
  }
}

TEST_F(Ports, AChosenOneIsFreeAfterAReset) {
  KNOWN_DIFFERENCE_OF_HOST("host-ports");
  for (At at : {At::self, At::any}) {
    const int chosen = new_socket(at), helper = new_socket(at);
    ASSERT_EQ(bind_at(chosen, at, 0), 0);
    ASSERT_EQ(bind_at(helper, at, 0), 0);
    const uint16_t second = port_of(helper);
    close(helper);
    const int asked = new_socket(at);
    ASSERT_EQ(bind_at(asked, at, second), 0);
    Connection a = to_peer(chosen), b = to_peer(asked);
    const uint16_t first = port_of(chosen);
    peer.reset(a.theirs);
    peer.reset(b.theirs);
    ASSERT_TRUE(wait_for(a.mine, POLLIN));
    ASSERT_TRUE(wait_for(b.mine, POLLIN));
    EXPECT_EQ(try_bind(at, first), 0) << name_of(at);
    EXPECT_EQ(try_bind(at, second), EADDRINUSE) << name_of(at);
    close(asked);
    EXPECT_EQ(try_bind(at, second), 0) << name_of(at);
    close(chosen);
  }
}

TEST_F(Ports, AListenerThatIsShutDownKeepsWhatWasAsked) {
  for (At at : {At::self, At::any}) {
    const int chosen = new_socket(at);
    ASSERT_EQ(bind_at(chosen, at, 0), 0);
    const uint16_t port = port_of(chosen);
    ASSERT_EQ(listen_at(chosen), 0);
    EXPECT_EQ(try_bind(at, port), EADDRINUSE);
    ASSERT_EQ(shutdown(chosen, SHUT_RD), 0);
    EXPECT_EQ(try_bind(at, port), 0) << name_of(at) << ": chosen by bind()";
    EXPECT_EQ(port_of(chosen), port) << "its name all the same";
    const int asked = new_socket(at);
    ASSERT_EQ(bind_at(asked, at, port), 0);
    ASSERT_EQ(listen_at(asked), 0);
    ASSERT_EQ(shutdown(asked, SHUT_RD), 0);
    EXPECT_EQ(try_bind(at, port), EADDRINUSE) << name_of(at) << ": by the program";
    EXPECT_EQ(listen_at(asked), 0);
    close(asked);
    EXPECT_EQ(try_bind(at, port), 0);
    close(chosen);
  }
}

// ---------------------------------------------------------------- what connect() says

TEST_F(Ports, FourNumbersThatAreInUse) {
  const int first = new_socket(), second = new_socket();
  share(first, {true, false});
  share(second, {true, false});
  ASSERT_EQ(bind_at(first, At::self, 0), 0);
  const uint16_t port = port_of(first);
  ASSERT_EQ(bind_at(second, At::self, port), 0);
  Connection c = to_peer(first);
  sockaddr_in to{};
  listening(&to);
  EXPECT_EQ(connect_to(second, to), EADDRNOTAVAIL);
  sockaddr_in other{};
  const int elsewhere = peer.listen(&other);
  EXPECT_EQ(connect_to(second, other), 0) << strerror(errno);
  EXPECT_EQ(port_of(second), port);
  peer.accept(elsewhere);
  enter_time_wait(c);
  const int third = new_socket();
  share(third, {true, false});
  ASSERT_EQ(bind_at(third, At::self, port), 0);
  EXPECT_EQ(connect_to(third, to), has_timestamps() ? 0 : EADDRNOTAVAIL) << "TIME-WAIT gives way to a later time";
}

constexpr int kLocalPortRange = 51;      // IP_LOCAL_PORT_RANGE
constexpr int kBindAddressNoPort = 24;  // IP_BIND_ADDRESS_NO_PORT
constexpr int kRange = 40000 | 40003 << 16;  // even: bind() leaves an odd one out

TEST_F(Ports, ARangeThatIsUsedUp) {
  std::vector<int> held;
  for (int i = 0; i < 4; i++) {
    held.push_back(new_socket());
    set_ip(held.back(), kLocalPortRange, kRange);
    ASSERT_EQ(bind_at(held.back(), At::self, 0), 0);
    EXPECT_GE(ntohs(port_of(held.back())), 40000);
    EXPECT_LE(ntohs(port_of(held.back())), 40003);
  }
  const int late = new_socket(), out = new_socket();
  set_ip(late, kLocalPortRange, kRange);
  set_ip(out, kLocalPortRange, kRange);
  EXPECT_EQ(bind_at(late, At::self, 0), EADDRINUSE);
  sockaddr_in to{};
  listening(&to);
  EXPECT_EQ(connect_to(out, to), EADDRNOTAVAIL) << "what bind() gave out is not for connect()";
  close(held[1]);
  EXPECT_EQ(connect_to(out, to), 0);
  EXPECT_EQ(bind_at(late, At::self, 0), EADDRINUSE);
  close(held[2]);
  EXPECT_EQ(bind_at(late, At::self, 0), 0);
}

// Each listen() of a socket without a port looks for one that is free.
TEST_F(Ports, AListenerThatIsShutDownGetsAnother) {
  const int user = new_socket();
  ASSERT_EQ(bind_at(user, At::self, htons(40001)), 0);
  (void)to_peer(user);
  for (const bool bound : {false, true}) {
    const int listener = new_socket(At::any);
    set_ip(listener, kLocalPortRange, kRange);
    if (bound) {
      ASSERT_EQ(bind_at(listener, At::any, 0), 0);
    }
    for (int turn = 0; turn < 20; turn++) {
      ASSERT_EQ(listen_at(listener), 0) << turn;
      EXPECT_NE(port_of(listener), htons(40001));
      ASSERT_EQ(shutdown(listener, SHUT_RD), 0);
    }
    close(listener);
  }
}

TEST_F(Ports, ConnectSharesThemByDestination) {
  sockaddr_in to{}, other{};
  listening(&to);
  peer.listen(&other);
  std::vector<int> held;
  for (const sockaddr_in& where : {to, other}) {
    for (int i = 0; i < 4; i++) {
      held.push_back(new_socket());
      set_ip(held.back(), kLocalPortRange, kRange);
      EXPECT_EQ(connect_to(held.back(), where), 0) << i;
    }
    const int late = new_socket();
    set_ip(late, kLocalPortRange, kRange);
    EXPECT_EQ(connect_to(late, where), EADDRNOTAVAIL);
  }
}

TEST_F(Ports, AnAddressWithoutAPort) {
  sockaddr_in to{}, other{};
  listening(&to);
  peer.listen(&other);
  for (const sockaddr_in& where : {to, other}) {
    for (int i = 0; i < 4; i++) {
      const int fd = new_socket();
      set_ip(fd, kLocalPortRange, kRange);
      set_ip(fd, kBindAddressNoPort, 1);
      ASSERT_EQ(bind_at(fd, At::self, 0), 0);
      EXPECT_EQ(port_of(fd), 0);
      EXPECT_EQ(connect_to(fd, where), 0) << i;
      EXPECT_NE(port_of(fd), 0);
    }
  }
  const int listener = new_socket();
  set_ip(listener, kBindAddressNoPort, 1);
  ASSERT_EQ(bind_at(listener, At::self, 0), 0);
  ASSERT_EQ(listen_at(listener), 0);
  const uint16_t port = port_of(listener);
  EXPECT_NE(port, 0);
  const int theirs = peer.socket();
  EXPECT_EQ(peer.connect(theirs, self_address(port)).result, 0);
}

// ---------------------------------------------------------------- whoever asks

TEST_F(Ports, AreAFamilys) {
  Connection c = to_peer(new_socket());
  const int bound = new_socket(), shared = new_socket();
  share(shared, {true, false});
  ASSERT_EQ(bind_at(bound, At::self, 0), 0);
  ASSERT_EQ(bind_at(shared, At::self, 0), 0);
  const uint16_t ports[] = {port_of(c.mine), port_of(bound), port_of(shared)};
  const pid_t child = fork();
  if (child == 0) {
    close(bound);
    close(c.mine);
    const bool right = try_bind(At::any, ports[0]) == EADDRINUSE && try_bind(At::self, ports[1]) == EADDRINUSE &&
                       try_bind(At::self, ports[2], {true, false}) == 0 && try_bind(At::self, ports[2]) == EADDRINUSE;
    _exit(right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(try_bind(At::self, ports[1]), EADDRINUSE) << "held here, whatever the child closed";
  close(bound);
  EXPECT_EQ(try_bind(At::self, ports[1]), 0);
}

TEST_F(Ports, OfBothSidesOfAWildcardListener) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  int theirs = peer.socket();
  ASSERT_EQ(peer.connect(theirs, at).result, 0);
  int far = accept(listener, nullptr, nullptr);
  int local = new_socket();
  ASSERT_EQ(connect_to(local, {AF_INET, at.sin_port, {htonl(INADDR_LOOPBACK)}, {}}), 0);
  int near = accept(listener, nullptr, nullptr);
  ASSERT_GE(near, 0);
  close(listener);
  EXPECT_EQ(try_bind(At::any, at.sin_port), EADDRINUSE);
  EXPECT_EQ(try_bind(At::self, at.sin_port), EADDRINUSE);
  peer.reset(theirs);
  ASSERT_TRUE(wait_for(far, POLLIN));
  EXPECT_EQ(try_bind(At::any, at.sin_port), EADDRINUSE) << "the one over loopback";
  EXPECT_EQ(try_bind(At::self, at.sin_port), 0);
}

TEST_F(Ports, TheLowOnesNeedARight) {
  ASSERT_EQ(geteuid(), 0u) << "needs root to be somebody else";
  EXPECT_EQ(try_bind(At::self, htons(80)), 0);
  const pid_t child = fork();
  if (child == 0) {
    if (setuid(65534) != 0) _exit(2);
    const bool right =
        try_bind(At::self, htons(80)) == EACCES && try_bind(At::any, htons(80)) == EACCES && try_bind(At::mapped, htons(80)) == EACCES;
    _exit(right ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// ---------------------------------------------------------------- where a connection comes from

TEST_F(Ports, TheAddressThatBindChose) {
  for (At at : {At::self, At::mapped}) {
    const int fd = new_socket(at);
    ASSERT_EQ(bind_at(fd, at, 0), 0);
    const uint16_t port = port_of(fd);
    sockaddr_in to{};
    const int listener = listening(&to);
    if (at == At::mapped) {
      sockaddr_in6 v6{};
      v6.sin6_family = AF_INET6;
      v6.sin6_port = to.sin_port;
      v6.sin6_addr.s6_addr32[2] = htonl(0xffff);
      v6.sin6_addr.s6_addr32[3] = to.sin_addr.s_addr;
      ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&v6), sizeof v6), 0);
    } else {
      ASSERT_EQ(connect_to(fd, to), 0);
    }
    const Reply accepted = peer.accept(listener);
    EXPECT_EQ(to_text(peer.call(PeerOp::peer_name, static_cast<int>(accepted.result)).name), to_text(self_address(port)));
  }
}

// The other end of the default wire is an address of the same machine: who is bound to it connects from there, the kernel's way.
TEST_F(Ports, AnAddressOfTheKernels) {
  sockaddr_in at{};
  int listener = listen_here(&at);
  const int fd = new_socket();
  sockaddr_in from = peer_address();
  const int bound = bind(fd, reinterpret_cast<sockaddr*>(&from), sizeof from) == 0 ? 0 : errno;
  if (strcmp(getenv("ZPS_TEST_MODE"), "zpstack-veth") != 0) {
    EXPECT_EQ(bound, EADDRNOTAVAIL) << "another machine's";
    return;
  }
  ASSERT_EQ(bound, 0);
  ASSERT_EQ(connect_to(fd, at), 0);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  EXPECT_EQ(name.sin_addr.s_addr, from.sin_addr.s_addr);
  sockaddr_in who{};
  const int accepted = accept(listener, reinterpret_cast<sockaddr*>(&who), &size);
  ASSERT_GE(accepted, 0);
  EXPECT_EQ(to_text(who), to_text(name));
  ASSERT_EQ(write(fd, "kept", 4), 4);
  EXPECT_EQ(read_all(accepted, 4), "kept");
}

// __inet_bind() looks at the address before it looks whether there is a name, __inet6_bind() the other way round.
TEST_F(Ports, AForeignAddressForWhoHasAName) {
  const sockaddr_in v4{AF_INET, 0, {htonl(0xc633'6401)}, {}};
  sockaddr_in6 mapped{}, v6{};
  mapped.sin6_family = v6.sin6_family = AF_INET6;
  mapped.sin6_addr.s6_addr32[2] = htonl(0xffff);
  mapped.sin6_addr.s6_addr32[3] = v4.sin_addr.s_addr;
  v6.sin6_addr.s6_addr32[0] = htonl(0x2001'0db8);
  const auto bind_again = [](int fd, const auto& name) {
    return bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno;
  };
  for (const bool free : {false, true}) {
    for (At at : {At::self, At::mapped, At::any, At::any6}) {
      SCOPED_TRACE(testing::Message() << name_of(at) << " free " << free);
      const int bound = new_socket(at);
      const bool six = at == At::mapped || at == At::any6;
      if (free) set_ip(bound, IP_FREEBIND, 1);
      ASSERT_EQ(bind_at(bound, at, 0), 0);
      if (six) {
        EXPECT_EQ(bind_again(bound, mapped), EINVAL);
        EXPECT_EQ(bind_again(bound, v6), EINVAL);
        EXPECT_EQ(bind_again(bound, v4), EINVAL);
      } else {
        EXPECT_EQ(bind_again(bound, v4), free ? EINVAL : EADDRNOTAVAIL);
        EXPECT_EQ(bind_again(bound, mapped), EAFNOSUPPORT);
      }
      ASSERT_EQ(listen_at(bound), 0);
      EXPECT_EQ(six ? bind_again(bound, mapped) : bind_again(bound, v4), six || free ? EINVAL : EADDRNOTAVAIL);
      close(bound);
    }
  }
}

TEST_F(Ports, TheLoopbackAddress) {
  KNOWN_DIFFERENCE("source-address");
  sockaddr_in at{};
  listen_here(&at);
  const int fd = new_socket();
  sockaddr_in from{AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {}};
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&from), sizeof from), 0);
  EXPECT_EQ(connect_to(fd, self_address(at.sin_port)), 0);
}

}  // namespace
