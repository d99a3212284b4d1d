// The veth wire: frames both ways, nothing leaked, fork and death of the maker, nothing left behind.
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
  EXPECT_EQ(opened_.wire->facts().mtu, 1500);
  printf("load %.1f ms, open %.1f ms\n", opened_.load_ms, opened_.open_ms);
  Responder responder(*opened_.wire, opened_.address.address_be);
  Pinger pinger(opened_.address.address_be);
  for (uint16_t i = 0; i < 10; i++) ASSERT_TRUE(ping(responder, pinger, i)) << i;
  EXPECT_EQ(responder.echoes, 10);
}

}  // namespace
