// Whose a port is: connections belong to whoever has accepted them, and sockets of one user share a port by SO_REUSEPORT.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr uid_t kNobody = 65534, kStranger = 65533;

// A socket of `user` that shares its port.
int socket_of(uid_t user) {
  setfsuid(user);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  setfsuid(0);
  const int on = 1;
  EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
  return fd;
}

// 0 or errno.
int bind_at(int fd, uint16_t port_be) {
  const sockaddr_in name = self_address(port_be);
  return bind(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0 ? 0 : errno;
}

int try_bind_as(uid_t user, uint16_t port_be) {
  const int fd = socket_of(user);
  const int error = bind_at(fd, port_be);
  close(fd);
  return error;
}

class PortUsers : public DiffTest {
 protected:
  // A connection that `acceptor` has accepted from a listener of root's, which is gone; the listener's port.
  uint16_t accept_as(uid_t acceptor, int* mine, int* theirs) {
    const int listener = socket_of(0);
    EXPECT_EQ(bind_at(listener, 0), 0);
    EXPECT_EQ(listen(listener, 8), 0);
    sockaddr_in at{};
    socklen_t bytes = sizeof at;
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&at), &bytes), 0);
    *theirs = peer.socket();
    EXPECT_EQ(peer.connect(*theirs, at).result, 0);
    setfsuid(acceptor);
    *mine = accept(listener, nullptr, nullptr);
    setfsuid(0);
    EXPECT_GE(*mine, 0);
    close(listener);
    return at.sin_port;
  }
};

// sock_graft(), inet_bind_conflict().
TEST_F(PortUsers, AnAcceptedConnectionIsTheAcceptors) {
  ASSERT_EQ(geteuid(), 0u) << "needs root to be somebody else";
  for (const uid_t acceptor : {uid_t{0}, kNobody}) {
    int mine, theirs;
    const uint16_t port_be = accept_as(acceptor, &mine, &theirs);
    EXPECT_EQ(try_bind_as(kNobody, port_be), acceptor == kNobody ? 0 : EADDRINUSE);
    EXPECT_EQ(try_bind_as(kStranger, port_be), EADDRINUSE);
    close(mine);
    peer.close(theirs);
  }
}

}  // namespace
