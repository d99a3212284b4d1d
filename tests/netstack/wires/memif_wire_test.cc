// The memif wire: both start orders, late peers, death of a peer in either role, a family that changes hands.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memif_peer_process.h"

namespace {

using namespace wires;

using MemifWire = MemifTest;

TEST_F(MemifWire, ServerFirst) {
  Process server(echoing(",role=server"));
  server.hear();
  Opened opened;
  Wire* wire = open(",role=client", &opened);
  printf("load %.1f ms, open %.1f ms\n", opened.load_ms, opened.open_ms);
  EXPECT_EQ(dotted(opened.address.address_be), "198.18.255.2");
  EXPECT_TRUE(wire->facts().memory);
  const int free_before = wire->free_frames();
  for (uint32_t i = 0; i < 100; i++) ASSERT_TRUE(round_trip(*wire, i));
  EXPECT_EQ(wire->free_frames(), free_before);
  server.tell('x');
  EXPECT_EQ(server.wait_exit(), 0);
}

TEST_F(MemifWire, ClientFirst) {
  Process client(echoing(",role=client"));
  client.hear();
  Wire* wire = open(",role=server");
  for (uint32_t i = 0; i < 100; i++) ASSERT_TRUE(round_trip(*wire, i));
  client.tell('x');
  EXPECT_EQ(client.wait_exit(), 0);
}

TEST_F(MemifWire, AutomaticRolesFindEachOther) {
  Process peer(echoing(""));
  peer.hear();
  Opened opened;
  Wire* wire = open("", &opened);
  EXPECT_EQ(dotted(opened.address.address_be), "198.18.255.2") << "the second one is the client";
  ASSERT_TRUE(round_trip(*wire, 1));
  peer.tell('x');
  EXPECT_EQ(peer.wait_exit(), 0);
}

TEST_F(MemifWire, HundredThousandFramesComeInOrder) {
  Process server(echoing(",role=server"));
  server.hear();
  Wire* wire = open(",role=client");
  ASSERT_TRUE(round_trip(*wire, UINT32_MAX));
  const int free_before = wire->free_frames();
  uint32_t sent = 0, received = 0;
  constexpr uint32_t kCount = 100000;
  ASSERT_TRUE(until([&] {
    for (int i = 0; i < 32 && sent < kCount && wire->backlog() < 256 && sent - received < 1500; i++) {
      TxFrame out;
      if (!wire->allocate(&out)) break;
      memset(out.data, 0, kFrameBytes);
      memcpy(out.data + 14, &sent, sizeof sent);
      wire->send(out.handle, kFrameBytes);
      sent++;
    }
    wire->flush();
    RxFrame frames[netstack::kBurst];
    const int count = wire->receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      uint32_t number;
      memcpy(&number, frames[i].data + 14, sizeof number);
      if (number != UINT32_MAX) {
        EXPECT_EQ(number, received);
        received = number + 1;
      }
      wire->release(frames[i].handle);
    }
    return received == kCount;
  })) << sent << " sent, " << received << " received";
  EXPECT_EQ(wire->free_frames(), free_before);
  server.tell('x');
  EXPECT_EQ(server.wait_exit(), 0);
}

// The survivor of a killed peer, in either role, serves the next one.
void survive(const std::function<Wire*()>& open_survivor, const std::function<void(Process&)>& peer_body,
             const std::function<bool(Wire&, uint32_t)>& round) {
  Wire* wire = open_survivor();
  const int free_before = wire->free_frames();
  for (uint32_t life = 0; life < 3; life++) {
    Process peer(peer_body);
    peer.hear([&] { wire->run_control(); });
    ASSERT_TRUE(round(*wire, life)) << "life " << life;
    peer.kill_now();
  }
  TxFrame out;
  ASSERT_TRUE(until([&] {
    wire->run_control();
    return wire->free_frames() == free_before;
  }));
  ASSERT_TRUE(wire->allocate(&out));
  wire->send(out.handle, kFrameBytes);
  wire->flush();
  EXPECT_EQ(wire->free_frames(), free_before) << "frames to nobody are dropped";
}

TEST_F(MemifWire, ServerSurvivesItsClients) {
  survive([&] { return open(",role=server"); }, echoing(",role=client"), [](Wire& w, uint32_t n) { return round_trip(w, n); });
}

TEST_F(MemifWire, ClientSurvivesItsServers) {
  survive([&] { return open(",role=client"); }, echoing(",role=server"), [](Wire& w, uint32_t n) { return round_trip(w, n); });
}

// A family of a founder and a child, forked before there is a peer. Each makes a round trip on command; the test is their lock.
class Family {
 public:
  Family(const std::function<Wire*()>& open_it, const std::function<bool(Wire&, uint32_t)>& round) {
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, child_), 0);
    founder_ = std::make_unique<Process>([&](Process& maker) {
      Wire* wire = open_it();
      if (fork() == 0) {
        serve(child_[1], *wire, round);
        _exit(0);
      }
      maker.tell('o');
      serve(maker.fd(), *wire, round);
    });
    founder_->hear();
  }
  bool founder_rounds() { return ask(founder_->fd(), 'r'); }
  bool child_rounds() { return ask(child_[0], 'r'); }
  void founder_leaves() {
    EXPECT_TRUE(ask(founder_->fd(), 'q'));
    EXPECT_EQ(founder_->wait_exit(), 0);
  }
  void child_leaves() { EXPECT_TRUE(ask(child_[0], 'q')); }

 private:
  static bool ask(int fd, char what) {
    char answer = 0;
    EXPECT_EQ(write(fd, &what, 1), 1);
    EXPECT_TRUE(until([&] { return recv(fd, &answer, 1, MSG_DONTWAIT) == 1; }));
    return answer == 'y';
  }
  static void serve(int fd, Wire& wire, const std::function<bool(Wire&, uint32_t)>& round) {
    static uint32_t number = 0;
    char what = 'r';
    while (what != 'q') {
      if (read(fd, &what, 1) != 1) return;
      const char answer = what == 'q' || round(wire, ++number) ? 'y' : 'n';
      if (write(fd, &answer, 1) != 1) return;
    }
  }

  int child_[2];
  std::unique_ptr<Process> founder_;
};

void late_peer(Family& family, const std::function<void(Process&)>& peer_body) {
  {
    Process peer(peer_body);
    peer.hear();
    EXPECT_TRUE(family.founder_rounds()) << "it ran the handshake";
    EXPECT_TRUE(family.child_rounds()) << "it was no part of the handshake";
    EXPECT_TRUE(family.founder_rounds()) << "again";
    peer.kill_now();
  }
  {
    Process peer(peer_body);
    peer.hear();
    EXPECT_TRUE(family.child_rounds()) << "it ran the second handshake";
    EXPECT_TRUE(family.founder_rounds()) << "it was no part of the second handshake";
    family.founder_leaves();
    EXPECT_TRUE(family.child_rounds()) << "alone";
    peer.kill_now();
  }
  Process peer(peer_body);
  peer.hear();
  EXPECT_TRUE(family.child_rounds()) << "a handshake after the founder's end";
  family.child_leaves();
}

TEST_F(MemifWire, PeersThatComeAfterAForkServer) {
  Family family([&] { return open(",role=server"); }, [](Wire& w, uint32_t n) { return round_trip(w, n); });
  late_peer(family, echoing(",role=client"));
}

TEST_F(MemifWire, PeersThatComeAfterAForkClient) {
  Family family([&] { return open(",role=client"); }, [](Wire& w, uint32_t n) { return round_trip(w, n); });
  late_peer(family, echoing(",role=server"));
}

// The peer's event descriptor wakes a sleeper that has armed, in the process that ran the handshake and in one that did not.
TEST_F(MemifWire, WakesASleeper) {
  Wire* wire = open(",role=server");
  Process peer([this](Process& maker) {
    Wire* theirs = open(",role=client");
    maker.tell('o');
    while (maker.hear([&] { theirs->run_control(), echo(*theirs); }) == 's') {
      TxFrame out;
      EXPECT_TRUE(theirs->allocate(&out));
      memset(out.data, 0, kFrameBytes);
      theirs->send(out.handle, kFrameBytes);
      theirs->flush();
    }
  });
  peer.hear([&] { wire->run_control(); });
  ASSERT_TRUE(round_trip(*wire, 1));
  const auto sleeps_and_wakes = [&] {
    wire->arm();
    RxFrame frame;
    EXPECT_EQ(wire->receive(&frame, 1), 0);
    pollfd sleeper{wire->sleep_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&sleeper, 1, 0), 0) << "nothing has come yet";
    peer.tell('s');
    EXPECT_EQ(poll(&sleeper, 1, 10000), 1);
    wire->disarm();
    ASSERT_EQ(wire->receive(&frame, 1), 1);
    wire->release(frame.handle);
  };
  sleeps_and_wakes();
  sleeps_and_wakes();
  const pid_t child = fork();
  if (child == 0) {
    sleeps_and_wakes();
    _exit(HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  peer.tell('x');
  EXPECT_EQ(peer.wait_exit(), 0);
}

// A descriptor that is readable means that frames may be there; so it stays readable while a receive() has left some.
TEST_F(MemifWire, StaysReadableWhileFramesWait) {
  Wire* wire = open(",role=server");
  Process peer([this](Process& maker) {
    Wire* theirs = open(",role=client");
    maker.tell('o');
    maker.hear([&] { theirs->run_control(), echo(*theirs); });
    maker.tell('q');
    maker.hear();
    for (int i = 0; i < 3; i++) {
      TxFrame out;
      EXPECT_TRUE(theirs->allocate(&out));
      memset(out.data, 0, kFrameBytes);
      theirs->send(out.handle, kFrameBytes);
    }
    theirs->flush();
    maker.tell('d');
    maker.hear();
  });
  peer.hear([&] { wire->run_control(); });
  ASSERT_TRUE(round_trip(*wire, 1));
  peer.tell('s');
  peer.hear();  // no echo comes any more of what the round trip may have sent twice
  RxFrame frame;
  while (wire->receive(&frame, 1) == 1) wire->release(frame.handle);
  wire->arm();
  EXPECT_EQ(wire->receive(&frame, 1), 0);
  peer.tell('g');
  peer.hear();
  for (int left = 3; left > 0; left--) {
    pollfd sleeper{wire->sleep_fd(), POLLIN, 0};
    EXPECT_EQ(poll(&sleeper, 1, 10000), 1) << left;
    ASSERT_EQ(wire->receive(&frame, 1), 1) << left;
    wire->release(frame.handle);
  }
  EXPECT_EQ(wire->receive(&frame, 1), 0);
  pollfd sleeper{wire->sleep_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&sleeper, 1, 0), 0) << "and not longer";
  wire->disarm();
  peer.tell('x');
  EXPECT_EQ(peer.wait_exit(), 0);
}

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
