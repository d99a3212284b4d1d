// The tap wire and the af_packet wire: frames both ways, no signal taken, nothing left behind.
// SPDX-License-Identifier: BSD-3-Clause
#include <csignal>

#include "wire_fixture.h"

namespace {

using namespace wires;

class OtherWires : public testing::Test {
 protected:
  void SetUp() override {
    if (!enter_own_network()) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
  }
};

bool ping(Responder& responder, Pinger& pinger, uint16_t sequence) {
  EXPECT_TRUE(pinger.send(sequence));
  return until([&] { return responder.turn(), pinger.answers() > 0; });
}

TEST_F(OtherWires, TapAnswersPings) {
  if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/net/tun";
  netstack::StackConfig config;
  config.wire = "tap";
  Opened opened = open_wire(config);
  ASSERT_NE(opened.wire, nullptr) << opened.error.text;
  printf("load %.1f ms, open %.1f ms\n", opened.load_ms, opened.open_ms);
  EXPECT_EQ(dotted(opened.address.address_be), "198.18.0.2");
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++) {
    struct sigaction action;
    ASSERT_EQ(sigaction(signal, nullptr, &action), 0);
    EXPECT_EQ(action.sa_handler, SIG_DFL) << signal;
  }
  Wire& wire = *opened.wire;
  Responder responder(wire, opened.address.address_be);
  Pinger pinger(opened.address.address_be);
  ASSERT_TRUE(ping(responder, pinger, 0));
  const int free_before = wire.free_frames();
  for (uint16_t i = 1; i < 500; i++) ASSERT_TRUE(ping(responder, pinger, i)) << i;
  EXPECT_EQ(wire.free_frames(), free_before);

  ASSERT_TRUE(until([&] { return responder.turn() == 0; }));
  pollfd sleeper{wire.sleep_fd(), POLLIN, 0};
  EXPECT_EQ(poll(&sleeper, 1, 0), 0);
  ASSERT_TRUE(pinger.send(1));
  EXPECT_EQ(poll(&sleeper, 1, 10000), 1);
  ASSERT_TRUE(until([&] { return responder.turn(), pinger.answers() > 0; }));

  const pid_t child = fork();
  if (child == 0) {
    TxFrame frame;
    for (int i = 0; i < 10; i++) (void)wire.allocate(&frame);
    for (uint16_t i = 0; i < 10; i++) EXPECT_TRUE(ping(responder, pinger, i)) << "in the child";
    _exit(HasFailure() ? 1 : 0);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(wire.free_frames(), free_before - 10) << "the child died with frames in its hands";
  wire.recover();
  EXPECT_EQ(wire.free_frames(), free_before);
  for (uint16_t i = 0; i < 100; i++) ASSERT_TRUE(ping(responder, pinger, i)) << "after recovery";
  EXPECT_EQ(wire.free_frames(), free_before);
}

TEST_F(OtherWires, PacketSocketOnAGivenDevice) {
  ASSERT_EQ(system("ip link add left type veth peer name right && ip addr add 198.19.0.1/24 dev left && ip link set left up && ip link set "
                   "right up"),
            0);
  netstack::StackConfig config;
  config.wire = "af_packet:right";
  config.address_be = inet_addr("198.19.0.2");
  Opened opened = open_wire(config);
  ASSERT_NE(opened.wire, nullptr) << opened.error.text;
  EXPECT_STREQ(opened.wire->facts().name, "af_packet");
  Responder responder(*opened.wire, opened.address.address_be);
  Pinger pinger(opened.address.address_be);
  for (uint16_t i = 0; i < 10; i++) ASSERT_TRUE(ping(responder, pinger, i));
}

TEST_F(OtherWires, NamesWhatIsWrong) {
  expect_refused("carrier-pigeon", "no wire is called");
  expect_refused("af_packet:nowhere", "needs an IPv4 address");
  expect_refused("af_xdp:nowhere", "no network device");
  expect_refused("pci:0000:00:05.0", "no wire is called");
  expect_refused("device:0000:00:05.0", "its address is for you to say");
}

}  // namespace
