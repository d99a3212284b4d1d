// The memif wire: what it refuses, whose socket it is, long segments. peer_wires_test.cc has what it shares with others.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memif_peer_process.h"

namespace {

using namespace wires;

using MemifWire = MemifTest;

TEST_F(MemifWire, RefusesWhatItCannotServe) {
  expect_refused("memif", "absolute path");
  expect_refused("memif:/tmp/x.sock,role=boss", "role=boss");
  expect_refused("memif:/no/such/folder/x.sock", "does not exist");
}

int bound_at(const char* path, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, path);
  const int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  EXPECT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK));
  EXPECT_EQ(0, bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address));
  return fd;
}

// What lies at the path and is no memif socket is not removed.
TEST_F(MemifWire, RefusesOtherFiles) {
  char file[] = "/tmp/zps-memif-XXXXXX";
  const int fd = mkstemp(file);
  ASSERT_GE(fd, 0);
  for (const char* role : {"server", "client", "auto"})
    expect_refused((std::string("memif:") + file + ",role=" + role).c_str(), "something else");
  EXPECT_EQ(0, access(file, F_OK));
  unlink(file);
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    const int other = bound_at(file, type);
    ASSERT_EQ(type == SOCK_STREAM ? 0 : -1, listen(other, 1));
    for (const char* role : {"server", "client", "auto"})
      expect_refused((std::string("memif:") + file + ",role=" + role).c_str(), "something else");
    EXPECT_EQ(0, access(file, F_OK));
    unlink(file);
    close(other);
  }
  close(fd);
}

// Whoever only looks whether there is a server is no peer of it: it would be one too many beside the peer that comes.
TEST_F(MemifWire, ALookIsNoConnection) {
  char folder[] = "/tmp/zps-memif-XXXXXX";
  ASSERT_NE(nullptr, mkdtemp(folder));
  const std::string path = std::string(folder) + "/x.sock";
  const int server = bound_at(path.c_str(), SOCK_SEQPACKET);
  ASSERT_EQ(0, listen(server, 4));
  expect_refused(("memif:" + path + ",role=server").c_str(), "somebody serves");
  EXPECT_EQ(-1, accept4(server, nullptr, nullptr, SOCK_NONBLOCK));
  EXPECT_EQ(EAGAIN, errno);
  close(server);
  unlink(path.c_str());
  rmdir(folder);
}

TEST_F(MemifWire, SaysWhoseSocketItIs) {
  if (geteuid() != 0) GTEST_SKIP() << "needs another user";
  char folder[] = "/tmp/zps-memif-XXXXXX";
  ASSERT_NE(nullptr, mkdtemp(folder));
  ASSERT_EQ(0, chmod(folder, 0755));
  const std::string path = std::string(folder) + "/x.sock", argument = "memif:" + path;
  const int server = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strcpy(address.sun_path, path.c_str());
  const pid_t child = fork();
  if (child == 0) {
    const auto bind_it = [&](mode_t mode) {
      return bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && chmod(path.c_str(), mode) == 0;
    };
    const auto refused = [&](const char* why) {
      for (const char* role : {",role=server", ""}) expect_refused((argument + role).c_str(), why);
    };
    EXPECT_EQ(0, seteuid(65534));
    refused("may not be written to");
    EXPECT_EQ(0, seteuid(0));
    EXPECT_TRUE(bind_it(0700) && listen(server, 1) == 0);
    EXPECT_EQ(0, seteuid(65534));
    refused("socket of user 0");
    expect_refused((argument + ",role=client").c_str(), "socket of user 0");
    EXPECT_EQ(0, seteuid(0));
    EXPECT_TRUE(chmod(folder, 01777) == 0 && chmod(path.c_str(), 0777) == 0);
    close(server);
    EXPECT_EQ(0, seteuid(65534));
    refused("may not be removed");
    _exit(HasFailure() ? 1 : 0);
  }
  close(server);
  int status = -1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  unlink(path.c_str());
  rmdir(folder);
}

TEST_F(MemifWire, KeepsItsDescriptorsHigh) {
  Process peer(echoing(",role=client"));
  peer.hear();
  const auto before = low_descriptors();
  Wire* wire = open(",role=server");
  ASSERT_TRUE(round_trip(*wire, 1));
  EXPECT_EQ(low_descriptors(), before);
}

// Two that take long segments say so to each other; to who has an MTU of its own, or is no stack like this one, frames are frames.
TEST_F(MemifWire, LongSegmentsAreForThoseWhoTakeThem) {
  Wire* wire = open(",role=server");
  EXPECT_EQ(wire->facts().gso_max_size, 0);
  uint32_t number = 0;
  for (const uint16_t mtu : {0, 1500, 0}) {
    Process peer(echoing(",role=client", mtu));
    peer.hear([&] { wire->run_control(); });
    ASSERT_TRUE(round_trip(*wire, ++number));
    EXPECT_EQ(wire->facts().gso_max_size, mtu == 0 ? 16320 : 0);
    EXPECT_EQ(wire->facts().gro_max_size, wire->facts().gso_max_size);
    peer.kill_now();
  }
}

// More than the ring has room for, so that some wait in frames of the pool: they come whole and in order.
TEST_F(MemifWire, LongSegmentsComeWholeAndInOrder) {
  Process server(echoing(",role=server"));
  server.hear();
  Wire* wire = open(",role=client");
  ASSERT_TRUE(round_trip(*wire, UINT32_MAX));
  ASSERT_EQ(wire->facts().gso_max_size, 16320);
  server.stop();
  constexpr uint32_t kHeaders = 54, kPayload = 16280, kCount = 2000, kAhead = 200;
  const int free_before = wire->free_frames();
  const std::string payload(kPayload, 'x');
  uint64_t received = 0;
  uint32_t sent = 0, headers = 0, most_backlog = 0;
  ASSERT_TRUE(until([&] {
    while (sent < kCount && sent < headers + kAhead) {
      TxFrame out;
      if (!wire->allocate(&out)) break;
      memset(out.data, 'h', kHeaders);
      memcpy(out.data + 14, &sent, sizeof sent);
      const netstack::Piece pieces[] = {{payload.data(), 1000}, {payload.data() + 1000, kPayload - 1000}};
      wire->send_tcp_with(out.handle, kHeaders, pieces, 2);
      sent++;
      most_backlog = std::max(most_backlog, static_cast<uint32_t>(wire->backlog()));
    }
    wire->flush();
    server.go_on();
    RxFrame frames[netstack::kBurst];
    const int count = wire->receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      if (frames[i].data[0] != 0xee) received += frames[i].length;  // not what round_trip() has sent again
      if (frames[i].data[0] == 'h') {
        EXPECT_EQ(memcmp(frames[i].data + 14, &headers, sizeof headers), 0) << headers;
        headers++;
      }
      wire->release(frames[i].handle);
    }
    return received >= uint64_t{kCount} * (kHeaders + kPayload);
  })) << sent << " sent, " << headers << " and " << received << " bytes received";
  EXPECT_EQ(headers, kCount);
  EXPECT_EQ(received, uint64_t{kCount} * (kHeaders + kPayload));
  EXPECT_GT(most_backlog, 0U) << "the ring was never full";
  EXPECT_EQ(wire->free_frames(), free_before);
  server.tell('x');
  EXPECT_EQ(server.wait_exit(), 0);
}

}  // namespace
