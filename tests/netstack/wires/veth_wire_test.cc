// The veth wire: frames both ways, nothing leaked, fork and death of the maker, nothing left behind.
// SPDX-License-Identifier: BSD-3-Clause
#include <linux/capability.h>
#include <sys/syscall.h>

#include "wire_fixture.h"

namespace {

using namespace wires;

class VethWire : public testing::Test {
 protected:
  void SetUp() override {
    if (!enter_own_network()) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    opened_ = open_wire({});
    ASSERT_NE(opened_.wire, nullptr) << opened_.error.text;
  }

  bool ping(Responder& responder, Pinger& pinger, uint16_t sequence) {
    EXPECT_TRUE(pinger.send(sequence));
    return until([&] { return responder.turn(), pinger.answers() > 0; });
  }

  Opened opened_;
};

TEST_F(VethWire, AnswersPings) {
  EXPECT_EQ(dotted(opened_.address.address_be), "198.18.0.2");
  EXPECT_STREQ(opened_.address.wire, "veth zps0 (af_packet)");
  EXPECT_STREQ(opened_.wire->facts().name, "veth");
  EXPECT_EQ(opened_.wire->facts().mtu, 3998);
  EXPECT_EQ(opened_.wire->facts().gro_max_size, 65500);
  printf("load %.1f ms, open %.1f ms\n", opened_.load_ms, opened_.open_ms);
  Responder responder(*opened_.wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  for (uint16_t i = 0; i < 10; i++) ASSERT_TRUE(ping(responder, pinger, i)) << i;
  EXPECT_EQ(responder.echoes, 10);
}

TEST_F(VethWire, HundredThousandFramesLeaveNoFrameBehind) {
  Wire& wire = *opened_.wire;
  Responder responder(wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  ASSERT_TRUE(ping(responder, pinger, 0));
  ASSERT_TRUE(until([&] { return responder.turn() == 0; }));
  const int free_before = wire.free_frames();
  constexpr int kCount = 50000;  // a request and an answer each
  int sent = 0, answered = 0;
  ASSERT_TRUE(until([&] {
    for (int i = 0; i < 16 && sent < kCount && sent - answered < 200; i++) {
      if (pinger.send(static_cast<uint16_t>(sent), 1000)) sent++;
    }
    responder.turn();
    answered += pinger.answers();
    return answered == kCount;
  })) << sent << " sent, " << responder.echoes << " answered, " << answered << " received";
  while (responder.turn() > 0) {
  }
  EXPECT_EQ(wire.free_frames(), free_before);
  EXPECT_EQ(wire.backlog(), 0);
}

TEST_F(VethWire, HoldsFramesWithoutStarving) {
  Wire& wire = *opened_.wire;
  Responder responder(wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  ASSERT_TRUE(ping(responder, pinger, 0));
  const int free_before = wire.free_frames();
  std::vector<RxFrame> held;
  ASSERT_TRUE(until([&] {
    for (int i = 0; i < 32; i++) (void)pinger.send(1, 64);
    RxFrame frames[netstack::kBurst];
    const int count = wire.receive(frames, netstack::kBurst);
    held.insert(held.end(), frames, frames + count);
    return wire.free_frames() == 0;
  }));
  for (const RxFrame& frame : held) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(frame.scratch) % 64, 0U);
    memset(frame.scratch, 0xff, netstack::kFramePrivateBytes);
  }
  TxFrame none;
  EXPECT_FALSE(wire.allocate(&none));
  for (const RxFrame& frame : held) wire.release(frame.handle);
  EXPECT_EQ(wire.free_frames(), free_before);
  EXPECT_TRUE(until([&] { return responder.turn() == 0; }));
  (void)pinger.answers();
  EXPECT_TRUE(ping(responder, pinger, 2));
}

TEST_F(VethWire, WakesASleeper) {
  Wire& wire = *opened_.wire;
  Responder responder(wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  ASSERT_TRUE(ping(responder, pinger, 0));
  for (int i = 0; i < 5; i++) {
    ASSERT_TRUE(until([&] { return responder.turn() == 0; }));
    wire.arm();
    pollfd sleeper{wire.sleep_fd(), POLLIN, 0};
    ASSERT_TRUE(pinger.send(1));
    ASSERT_EQ(poll(&sleeper, 1, 10000), 1);
    EXPECT_EQ(sleeper.revents, POLLIN);
    wire.disarm();
    ASSERT_TRUE(until([&] { return responder.turn(), pinger.answers() > 0; }));
  }
}

// Without a wire of its own: processes that the test makes open them.
class VethFamily : public testing::Test {
 protected:
  void SetUp() override {
    if (!enter_own_network()) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
  }

  // Opens a wire and answers pings until it is told to stop.
  static void serve(Process& maker, const char* expected_address) {
    Opened opened = open_wire({});
    ASSERT_NE(opened.wire, nullptr) << opened.error.text;
    EXPECT_EQ(dotted(opened.address.address_be), expected_address);
    Responder responder(*opened.wire, opened.address.address_be);
    maker.tell('o');
    maker.hear([&] { responder.turn(); });
  }
  static bool answers(const char* address) {
    Pinger pinger(inet_addr(address));
    double next = 0;
    return until([&] {
      if (now_ms() > next) {
        next = now_ms() + 50;
        (void)pinger.send(1);
      }
      return pinger.answers() > 0;
    });
  }
  // Gives up capabilities for good.
  static void keep_capabilities(uint64_t kept) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {{static_cast<uint32_t>(kept), static_cast<uint32_t>(kept), 0}, {}};
    ASSERT_EQ(syscall(SYS_capset, &header, data), 0);
  }
  static bool there(const char* link) { return if_nametoindex(link) != 0; }
};

constexpr uint64_t kNetworkOnly = uint64_t{1} << CAP_NET_ADMIN | uint64_t{1} << CAP_NET_RAW;

// The founder forks, both have driven the wire, the founder ends: the child goes on.
TEST_F(VethFamily, ServesAfterItsMakerHasGone) {
  int child[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, child), 0);
  Process founder([&](Process& maker) {
    Opened opened = open_wire({});
    ASSERT_NE(opened.wire, nullptr) << opened.error.text;
    Responder responder(*opened.wire, opened.address.address_be);
    maker.tell('o');
    maker.hear([&] { responder.turn(); });
    if (fork() == 0) {
      char what;
      ASSERT_TRUE(until([&] { return responder.turn(), recv(child[1], &what, 1, MSG_DONTWAIT) == 1; }));
      _exit(0);
    }
  });
  founder.hear();
  EXPECT_TRUE(answers("198.18.0.2"));
  founder.tell('f');
  EXPECT_EQ(founder.wait_exit(), 0);
  EXPECT_TRUE(answers("198.18.0.2")) << "the child alone";
  ASSERT_EQ(write(child[0], "x", 1), 1);
  EXPECT_TRUE(until([] { return !there("zps0"); })) << "the pair goes with the last member";
}

TEST_F(VethFamily, LeavesNothingBehindWhenKilled) {
  Process first([](Process& maker) { serve(maker, "198.18.0.2"); });
  first.hear();
  Process second([](Process& maker) { serve(maker, "198.18.1.2"); });
  second.hear();
  EXPECT_TRUE(answers("198.18.0.2"));
  EXPECT_TRUE(answers("198.18.1.2"));
  first.kill_now();
  EXPECT_TRUE(until([] { return !there("zps0"); }));
  EXPECT_TRUE(answers("198.18.1.2")) << "the other one is left alone";
  Process third([](Process& maker) { serve(maker, "198.18.0.2"); });
  third.hear();
  EXPECT_TRUE(answers("198.18.0.2"));
}

// Without the right to make a namespace the pair stays in this one, outlives its family, and is removed by the next.
TEST_F(VethFamily, RemovesStalePairs) {
  const auto body = [](Process& maker) {
    keep_capabilities(kNetworkOnly);
    serve(maker, "198.18.0.2");
  };
  for (int life = 0; life < 2; life++) {
    Process process(body);
    process.hear();
    EXPECT_TRUE(there("zps0"));
    EXPECT_TRUE(there("zps0-stack"));
    EXPECT_TRUE(answers("198.18.0.2")) << "life " << life;
    process.kill_now();
    EXPECT_TRUE(there("zps0")) << "stale";
  }
}

TEST_F(VethFamily, TakesAGivenAddress) {
  Process process([](Process& maker) {
    netstack::StackConfig config;
    config.address_be = inet_addr("198.19.7.1");
    config.prefix = 28;
    Opened opened = open_wire(config);
    ASSERT_NE(opened.wire, nullptr) << opened.error.text;
    Responder responder(*opened.wire, config.address_be);
    maker.tell('o');
    maker.hear([&] { responder.turn(); });
  });
  process.hear();
  EXPECT_TRUE(answers("198.19.7.1")) << "the kernel side has 198.19.7.2";
}

TEST_F(VethFamily, SaysWhichCapabilityIsMissing) {
  Process process([](Process&) {
    keep_capabilities(0);
    const Opened opened = open_wire({});
    EXPECT_EQ(opened.wire, nullptr);
    EXPECT_NE(strstr(opened.error.text, "CAP_NET_ADMIN"), nullptr) << opened.error.text;
  });
  EXPECT_EQ(process.wait_exit(), 0);
}

// A member that dies in the middle of anything: every frame is back, and the wire works.
TEST_F(VethWire, RecoversFromADeadMember) {
  Wire& wire = *opened_.wire;
  Responder responder(wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  ASSERT_TRUE(ping(responder, pinger, 0));
  const pid_t child = fork();
  if (child == 0) {
    TxFrame frame;
    for (int i = 0; i < 100; i++) {
      if (wire.allocate(&frame) && i % 2 == 0) wire.send(frame.handle, 60);
    }
    _exit(0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_LT(wire.free_frames(), wire.total_frames());
  wire.recover();
  EXPECT_EQ(wire.free_frames(), wire.total_frames());
  EXPECT_EQ(wire.backlog(), 0);
  EXPECT_TRUE(ping(responder, pinger, 1));
}

TEST_F(VethWire, KeepsCallersThreadAsItWas) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  EXPECT_EQ(CPU_COUNT(&allowed), static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN))) << "run this test unpinned";
  sigset_t blocked;
  ASSERT_EQ(sigprocmask(SIG_SETMASK, nullptr, &blocked), 0);
  for (int s = 1; s < 32; s++) EXPECT_EQ(sigismember(&blocked, s), 0) << s;
  for (const std::string& fd : low_descriptors()) {
    EXPECT_TRUE(fd.find("socket:") == std::string::npos && fd.find("memfd") == std::string::npos && fd.find("net:") == std::string::npos)
        << fd;
  }
  EXPECT_GT(if_nametoindex("zps0"), 0U) << "the caller is still in its network";
  EXPECT_EQ(if_nametoindex("zps0-stack"), 0U) << "the other end is out of sight";
}

}  // namespace
