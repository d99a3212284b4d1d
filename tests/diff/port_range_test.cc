// Ports that bind() and connect() choose: from the range that the network namespace says, without those it keeps, and none that is in use.
// SPDX-License-Identifier: BSD-3-Clause
//
// The namespace is this case's own. Natively the peer has another; over the wire it may be in the same, and is to have its port before.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <set>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr uint16_t kFirst = 40000, kLast = 40007;

class PortRange : public DiffTest {
 protected:
  ~PortRange() override {
    for (int fd : fds_) close(fd);
  }

  // Before the first call that may make a stack.
  static void set(const char* name, const std::string& value) {
    const int file = open(("/proc/sys/net/ipv4/" + std::string(name)).c_str(), O_WRONLY | O_CLOEXEC);
    ASSERT_GE(file, 0) << "the harness gives it a network namespace of its own";
    EXPECT_EQ(write(file, value.data(), value.size()), static_cast<ssize_t>(value.size())) << strerror(errno);
    close(file);
  }
  int new_socket(bool shares = false) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    fds_.push_back(fd);
    const int on = shares;
    EXPECT_EQ(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    return fd;
  }
  // The port that is chosen, or minus the error.
  static int chosen(int fd) {
    sockaddr_in name{};
    socklen_t bytes = sizeof name;
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes), 0);
    return ntohs(name.sin_port);
  }
  int bind_anywhere(sockaddr_in to, bool shares = false) {
    const int fd = new_socket(shares);
    return bind(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0 ? chosen(fd) : -errno;
  }
  int connect_from_anywhere(const sockaddr_in& to, int* mine = nullptr, bool shares = false) {
    const int fd = new_socket(shares);
    if (mine != nullptr) *mine = fd;
    return connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 ? chosen(fd) : -errno;
  }

  static inline const std::set<int> kAll = {40000, 40001, 40002, 40003, 40004, 40005, 40006, 40007};

 private:
  std::vector<int> fds_;
};

TEST_F(PortRange, IsWhatBindChoosesFrom) {
  set("ip_local_port_range", "40000 40007");
  std::set<int> ports;
  for (int port = kFirst; port <= kLast; port++) ports.insert(bind_anywhere(self_address()));
  EXPECT_EQ(ports, kAll);
  EXPECT_EQ(bind_anywhere(self_address()), -EADDRINUSE);
  EXPECT_EQ(bind_anywhere(self_address(), true), -EADDRINUSE);
}

TEST_F(PortRange, IsWhatConnectChoosesFrom) {
  sockaddr_in to{};
  ASSERT_GE(peer.listen(&to, 16), 0);
  set("ip_local_port_range", "40000 40007");
  std::set<int> ports;
  for (int port = kFirst; port <= kLast; port++) ports.insert(connect_from_anywhere(to));
  EXPECT_EQ(ports, kAll);
  EXPECT_EQ(connect_from_anywhere(to), -EADDRNOTAVAIL);
}

TEST_F(PortRange, HasPortsThatAreKept) {
  set("ip_local_port_range", "40000 40007");
  set("ip_local_reserved_ports", "39000,40001-40003,40006");
  const std::set<int> expected = {40000, 40004, 40005, 40007};
  std::set<int> ports;
  for (int i = 0; i < 4; i++) ports.insert(bind_anywhere(self_address()));
  EXPECT_EQ(ports, expected);
  EXPECT_EQ(bind_anywhere(self_address()), -EADDRINUSE);
  sockaddr_in asked = self_address(htons(40002));
  EXPECT_EQ(bind_anywhere(asked), 40002) << "whoever asks for one gets it";
}

// What shares a port by SO_REUSEADDR does so where it has asked for that port: none is chosen for it that is in TIME-WAIT
// (inet_csk_find_open_port(): inet_csk_bind_conflict() without `relax`).
TEST_F(PortRange, HoldsNoPortInTimeWait) {
  sockaddr_in to{};
  const int listener = peer.listen(&to);
  set("ip_local_port_range", "40000 40001");
  int mine = -1;
  const int used = connect_from_anywhere(to, &mine, true);
  ASSERT_TRUE(used == 40000 || used == 40001) << used;
  const int theirs = static_cast<int>(peer.accept(listener).result);
  shutdown(mine, SHUT_WR);
  EXPECT_EQ(peer.recv(theirs, 1).result, 0);
  peer.close(theirs);
  EXPECT_EQ(read_all(mine, 1), "");
  const int other = used == 40000 ? 40001 : 40000;
  const sockaddr_in any{AF_INET, 0, {INADDR_ANY}, {}};
  EXPECT_EQ(bind_anywhere(any, true), other);
  EXPECT_EQ(bind_anywhere(any, true), -EADDRINUSE);
  EXPECT_EQ(bind_anywhere(self_address(), true), -EADDRINUSE);
}

}  // namespace
