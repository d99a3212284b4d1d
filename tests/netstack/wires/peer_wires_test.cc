// The wires to one peer in shared memory: both start orders, late peers, death of a peer in either role, a family that changes hands.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/wait.h>
#include <unistd.h>

#include "memif_peer_process.h"

namespace {

using namespace wires;

struct Kinds {
  const char *server, *client;
  friend std::ostream& operator<<(std::ostream& out, const Kinds& kinds) { return out << kinds.server << " and " << kinds.client; }
};

class PeerWires : public MemifTest, public testing::WithParamInterface<Kinds> {
 protected:
  void SetUp() override {
    MemifTest::SetUp();
    server_kind_ = GetParam().server;
    client_kind_ = GetParam().client;
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, PeerWires,
                         testing::Values(Kinds{"memif", "memif"}, Kinds{"vhost", "virtio-user"}, Kinds{"virtio-user", "vhost"}),
                         [](const auto& kinds) { return std::to_string(kinds.index); });

TEST_P(PeerWires, ServerFirst) {
  Process server(echoing(",role=server"));
  server.hear();
  Opened opened;
  Wire* wire = open(",role=client", &opened);
  printf("load %.1f ms, open %.1f ms\n", opened.load_ms, opened.open_ms);
  const bool second = std::string(GetParam().client) != "vhost";
  EXPECT_EQ(dotted(opened.address.address_be), second ? "198.18.255.2" : "198.18.255.1");
  EXPECT_TRUE(wire->facts().memory);
  const int free_before = wire->free_frames();
  for (uint32_t i = 0; i < 100; i++) ASSERT_TRUE(round_trip(*wire, i));
  EXPECT_EQ(wire->free_frames(), free_before);
  server.tell('x');
  EXPECT_EQ(server.wait_exit(), 0);
}

TEST_P(PeerWires, ClientFirst) {
  Process client(echoing(",role=client"));
  client.hear();
  Wire* wire = open(",role=server");
  for (uint32_t i = 0; i < 100; i++) ASSERT_TRUE(round_trip(*wire, i));
  client.tell('x');
  EXPECT_EQ(client.wait_exit(), 0);
}

TEST_P(PeerWires, AutomaticRolesFindEachOther) {
  Process peer(echoing(""));
  peer.hear();
  Opened opened;
  Wire* wire = open(",role=auto", &opened);
  EXPECT_NE(std::string(opened.address.wire).find("(client)"), std::string::npos) << "the second one is the client";
  ASSERT_TRUE(round_trip(*wire, 1));
  peer.tell('x');
  EXPECT_EQ(peer.wait_exit(), 0);
}

TEST_P(PeerWires, HundredThousandFramesComeInOrder) {
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

TEST_P(PeerWires, ServerSurvivesItsClients) {
  survive([&] { return open(",role=server"); }, echoing(",role=client"), [](Wire& w, uint32_t n) { return round_trip(w, n); });
}

TEST_P(PeerWires, ClientSurvivesItsServers) {
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

TEST_P(PeerWires, PeersThatComeAfterAForkServer) {
  Family family([&] { return open(",role=server"); }, [](Wire& w, uint32_t n) { return round_trip(w, n); });
  late_peer(family, echoing(",role=client"));
}

TEST_P(PeerWires, PeersThatComeAfterAForkClient) {
  Family family([&] { return open(",role=client"); }, [](Wire& w, uint32_t n) { return round_trip(w, n); });
  late_peer(family, echoing(",role=server"));
}

// The peer's event descriptor wakes a sleeper that has armed, in the process that ran the handshake and in one that did not.
TEST_P(PeerWires, WakesASleeper) {
  Wire* wire = open(",role=server");
  Process peer([this](Process& maker) {
    Wire* theirs = open(",role=client");
    maker.tell('o');
    maker.hear([&] { theirs->run_control(), echo(*theirs); });
    maker.tell('q');
    while (maker.hear() == 's') {
      TxFrame out;
      EXPECT_TRUE(theirs->allocate(&out));
      memset(out.data, 0, kFrameBytes);
      theirs->send(out.handle, kFrameBytes);
      theirs->flush();
    }
  });
  peer.hear([&] { wire->run_control(); });
  ASSERT_TRUE(round_trip(*wire, 1));
  peer.tell('q');
  peer.hear();  // no echo comes any more of what the round trip may have sent twice
  RxFrame frame;
  while (wire->receive(&frame, 1) == 1) wire->release(frame.handle);
  const auto sleeps_and_wakes = [&] {
    wire->arm();
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

// An event is one open file for both ends: the peer may let it block again, empty as it is or full.
TEST_P(PeerWires, EventsThatWouldBlock) {
  alarm(30);
  Wire* wire = open(",role=server");
  Process peer([this](Process& maker) {
    Wire* theirs = open(",role=client");
    maker.tell('o');
    maker.hear([&] { theirs->run_control(), echo(*theirs); });
    theirs->arm();
    const uint64_t full = UINT64_MAX - 1;
    RxFrame frame;
    while (theirs->receive(&frame, 1) == 1) theirs->release(frame.handle);
    EXPECT_EQ(write(theirs->sleep_fd(), &full, sizeof full), static_cast<ssize_t>(sizeof full));
    EXPECT_EQ(fcntl(theirs->sleep_fd(), F_SETFL, 0), 0);
    maker.tell('f');
    maker.hear();
    EXPECT_EQ(theirs->receive(&frame, 1), 1);
    theirs->disarm();
  });
  peer.hear([&] { wire->run_control(); });
  ASSERT_TRUE(round_trip(*wire, 1));
  peer.tell('q');
  peer.hear();
  RxFrame frame;
  while (wire->receive(&frame, 1) == 1) wire->release(frame.handle);
  ASSERT_EQ(fcntl(wire->sleep_fd(), F_SETFL, 0), 0);
  wire->arm();
  EXPECT_EQ(wire->receive(&frame, 1), 0) << "there was nothing to take away";
  wire->disarm();
  TxFrame out;
  ASSERT_TRUE(wire->allocate(&out));
  memset(out.data, 0, kFrameBytes);
  wire->send(out.handle, kFrameBytes);
  wire->flush();
  peer.tell('x');
  EXPECT_EQ(peer.wait_exit(), 0);
  alarm(0);
}

// A descriptor that is readable means that frames may be there; so it stays readable while a receive() has left some.
TEST_P(PeerWires, StaysReadableWhileFramesWait) {
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

}  // namespace
