// A client that is no stack: it says exactly what a test wants it to say, and sees what the server answers.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "forged_segment.h"
#include "stack_pair.h"

namespace netstack_test {

inline std::vector<Seen> seen_segments;
inline void see_segment(const uint8_t* data, uint32_t length) {
  Seen segment;
  if (segment.read(data, length)) seen_segments.push_back(segment);
}

class RawClientTest : public StackTest {
 protected:
  void SetUp() override {
    StackTest::SetUp();
    pair_.server_wire().tap = see_segment;
    seen_segments.clear();
    listener_ = listen(80);
  }
  void TearDown() override {
    if (listener_ != nullptr) listener_->release();
    pair_.server_wire().tap = nullptr;
    StackTest::TearDown();
  }

  // One connection of the client's; `next` and `got` are its SND.NXT and RCV.NXT.
  struct Raw {
    uint16_t port = 0;
    uint32_t next = 0, got = 0;
    uint16_t window = 60'000;
    TcpStream* server = nullptr;
  };
  void inject(const Raw& raw, uint8_t flags, const std::string& text = "", int ahead = 0, uint16_t urgent = 0) {
    announce();
    Segment segment{raw.port, 80, raw.next + static_cast<uint32_t>(ahead), raw.got, flags};
    segment.source_be = address_be();
    segment.window = raw.window;
    segment.urgent = urgent;
    segment.data.assign(text.begin(), text.end());
    const std::vector<uint8_t> frame = segment.frame(pair_.client_wire(), pair_.server_wire());
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
  }
  // Injects and lets the server answer.
  void say(const Raw& raw, uint8_t flags, const std::string& text = "", int ahead = 0, uint16_t urgent = 0) {
    inject(raw, flags, text, ahead, urgent);
    pair_.settle();
  }
  Raw open(uint16_t window = 60'000) {
    static uint16_t last_port = 2000;
    Raw raw{++last_port, 1000, 0, window};
    say(raw, kSyn);
    const Seen* const syn_ack = last(raw.port);
    EXPECT_NE(nullptr, syn_ack);
    raw.next++;
    raw.got = syn_ack != nullptr ? syn_ack->sequence + 1 : 0;
    say(raw, kAck);
    raw.server = accept(*listener_);
    EXPECT_NE(nullptr, raw.server);
    return raw;
  }
  // The last segment that the server has sent to this port.
  static const Seen* last(uint16_t port) {
    for (size_t i = seen_segments.size(); i-- > 0;) {
      if (seen_segments[i].peer_port == port) return &seen_segments[i];
    }
    return nullptr;
  }
  static uint8_t last_flags(uint16_t port) { return last(port) != nullptr ? last(port)->flags : uint8_t{0}; }
  // How many were sent to this port since seen_segments was cleared.
  static size_t answers(uint16_t port) {
    size_t count = 0;
    for (const Seen& segment : seen_segments) count += segment.peer_port == port;
    return count;
  }
  int connections() { return pair_.server->levels().pcbs - server_before_.pcbs; }

  TcpListener* listener_ = nullptr;

 private:
  // No stack has it, so that nobody else answers.
  static uint32_t address_be() { return inet_addr("198.18.0.50"); }
  // An ARP reply, so that the server knows the way.
  void announce() {
    if (test_now() - announced_ns_ < 60'000 * kMs) return;
    announced_ns_ = test_now();
    const netstack::WireFacts& from = pair_.client_wire().facts();
    const netstack::WireFacts& to = pair_.server_wire().facts();
    const uint32_t here = address_be(), there = inet_addr(kServerIp);
    uint8_t frame[42] = {};
    constexpr uint8_t kReply[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 2};
    memcpy(frame, to.mac, 6);
    memcpy(frame + 6, from.mac, 6);
    memcpy(frame + 12, kReply, sizeof kReply);
    memcpy(frame + 22, from.mac, 6);
    memcpy(frame + 28, &here, 4);
    memcpy(frame + 32, to.mac, 6);
    memcpy(frame + 38, &there, 4);
    pair_.server_wire().deliver(frame, sizeof frame);
  }

  uint64_t announced_ns_ = 0;
};

}  // namespace netstack_test
