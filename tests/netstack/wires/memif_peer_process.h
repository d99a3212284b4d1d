// A memif wire, or another one to a peer in shared memory, between this process and another that echoes.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "wire_fixture.h"

namespace wires {

inline constexpr uint32_t kFrameBytes = 200;

class MemifTest : public testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/zps_memif_XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override {
    unlink(path().c_str());
    rmdir(folder_.c_str());
  }

  Wire* open(const std::string& role, Opened* opened = nullptr, uint16_t mtu = 0) const {
    Opened local;
    Opened& into = opened != nullptr ? *opened : local;
    const bool second = role.find("client") != std::string::npos || role == ",role=auto";
    const std::string& kind = second ? client_kind_ : server_kind_;
    const std::string wire = kind + ":" + path() + role;
    netstack::StackConfig config;
    config.wire = wire.c_str();
    config.mtu = mtu;
    into = open_wire(config);
    EXPECT_NE(into.wire, nullptr) << into.error.text;
    return into.wire;
  }

  // Sends everything back that comes.
  static int echo(Wire& wire) {
    RxFrame frames[netstack::kBurst];
    const int count = wire.receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      TxFrame out;
      if (wire.allocate(&out)) {
        memcpy(out.data, frames[i].data, frames[i].length);
        wire.send(out.handle, frames[i].length);
      }
      wire.release(frames[i].handle);
    }
    wire.flush();
    return count;
  }

  // One frame there and back; a frame is sent again as long as no peer is connected.
  static bool round_trip(Wire& wire, uint32_t number) {
    double next = 0;
    return until([&] {
      if (now_ms() > next) {
        next = now_ms() + 20;
        TxFrame out;
        EXPECT_TRUE(wire.allocate(&out));
        memset(out.data, 0xee, kFrameBytes);
        memcpy(out.data + 14, &number, sizeof number);
        wire.send(out.handle, kFrameBytes);
        wire.flush();
      }
      wire.run_control();
      return heard(wire, number);
    });
  }
  static bool heard(Wire& wire, uint32_t number) {
    RxFrame frames[netstack::kBurst];
    const int count = wire.receive(frames, netstack::kBurst);
    bool found = false;
    for (int i = 0; i < count; i++) {
      found = found || memcmp(frames[i].data + 14, &number, sizeof number) == 0;
      EXPECT_EQ(frames[i].length, kFrameBytes);
      wire.release(frames[i].handle);
    }
    return found;
  }

  // A peer that opens `role` when it is told to, and echoes until it is told to stop.
  auto echoing(const std::string& role, uint16_t mtu = 0) {
    return [this, role, mtu](Process& maker) {
      Wire* wire = open(role, nullptr, mtu);
      maker.tell('o');
      maker.hear([&] { wire->run_control(), echo(*wire); });
    };
  }

  [[nodiscard]] std::string path() const { return folder_ + "/wire.sock"; }

  std::string folder_, server_kind_ = "memif", client_kind_ = "memif";
};

}  // namespace wires
