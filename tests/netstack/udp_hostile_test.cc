// Datagrams nobody should send, a family whose member dies with datagrams queued, and memory at its bound.
// SPDX-License-Identifier: BSD-3-Clause
#include "udp_pair.h"

#include <csignal>
#include <random>
#include <sys/wait.h>
#include <unistd.h>

using namespace netstack_test;

namespace {

constexpr const char* kNothing = "Resource temporarily unavailable";
constexpr uint16_t kMore = 0x2000;  // more fragments follow

class UdpHostile : public UdpTest {
 protected:
  void inject_icmp(uint8_t type, uint8_t code, const std::string& packet) {
    ForgedDatagram message;
    message.protocol = 1;
    message.has_header = false;
    message.data = std::string({static_cast<char>(type), static_cast<char>(code), 0, 0, 0, 0, 0, 0}) + packet;
    const uint16_t sum = sum_of(reinterpret_cast<const uint8_t*>(message.data.data()), message.data.size(), 0);
    message.data[2] = static_cast<char>(sum >> 8);
    message.data[3] = static_cast<char>(sum);
    inject(message);
  }
  // The packet that a report is about, as the server would have sent it to the client.
  static std::string sent_packet(uint16_t from, uint16_t to) {
    std::string packet(28, '\0');
    packet[0] = 0x45;
    packet[3] = 28;
    packet[9] = 17;
    memcpy(&packet[12], "\xc6\x12\x00\x02\xc6\x12\x00\x01", 8);
    packet[20] = static_cast<char>(from >> 8), packet[21] = static_cast<char>(from);
    packet[22] = static_cast<char>(to >> 8), packet[23] = static_cast<char>(to);
    packet[25] = 8;
    return packet;
  }
};

TEST_F(UdpHostile, Lengths) {
  UdpEndpoint* server = bound(pair_.server, 53);
  inject({.data = "abcdef", .length = 7});
  inject({.data = "abcdef", .length = 0});
  inject({.data = "abcdef", .length = 15});
  inject({.data = "abcdef", .length = 65535});
  inject({.data = "abcdef", .ip_length = 24});
  inject({.data = "abcdef", .ip_length = 20});
  inject({.data = "abcdef", .ip_length = 1000});
  inject({.data = "abc", .has_header = false});
  EXPECT_EQ(kNothing, take(server));
  inject({.data = "abcdef", .length = 11, .checksum = false});
  EXPECT_EQ("abc", take(server)) << "what is beyond the datagram is no part of it";
  inject({.data = "abcdef"});
  EXPECT_EQ("abcdef", take(server));
}

TEST_F(UdpHostile, Checksums) {
  UdpEndpoint* server = bound(pair_.server, 53);
  inject({.data = "wrong", .checksum = false, .sum = 0x1234});
  EXPECT_EQ(kNothing, take(server));
  inject({.data = "none", .checksum = false, .sum = 0});
  EXPECT_EQ("none", take(server));
  inject({.data = "right"});
  EXPECT_EQ("right", take(server));
  inject({.to = 99, .data = "wrong, for nobody", .checksum = false, .sum = 0x1234});
}

TEST_F(UdpHostile, Fragments) {
  UdpEndpoint* server = bound(pair_.server, 53);
  const std::string eight(8, 'e');
  // A header alone, then the rest, in any order.
  inject({.data = "", .length = 24, .checksum = false, .fragment = kMore, .id = 1});
  inject({.data = eight + eight, .fragment = 1, .id = 1, .has_header = false});
  EXPECT_EQ(eight + eight, take(server));
  inject({.data = "tail", .fragment = 2, .id = 2, .has_header = false});
  inject({.data = eight, .length = 20, .checksum = false, .fragment = kMore, .id = 2});
  EXPECT_EQ(eight + "tail", take(server));
  // Overlapping: never delivered, whichever way.
  inject({.data = eight + eight, .length = 40, .checksum = false, .fragment = kMore, .id = 3});
  inject({.data = eight + eight, .fragment = kMore | 2, .id = 3, .has_header = false});
  inject({.data = eight, .fragment = 4, .id = 3, .has_header = false});
  EXPECT_EQ(kNothing, take(server));
  // Beyond 64 KB; a middle that never ends; twice the same.
  inject({.data = std::string(1000, 'x'), .fragment = 8191, .id = 4, .has_header = false});
  inject({.data = eight, .fragment = kMore | 1, .id = 5, .has_header = false});
  for (int i = 0; i < 2; i++) inject({.data = eight, .length = 24, .checksum = false, .fragment = kMore, .id = 6});
  EXPECT_EQ(kNothing, take(server));
  // A flood of beginnings takes a bounded number of frames.
  for (uint16_t i = 0; i < 3000; i++) inject({.data = eight, .fragment = kMore, .id = static_cast<uint16_t>(1000 + i)});
  EXPECT_GT(pair_.server_wire().free_frames(), MemoryWire::kFrames - 400);
  inject({.data = "served"});
  EXPECT_EQ("served", take(server));
}

// They would end a chain beyond what its length says: the rest of it would be taken for another datagram.
TEST_F(UdpHostile, FragmentsOfNothing) {
  UdpEndpoint* server = bound(pair_.server, 53);
  inject({.data = "", .fragment = 1, .id = 1, .has_header = false});
  inject({.data = "", .checksum = false, .fragment = kMore, .id = 1});
  EXPECT_EQ(kNothing, take(server));
  inject({.data = "eightmor", .length = 16, .checksum = false, .fragment = kMore, .id = 2});
  inject({.data = "", .fragment = 2, .id = 2, .has_header = false});
  EXPECT_EQ(kNothing, take(server));
  inject({.data = "e", .fragment = 2, .id = 2, .has_header = false});
  EXPECT_EQ("eightmor", take(server)) << "as long as its header says";
  EXPECT_EQ(kNothing, take(server));
}

TEST_F(UdpHostile, AFragmentDoesNotAgeByTheTimeBefore) {
  UdpEndpoint* server = bound(pair_.server, 53);
  pair_.pass(60'000, 1000);
  inject({.data = "12345678", .length = 24, .checksum = false, .fragment = kMore});
  pair_.pass(3000, 500);
  inject({.data = "the rest", .fragment = 2, .has_header = false});
  EXPECT_EQ("12345678the rest", take(server));
}

// Whatever the time between two turns: what waits for its other half goes after its time, and asks for turns until then.
TEST_F(UdpHostile, AFragmentIsGivenUpHoweverSeldomTurnsAre) {
  const int free_before = pair_.server_wire().free_frames();
  for (const int step : {1000, 1900, 5800, 16'900, 60'000}) {
    inject({.data = "12345678", .length = 24, .checksum = false, .fragment = kMore});
    EXPECT_EQ(free_before - 1, pair_.server_wire().free_frames());
    for (int turns = 0; pair_.server->next_timer_ns() != UINT64_MAX && turns < 100; turns++) pair_.pass(step, step);
    EXPECT_EQ(UINT64_MAX, pair_.server->next_timer_ns());
    EXPECT_EQ(free_before, pair_.server_wire().free_frames()) << step;
  }
}

TEST_F(UdpHostile, ReportsThatAreNone) {
  UdpEndpoint* server = bound(pair_.server, 53);
  EXPECT_EQ(0, server->connect(address(kClientIp, 1000)));
  const std::string packet = sent_packet(53, 1000);
  for (size_t length = 0; length < 28; length++) inject_icmp(3, 3, packet.substr(0, length));
  inject_icmp(3, 16, packet);
  inject_icmp(5, 1, packet);
  inject_icmp(4, 0, packet);
  inject_icmp(3, 3, sent_packet(54, 1000));
  inject_icmp(3, 3, sent_packet(53, 1001));
  std::string other = packet;
  other[15] = 9;
  inject_icmp(3, 3, other);
  other = packet;
  other[0] = 0x4f;  // options beyond the end
  inject_icmp(3, 3, other);
  other[0] = 0x41;
  inject_icmp(3, 3, other);
  other = packet;
  other[7] = 1;  // a later fragment has no ports
  inject_icmp(3, 3, other);
  EXPECT_EQ(0, server->take_error());
  inject_icmp(3, 1, packet);
  EXPECT_EQ(0, server->take_error()) << "not final";
  inject_icmp(3, 3, packet);
  EXPECT_EQ(ECONNREFUSED, server->take_error());
  EXPECT_EQ(0, server->set_option(UdpOption::errors, 1));
  for (int i = 0; i < 100; i++) inject_icmp(11, 0, packet + "payload");
  UdpError about;
  char buffer[16];
  iovec part{buffer, sizeof buffer};
  int count = 0;
  for (; server->receive_error(&part, 1, &about) == 7; count++) EXPECT_EQ("payload", std::string(buffer, 7));
  EXPECT_EQ(16, count) << "the queue is bounded";
  EXPECT_EQ(static_cast<uint32_t>(EHOSTUNREACH), about.error);
  for (int i = 0; i < 20; i++) inject_icmp(3, 3, packet);  // left for release()
}

TEST_F(UdpHostile, AnythingGoesIn) {
  pair_ = Pair::get(Segments::unchecked);
  SetUp();
  UdpEndpoint* server = bound(pair_.server, 53);
  EXPECT_EQ(0, server->set_option(UdpOption::errors, 1));
  std::mt19937 random(3);
  for (int i = 0; i < 60'000; i++) {
    ForgedDatagram datagram;
    datagram.to = random() % 4 != 0 ? 53 : static_cast<uint16_t>(random());
    datagram.data.assign(random() % 64, static_cast<char>(random()));
    datagram.protocol = random() % 4 == 0 ? 1 : 17;
    if (random() % 3 == 0) datagram.fragment = static_cast<uint16_t>(random() % 8 | (random() % 2 == 0 ? kMore : 0));
    datagram.id = static_cast<uint16_t>(random() % 16);
    std::vector<uint8_t> frame = datagram.frame(pair_.client_wire(), pair_.server_wire());
    for (uint32_t n = random() % 4; n > 0; n--) frame[14 + random() % (frame.size() - 14)] = static_cast<uint8_t>(random());
    if (random() % 4 == 0) frame.resize(14 + random() % (frame.size() - 14) + 1);
    pair_.server_wire().deliver(frame.data(), static_cast<uint32_t>(frame.size()));
    if (i % 8 == 0) pair_.settle();
    if (i % 64 == 0) {
      UdpError unused;
      while (take(server) != kNothing) continue;
      while (server->receive_error(nullptr, 0, &unused) >= 0) continue;
    }
  }
  pair_.settle();
  while (take(server) != kNothing) continue;
  inject({.data = "served"});
  EXPECT_EQ("served", take(server));
}

// ---------------------------------------------------------------- a member dies

int in_child(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    base::forget_thread_id();
    work();
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  EXPECT_EQ(child, waitpid(child, &status, 0));
  return status;
}

int calls_left;
void die_soon(void*) {
  if (calls_left-- == 0) (void)kill(getpid(), SIGKILL);
}

struct Recorder final : netstack::Observer {
  void on_ready(netstack::Pollable&, uint32_t events) noexcept override { seen |= events; }
  uint32_t seen = 0;
};

TEST_F(UdpHostile, DeathInsideTheLock) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* connected = bound(pair_.server, 54);
  UdpEndpoint* client = bound(pair_.client, 1000);
  EXPECT_EQ(0, connected->connect(address(kClientIp, 1000)));
  EXPECT_EQ(0, server->set_option(UdpOption::receive_buffer, 5 * 832));
  for (int i = 0; i < 5; i++) send_to(client, address(kServerIp, 53), "queued");
  send_to(client, address(kServerIp, 54), "queued");
  pair_.settle();
  Recorder recorder;
  server->observers.push_back(&recorder);
  const int status = in_child([&] {
    (void)pair_.server->lock.lock();
    calls_left = 0;
    pair_.server_wire().hook = die_soon;  // in the middle of giving the first datagram's frame back
    (void)take(server);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  pair_.server_wire().hook = nullptr;
  {
    netstack::StackLock lock(*pair_.server);
    EXPECT_NE(0u, recorder.seen) << "whoever waits looks again";
    recorder.unlink();
    EXPECT_EQ(kNothing, take(server)) << "datagrams may be lost";
    EXPECT_EQ(address("0.0.0.0", 53), server->local());
    EXPECT_EQ(address(kClientIp, 1000), connected->peer());
    for (int i = 0; i < 6; i++) send_to(client, address(kServerIp, 53), "after");
    send_to(client, address(kServerIp, 54), "of the peer");
    pair_.settle();
    EXPECT_EQ("of the peer", take(connected));
    for (int i = 0; i < 5; i++) EXPECT_EQ("after", take(server));
    EXPECT_EQ(kNothing, take(server)) << "the bound is the same";
    EXPECT_EQ(-EADDRINUSE, open(pair_.server)->bind({address("0.0.0.0", 53)}));
    EXPECT_EQ(2, send_on(connected, "to"));
    pair_.settle();
    EXPECT_EQ("to", take(client));
  }
}

TEST_F(UdpHostile, DeathAtEachCallOfTheWire) {
  UdpEndpoint* server = bound(pair_.server, 53);
  UdpEndpoint* client = bound(pair_.client, 1000);
  int deaths = 0;
  for (int point = 0;; point++) {
    const int status = in_child([&] {
      netstack::StackLock lock(*pair_.server);
      calls_left = point;
      pair_.server_wire().hook = die_soon;
      (void)send_to(client, address(kServerIp, 53), std::string(3000, 'x'));
      pair_.settle();
      (void)take(server);
      (void)send_to(server, address(kClientIp, 1000), std::string(3000, 'y'));
      UdpEndpoint* more = pair_.server->make_endpoint();
      (void)more->bind({address("0.0.0.0", 0)});
      (void)more->connect(address(kClientIp, 1000));
      (void)send_on(more, "z");
      more->release();
      pair_.server_wire().hook = nullptr;
    });
    pair_.server_wire().hook = nullptr;
    if (WIFEXITED(status)) {
      EXPECT_EQ(0, WEXITSTATUS(status));
      break;
    }
    deaths++;
    netstack::StackLock lock(*pair_.server);
    pair_.settle();
    while (take(client) != kNothing) continue;
    while (take(server) != kNothing) continue;
    EXPECT_EQ(5, send_to(client, address(kServerIp, 53), "alive"));
    pair_.settle();
    EXPECT_EQ("alive", take(server)) << "after death at point " << point;
    pair_.server->forget_holders();
    EXPECT_TRUE(pair_.server->hold(server));
    EXPECT_FALSE(pair_.server->hold(server)) << "once";
    EXPECT_FALSE(pair_.server->hold(reinterpret_cast<UdpEndpoint*>(8)));
    pair_.server->recover();
    EXPECT_EQ(server_before_.endpoints + 1, pair_.server->levels().endpoints) << "what the dead one was making is freed";
  }
  EXPECT_GT(deaths, 5);
}

// ---------------------------------------------------------------- memory

TEST_F(UdpHostile, ManyThatDoNotReadLeaveRoomForOthers) {
  std::vector<UdpEndpoint*> sleepers;
  for (uint16_t i = 0; i < 200; i++) {
    sleepers.push_back(bound(pair_.server, static_cast<uint16_t>(3000 + i)));
    EXPECT_EQ(0, sleepers.back()->set_option(UdpOption::receive_buffer, INT32_MAX));
  }
  UdpEndpoint* client = open(pair_.client);
  int sent = 0, received = 0;
  for (int round = 0; round < 200; round++) {
    for (uint16_t i = 0; i < 200; i++)
      sent += send_to(client, address(kServerIp, static_cast<uint16_t>(3000 + i)), std::string(1400, 'x')) > 0;
    pair_.settle();
  }
  EXPECT_GT(pair_.server_wire().free_frames(), MemoryWire::kFrames / 5);
  UdpEndpoint* fresh = bound(pair_.server, 53);
  EXPECT_EQ(5, send_to(client, address(kServerIp, 53), "small"));
  pair_.settle();
  EXPECT_EQ("small", take(fresh));
  auto [near, far] = connected(80);
  EXPECT_EQ(1000, send_text(*near, std::string(1000, 't')));
  EXPECT_TRUE(pair_.until([&, s = far] { return s->readable_bytes() == 1000; }));
  near->release();
  far->release();
  for (UdpEndpoint* sleeper : sleepers) {
    while (take(sleeper) != kNothing) received++;
    EXPECT_EQ(0u, sleeper->figures().held);
  }
  EXPECT_EQ(received, sent);
  EXPECT_LT(sent, 200 * 200) << "and nobody is sent what there is no room for";
  EXPECT_GT(received, 1000);
}

}  // namespace
