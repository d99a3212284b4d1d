// What a packet wire leaves to the kernel: frames longer than a slot, and TCP segments that travel as one.
// SPDX-License-Identifier: BSD-3-Clause
#include <net/if_arp.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>

#include <numeric>

#include "wire_fixture.h"

namespace {

using namespace wires;

constexpr uint32_t kHeaders = 54;

class PacketWireTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!enter_own_network()) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
    opened_ = open_wire({});
    ASSERT_NE(opened_.wire, nullptr) << opened_.error.text;
    Responder responder(*opened_.wire, opened_.address.address_be);
    Pinger pinger(opened_.address.address_be);
    ASSERT_TRUE(pinger.send(1));
    ASSERT_TRUE(until([&] { return responder.turn(), pinger.answers() > 0; })) << "the kernel knows the stack's MAC address";
    ASSERT_TRUE(until([&] { return responder.turn() == 0; }));
  }

  // A kernel UDP socket whose datagrams the device is to cut into pieces of 1400 bytes.
  int segmenting_socket() const {
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    const int segment = 1400;
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    to.sin_addr.s_addr = opened_.address.address_be;
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    EXPECT_EQ(setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment), 0);
    return fd;
  }

  // Takes frames off the wire, without those that the kernel sends of its own accord.
  int receive(RxFrame* out, int capacity) const {
    const int count = opened_.wire->receive(out, capacity);
    int kept = 0;
    bool ours = false;
    for (int i = 0; i < count; i++) {
      if (!out[i].continues) ours = out[i].data[12] == 8 && out[i].data[13] == 0 && out[i].data[23] == IPPROTO_UDP;
      if (ours) {
        out[kept++] = out[i];
      } else {
        opened_.wire->release(out[i].handle);
      }
    }
    return kept;
  }

  // One frame with a TCP segment of 1000 bytes, each of them `fill`, to the kernel's side. With `elsewhere` the payload is left there until
  // the flush.
  void send_segment(uint32_t sequence, uint8_t fill, uint8_t* elsewhere = nullptr) {
    Wire& wire = *opened_.wire;
    TxFrame frame;
    ASSERT_TRUE(wire.allocate(&frame));
    ifreq request{};
    memcpy(request.ifr_name, "zps0", 5);
    const int any = socket(AF_INET, SOCK_DGRAM, 0);
    ASSERT_EQ(ioctl(any, SIOCGIFHWADDR, &request), 0);
    close(any);
    memset(frame.data, 0, kHeaders);
    memcpy(frame.data, request.ifr_hwaddr.sa_data, 6);
    memcpy(frame.data + 6, wire.facts().mac, 6);
    const uint8_t ip[] = {8, 0, 0x45, 0, 1040 >> 8, 1040 & 255, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 2, 198, 18, 0, 1};
    memcpy(frame.data + 12, ip, sizeof ip);
    uint32_t sum = 0;
    for (int i = 14; i < 34; i += 2) sum += static_cast<uint32_t>(frame.data[i] << 8 | frame.data[i + 1]);
    sum = ~((sum & 0xffff) + (sum >> 16));
    frame.data[24] = static_cast<uint8_t>(sum >> 8), frame.data[25] = static_cast<uint8_t>(sum);
    const uint8_t ports[] = {0x10, 0, 0x20, 0};
    memcpy(frame.data + 34, ports, sizeof ports);
    sequence = htonl(sequence);
    memcpy(frame.data + 38, &sequence, 4);
    frame.data[46] = 5 << 4, frame.data[47] = 0x10;
    memset(elsewhere != nullptr ? elsewhere : frame.data + kHeaders, fill, 1000);
    if (elsewhere != nullptr) {
      const netstack::Piece payload{elsewhere, 1000};
      wire.send_tcp_with(frame.handle, kHeaders, &payload, 1);
    } else {
      wire.send_tcp(frame.handle, kHeaders + 1000);
    }
  }

  Opened opened_;
};

TEST_F(PacketWireTest, TakesAFrameLongerThanASlotInPieces) {
  Wire& wire = *opened_.wire;
  const int free_before = wire.free_frames();
  const int fd = segmenting_socket();
  std::vector<uint8_t> sent(50000);
  std::iota(sent.begin(), sent.end(), uint8_t{0});
  for (int round = 0; round < 300; round++) {  // the ring goes round, short frames between the long ones
    ASSERT_EQ(send(fd, sent.data(), sent.size(), 0), static_cast<ssize_t>(sent.size()));
    ASSERT_EQ(send(fd, sent.data(), 100, 0), 100);
    std::vector<RxFrame> pieces;
    size_t bytes = 0;
    ASSERT_TRUE(until([&] {
      RxFrame frames[netstack::kBurst];
      const int count = receive(frames, netstack::kBurst);
      for (int i = 0; i < count; i++) {
        EXPECT_TRUE(frames[i].checksum_verified) << "it has not left the machine";
        pieces.push_back(frames[i]);
        bytes += frames[i].length;
      }
      return bytes >= sent.size() + 100 + 2 * 42;
    })) << bytes;
    ASSERT_EQ(bytes, sent.size() + 100 + 2 * 42) << "both frames, each with its headers once";
    std::vector<uint8_t> got;
    for (size_t i = 0; i + 1 < pieces.size(); i++) {
      EXPECT_EQ(pieces[i].continues, i > 0);
      got.insert(got.end(), pieces[i].data, pieces[i].data + pieces[i].length);
    }
    EXPECT_FALSE(pieces.back().continues);
    EXPECT_EQ(pieces.back().length, 142U);
    ASSERT_EQ(got.size(), sent.size() + 42);
    EXPECT_EQ(memcmp(&got[42], sent.data(), sent.size()), 0);
    for (const RxFrame& piece : pieces) wire.release(piece.handle);
  }
  EXPECT_EQ(wire.free_frames(), free_before);
  close(fd);
}

// In a slot, in the socket's queue and in two pieces: everything arrives in order.
TEST_F(PacketWireTest, TakesAFrameOfAnyLength) {
  Wire& wire = *opened_.wire;
  const int free_before = wire.free_frames();
  const int fd = segmenting_socket();
  std::vector<uint8_t> sent(6000);
  std::iota(sent.begin(), sent.end(), uint8_t{0});
  for (size_t length = 1; length <= sent.size(); length += 13) {
    ASSERT_EQ(send(fd, sent.data(), length, 0), static_cast<ssize_t>(length));
    RxFrame frames[netstack::kBurst];
    int count = 0;
    ASSERT_TRUE(until([&] { return (count = receive(frames, netstack::kBurst)) > 0; }));
    ASSERT_EQ(count, length + 42 > 4096 ? 2 : 1) << length;
    uint32_t bytes = 0;
    for (int i = 0; i < count; i++) {
      const uint32_t headers = i == 0 ? 42 : 0;
      EXPECT_EQ(frames[i].continues, i > 0);
      ASSERT_LE(bytes + frames[i].length - headers, length);
      ASSERT_EQ(memcmp(frames[i].data + headers, &sent[bytes], frames[i].length - headers), 0) << length;
      bytes += frames[i].length - headers;
      wire.release(frames[i].handle);
    }
    ASSERT_EQ(bytes, length);
  }
  EXPECT_EQ(wire.free_frames(), free_before);
  close(fd);
}

// What thousands of clients send while the program works on something else.
TEST_F(PacketWireTest, KeepsThousandsOfFramesUntilSomebodyPolls) {
  constexpr int kFrames = 4000;
  Wire& wire = *opened_.wire;
  const int fd = segmenting_socket();
  EXPECT_FALSE(wire.crowded());
  for (int i = 0; i < kFrames; i++) ASSERT_EQ(send(fd, &i, sizeof i, 0), static_cast<ssize_t>(sizeof i));
  EXPECT_TRUE(wire.crowded());
  for (int next = 0; next < kFrames;) {
    RxFrame frames[netstack::kBurst];
    const int count = receive(frames, netstack::kBurst);
    ASSERT_GT(count, 0) << next;
    for (int i = 0; i < count; i++, next++) {
      ASSERT_EQ(memcmp(frames[i].data + 42, &next, sizeof next), 0) << next;
      wire.release(frames[i].handle);
    }
  }
  EXPECT_FALSE(wire.crowded());
  close(fd);
}

// A burst that a long frame would not fit leaves it for the next one.
TEST_F(PacketWireTest, NeverCutsAFrameShort) {
  Wire& wire = *opened_.wire;
  const int fd = segmenting_socket();
  const std::vector<uint8_t> data(30000);
  ASSERT_EQ(send(fd, data.data(), 10, 0), 10);
  ASSERT_EQ(send(fd, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  RxFrame frames[netstack::kBurst];
  ASSERT_EQ(receive(frames, 4), 1);
  EXPECT_EQ(frames[0].length, 52U);
  wire.release(frames[0].handle);
  EXPECT_EQ(receive(frames, 4), 0);
  const int pieces = receive(frames, netstack::kBurst);
  EXPECT_EQ(pieces, (30042 + 4095) / 4096);
  for (int i = 0; i < pieces; i++) wire.release(frames[i].handle);
  close(fd);
}

// A member dies after it took a long frame out of the socket's queue and before it moved on in the ring: what waited is gone, the next one
// comes whole.
TEST_F(PacketWireTest, LongFramesComeAfterADeath) {
  Wire& wire = *opened_.wire;
  const int fd = segmenting_socket();
  const std::vector<uint8_t> data(30000);
  ASSERT_EQ(send(fd, data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  char head[64];
  ASSERT_GT(recv(wire.sleep_fd(), head, sizeof head, MSG_DONTWAIT), 0) << "as the dead member would have";
  wire.recover();
  ASSERT_EQ(send(fd, data.data(), 20000, 0), 20000);
  RxFrame frames[netstack::kBurst];
  size_t bytes = 0;
  ASSERT_TRUE(until([&] {
    const int count = receive(frames, netstack::kBurst);
    for (int i = 0; i < count; i++) {
      bytes += frames[i].length;
      wire.release(frames[i].handle);
    }
    return bytes >= 20042;
  })) << bytes;
  EXPECT_EQ(bytes, 20042U);
  EXPECT_EQ(wire.free_frames(), wire.total_frames());
  close(fd);
}

TEST_F(PacketWireTest, SegmentsInOrderArriveAsOnePacket) {
  const int raw = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_TCP);
  ASSERT_GE(raw, 0);
  for (uint32_t i = 0; i < 4; i++) ASSERT_NO_FATAL_FAILURE(send_segment(5000 + i * 1000, static_cast<uint8_t>(i)));
  ASSERT_NO_FATAL_FAILURE(send_segment(20000, 9));
  opened_.wire->flush();
  std::vector<uint8_t> packet(65536);
  ssize_t length = -1;
  ASSERT_TRUE(until([&] { return (length = recv(raw, packet.data(), packet.size(), 0)) > 0; }));
  EXPECT_EQ(length, 40 + 4000);
  for (uint32_t i = 0; i < 4000; i++) ASSERT_EQ(packet[40 + i], i / 1000) << i;
  ASSERT_TRUE(until([&] { return (length = recv(raw, packet.data(), packet.size(), 0)) > 0; }));
  EXPECT_EQ(length, 40 + 1000) << "what does not continue travels alone";
  EXPECT_EQ(packet[40], 9);
  EXPECT_EQ(opened_.wire->backlog(), 0);
  close(raw);
}

// Payload that is not in the frames: alone, in trains with others, and in more frames than one call to the kernel takes.
TEST_F(PacketWireTest, PayloadElsewhereArrivesAsIfItWereInTheFrame) {
  const int raw = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, IPPROTO_TCP);
  ASSERT_GE(raw, 0);
  const int room = 1 << 20;
  ASSERT_EQ(setsockopt(raw, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), 0);
  std::vector<std::vector<uint8_t>> elsewhere(100, std::vector<uint8_t>(1000));
  const int free_before = opened_.wire->free_frames();
  const auto expect_packet = [&](uint32_t segments, uint32_t first_fill) {
    std::vector<uint8_t> packet(65536);
    ssize_t length = -1;
    ASSERT_TRUE(until([&] { return (length = recv(raw, packet.data(), packet.size(), 0)) > 0; }));
    ASSERT_EQ(length, 40 + segments * 1000);
    for (uint32_t i = 0; i < segments * 1000; i++) ASSERT_EQ(packet[40 + i], first_fill + i / 1000) << i;
  };
  send_segment(1, 7, elsewhere[0].data());
  opened_.wire->flush();
  expect_packet(1, 7);
  for (uint8_t i = 0; i < 6; i++) send_segment(1001 + i * 1000u, static_cast<uint8_t>(20 + i), i % 3 == 1 ? nullptr : elsewhere[i].data());
  opened_.wire->flush();
  expect_packet(6, 20);
  for (uint8_t i = 0; i < 100; i++) send_segment(20001 + i * 2000u, i, elsewhere[i].data());  // none continues another
  opened_.wire->flush();
  for (uint32_t i = 0; i < 100; i++) expect_packet(1, i);
  EXPECT_EQ(opened_.wire->backlog(), 0);
  EXPECT_EQ(opened_.wire->free_frames(), free_before);
  close(raw);
}

}  // namespace
