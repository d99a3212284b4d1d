// The memif wire against a peer that says what it wants in the handshake: the connection is closed, nothing stays behind, and the next peer
// is served.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/eventfd.h>
#include <sys/un.h>

#include <algorithm>

#include "memif_peer_process.h"

namespace {

using namespace wires;

constexpr size_t kMessageBytes = 128;
constexpr uint16_t kAck = 1, kHello = 2, kInit = 3, kAddRegion = 4, kAddRing = 5, kConnect = 6, kConnected = 7, kDisconnect = 8;
constexpr uint16_t kToServer = 1, kVersion = 2 << 8;
constexpr uint32_t kCookie = 0x3e31f20, kRegionBytes = 64 << 10, kSecondRing = 4096;
constexpr uint8_t kLog2 = 4;
constexpr size_t kNameAt = 2, kMostRingsAt = 40, kInitNameAt = 33;  // the first two in HELLO

// A message of the protocol, packed by hand.
class Message {
 public:
  explicit Message(uint16_t type) { put(0, type); }
  template <class T>
  Message& put(size_t offset, T value) {
    memcpy(bytes + offset, &value, sizeof value);
    return *this;
  }
  // No zero byte where text is.
  Message& endless_text(size_t offset) {
    memset(bytes + offset, 'x', sizeof bytes - offset);
    return *this;
  }
  uint8_t bytes[kMessageBytes] = {};
};

Message hello() { return Message(kHello).put(34, kVersion).put(36, kVersion).put(38, uint16_t{255}).put(44, uint8_t{14}); }
Message init() { return Message(kInit).put(2, kVersion); }
Message add_region(uint16_t index, uint64_t bytes) { return Message(kAddRegion).put(2, index).put(4, bytes); }
Message add_ring(uint16_t flags, uint16_t region, uint32_t offset, uint8_t log2_slots, uint16_t index = 0) {
  return Message(kAddRing).put(2, flags).put(4, index).put(6, region).put(8, offset).put(12, log2_slots);
}

// Memory with both rings at its begin.
int make_region(size_t bytes, int seals = F_SEAL_SHRINK, uint32_t cookie = kCookie) {
  const int fd = memfd_create("hostile", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  EXPECT_EQ(ftruncate(fd, static_cast<off_t>(bytes)), 0);
  for (const uint32_t at : {0U, kSecondRing}) {
    EXPECT_EQ(pwrite(fd, &cookie, sizeof cookie, at), static_cast<ssize_t>(sizeof cookie));
  }
  EXPECT_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
  return fd;
}

// One end of a control channel.
class Channel {
 public:
  explicit Channel(int fd) : fd_(fd) {}
  explicit Channel(const std::string& path) : fd_(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    const sockaddr_un address = address_of(path);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Channel() { close(fd_); }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  static sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return address;
  }

  // Sends `bytes` of a message with `descriptors`, which are closed here. False if the other end is gone.
  bool send(const Message& message, std::vector<int> descriptors = {}, size_t bytes = kMessageBytes) const {
    iovec part{const_cast<uint8_t*>(message.bytes), bytes};
    alignas(cmsghdr) char room[CMSG_SPACE(16 * sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (!descriptors.empty()) {
      header.msg_control = room;
      header.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
      cmsghdr* rights = CMSG_FIRSTHDR(&header);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size() * sizeof(int));
    }
    const bool sent = sendmsg(fd_, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes);
    for (const int descriptor : descriptors) close(descriptor);
    return sent;
  }
  // The next message's type, running `wire` until it comes; 0 if the channel is closed instead.
  [[nodiscard]] uint16_t hear(Wire& wire, uint8_t* message = nullptr) const {
    uint8_t bytes[kMessageBytes];
    ssize_t length = -1;
    EXPECT_TRUE(until([&] {
      wire.run_control();
      length = recv(fd_, bytes, sizeof bytes, 0);
      return length >= 0 || errno != EAGAIN;
    }));
    uint16_t type = 0;
    if (length == kMessageBytes) memcpy(&type, bytes, sizeof type);
    if (message != nullptr) memcpy(message, bytes, sizeof bytes);
    return type;
  }
  [[nodiscard]] bool is_closed(Wire& wire) const {
    for (uint16_t type = kAck; type != 0; type = hear(wire)) {
      if (type == kConnected) return false;
    }
    return true;
  }

 private:
  int fd_;
};

int event() { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

class MemifHandshake : public MemifTest {
 protected:
  // Sends what a client sends up to and with its region.
  static void send_region(const Channel& channel, Wire& wire, int region = make_region(kRegionBytes), uint64_t told_bytes = kRegionBytes) {
    ASSERT_EQ(channel.hear(wire), kHello);
    ASSERT_TRUE(channel.send(init()));
    ASSERT_EQ(channel.hear(wire), kAck);
    ASSERT_TRUE(channel.send(add_region(0, told_bytes), {region}));
  }
  // All that a client says, with this name.
  static void introduce_as(const char* name, const Channel& channel, Wire& wire) {
    ASSERT_EQ(channel.hear(wire), kHello);
    Message message = init();
    memcpy(message.bytes + kInitNameAt, name, strlen(name));
    ASSERT_TRUE(channel.send(message));
    ASSERT_EQ(channel.hear(wire), kAck);
    ASSERT_TRUE(channel.send(add_region(0, kRegionBytes), {make_region(kRegionBytes)}));
    send_rings(channel, wire);
    ASSERT_TRUE(channel.send(Message(kConnect)));
    ASSERT_FALSE(channel.is_closed(wire));
  }
  static void send_rings(const Channel& channel, Wire& wire) {
    ASSERT_TRUE(channel.send(add_ring(kToServer, 0, 0, kLog2), {event()}));
    ASSERT_TRUE(channel.send(add_ring(0, 0, kSecondRing, kLog2), {event()}));
  }

  // Each says something wrong to a server; after all of them it serves one that does not.
  void all_are_refused(const std::vector<std::pair<std::string, std::function<void(const Channel&, Wire&)>>>& peers) {
    testing::internal::CaptureStderr();
    Wire* wire = open(",role=server");
    const auto descriptors = low_descriptors();
    const int free_frames = wire->free_frames();
    for (const auto& [what, speak] : peers) {
      SCOPED_TRACE(what);
      {
        const Channel channel(path());
        speak(channel, *wire);
        EXPECT_TRUE(channel.is_closed(*wire));
      }
      wire->run_control();
      EXPECT_EQ(wire->facts().peers, 0U);
    }
    EXPECT_EQ(low_descriptors(), descriptors);
    EXPECT_EQ(wire->free_frames(), free_frames);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_LE(std::count(said.begin(), said.end(), '\n'), 1) << said;
    if (HasFailure()) return;
    Process client(echoing(",role=client"));
    client.hear([&] { wire->run_control(); });
    EXPECT_TRUE(round_trip(*wire, 1));
    client.tell('x');
    EXPECT_EQ(client.wait_exit(), 0);
  }
};

// The messages of this test are those of the protocol.
TEST_F(MemifHandshake, ARightOneIsServed) {
  Wire* wire = open(",role=server");
  const Channel channel(path());
  ASSERT_NO_FATAL_FAILURE(send_region(channel, *wire));
  ASSERT_NO_FATAL_FAILURE(send_rings(channel, *wire));
  ASSERT_TRUE(channel.send(Message(kConnect).endless_text(2)));
  EXPECT_FALSE(channel.is_closed(*wire));
  EXPECT_EQ(wire->facts().peers, 1U);
}

// Who is no stack like this one may lead to one that verifies checksums. Nobody being there, whoever comes may be such.
TEST_F(MemifHandshake, ChecksumsAreForStrangers) {
  Wire* wire = open(",role=server");
  EXPECT_TRUE(wire->facts().link_needs_checksum);
  uint32_t peers = 0;
  const std::pair<const char*, bool> names[] = {{"DPDK 22.11.11", true},    {"zpstack takes 16320", false}, {"VPP 23.10", true},
                                                {"zpstack takes 0", false}, {"zpstack", true},              {"", true}};
  for (const auto& [name, needed] : names) {
    SCOPED_TRACE(name);
    {
      const Channel channel(path());
      ASSERT_NO_FATAL_FAILURE(introduce_as(name, channel, *wire));
      EXPECT_EQ(wire->facts().link_needs_checksum, needed);
      EXPECT_EQ(wire->facts().peers, ++peers);
    }
    ASSERT_TRUE(until([&] { return wire->run_control(), wire->facts().link_needs_checksum; }));
  }
}

// What waits without a checksum for one of ours is not for a stranger who comes in its place.
TEST_F(MemifHandshake, WhatHasNoChecksumIsNotForStrangers) {
  Wire* wire = open(",role=server");
  {
    const Channel ours(path());
    ASSERT_NO_FATAL_FAILURE(introduce_as("zpstack takes 16320", ours, *wire));
    for (int i = 0; i < 3 << kLog2; i++) {
      TxFrame out;
      ASSERT_TRUE(wire->allocate(&out));
      wire->send(out.handle, kFrameBytes);
    }
    wire->flush();
    EXPECT_GT(wire->backlog(), 0);
  }
  const Channel stranger(path());
  ASSERT_NO_FATAL_FAILURE(introduce_as("DPDK", stranger, *wire));
  EXPECT_EQ(wire->backlog(), 0);
}

TEST_F(MemifHandshake, ChecksumsAsTheDescriptionSays) {
  for (const auto& [word, needed] : {std::pair{"on", true}, {"off", false}}) {
    for (const char* name : {"DPDK", "zpstack takes 16320"}) {
      SCOPED_TRACE(std::string(word) + name);
      // Each in a process of its own: a wire is never closed.
      Process client([&, word = word, needed = needed](Process&) {
        Wire* wire = open(std::string(",role=server,checksum=") + word);
        const Channel channel(path());
        ASSERT_NO_FATAL_FAILURE(introduce_as(name, channel, *wire));
        EXPECT_EQ(wire->facts().link_needs_checksum, needed);
        EXPECT_TRUE(!needed || wire->facts().gso_max_size == 0);
      });
      EXPECT_EQ(client.wait_exit(), 0);
      unlink(path().c_str());
    }
  }
}

// One queue is offered, by the highest number of a ring each way; and who verifies whatever the peer is does not say who it is.
TEST_F(MemifHandshake, TheGreetingSaysWhatIsOffered) {
  uint8_t message[kMessageBytes];
  const uint8_t none[4] = {};
  for (const char* word : {"", ",checksum=on"}) {
    Process client([&](Process&) {
      Wire* wire = open(std::string(",role=server") + word);
      const Channel channel(path());
      ASSERT_EQ(channel.hear(*wire, message), kHello);
      EXPECT_EQ(memcmp(message + kMostRingsAt, none, sizeof none), 0);
      EXPECT_EQ(strcmp(reinterpret_cast<char*>(message) + kNameAt, "zpstack takes 16320") == 0, *word == '\0');
    });
    EXPECT_EQ(client.wait_exit(), 0);
    unlink(path().c_str());
  }
}

TEST_F(MemifHandshake, RegionsThatCannotBe) {
  const auto region = [](const std::function<int()>& make, uint64_t bytes) {
    return [make, bytes](const Channel& channel, Wire& wire) {
      send_region(channel, wire, make(), bytes);
      send_rings(channel, wire);
      (void)channel.send(Message(kConnect));
    };
  };
  const auto message = [](const Message& wrong, bool with_fd) {
    return [wrong, with_fd](const Channel& channel, Wire& wire) {
      ASSERT_EQ(channel.hear(wire), kHello);
      ASSERT_TRUE(channel.send(init()));
      (void)channel.send(wrong, with_fd ? std::vector<int>{make_region(kRegionBytes)} : std::vector<int>{});
    };
  };
  all_are_refused({
      {"shorter than told", region([] { return make_region(8192); }, kRegionBytes)},
      {"could become shorter", region([] { return make_region(kRegionBytes, 0); }, kRegionBytes)},
      {"nobody may write", region([] { return make_region(kRegionBytes, F_SEAL_SHRINK | F_SEAL_WRITE); }, kRegionBytes)},
      {"nobody may write any more", region([] { return make_region(kRegionBytes, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE); }, kRegionBytes)},
      {"too large", region([] { return make_region(65 << 20); }, 65 << 20)},
      {"told too large", region([] { return make_region(kRegionBytes); }, UINT64_MAX)},
      {"empty", region([] { return make_region(kRegionBytes); }, 0)},
      {"no memory at all", region([] { return event(); }, kRegionBytes)},
      {"no cookie", region([] { return make_region(kRegionBytes, F_SEAL_SHRINK, kCookie + 1); }, kRegionBytes)},
      {"no descriptor", message(add_region(0, kRegionBytes), false)},
      {"another index", message(add_region(1, kRegionBytes), true)},
      {"no index", message(add_region(UINT16_MAX, kRegionBytes), true)},
  });
}

TEST_F(MemifHandshake, RingsThatCannotBe) {
  const auto ring = [](const Message& wrong, bool with_fd = true) {
    return [wrong, with_fd](const Channel& channel, Wire& wire) {
      send_region(channel, wire);
      (void)channel.send(wrong, with_fd ? std::vector<int>{event()} : std::vector<int>{});
      (void)channel.send(add_ring(0, 0, kSecondRing, kLog2), {event()});
      (void)channel.send(Message(kConnect));
    };
  };
  // An event of which each is a signal to who writes it.
  const auto deaf_pipe = [](const Channel& channel, Wire& wire) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    send_region(channel, wire);
    (void)channel.send(add_ring(kToServer, 0, 0, kLog2), {ends[1]});
    (void)channel.send(add_ring(0, 0, kSecondRing, kLog2), {event()});
    (void)channel.send(Message(kConnect));
  };
  all_are_refused({
      {"whose event is a pipe that nobody reads", deaf_pipe},
      {"in a region that is not there", ring(add_ring(kToServer, 1, 0, kLog2))},
      {"in a region that cannot be there", ring(add_ring(kToServer, 0x7777, 0, kLog2))},
      {"behind the region", ring(add_ring(kToServer, 0, kRegionBytes, kLog2))},
      {"over its end", ring(add_ring(kToServer, 0, kRegionBytes - 64, kLog2))},
      {"far away", ring(add_ring(kToServer, 0, 0xffffffc0, kLog2))},
      {"not at a line", ring(add_ring(kToServer, 0, 4, kLog2))},
      {"more slots than the region", ring(add_ring(kToServer, 0, 0, 13))},
      {"more slots than there are positions", ring(add_ring(kToServer, 0, 0, 16))},
      {"slots beyond counting", ring(add_ring(kToServer, 0, 0, 255))},
      {"another index", ring(add_ring(kToServer, 0, 0, kLog2, 1))},
      {"no descriptor", ring(add_ring(kToServer, 0, 0, kLog2), false)},
      {"twice the same", ring(add_ring(0, 0, 0, kLog2))},
      {"only one", ring(Message(kAck))},
  });
}

TEST_F(MemifHandshake, MessagesThatDoNotBelongThere) {
  using Speak = std::function<void(const Channel&, Wire&)>;
  std::vector<std::pair<std::string, Speak>> peers;
  for (const uint16_t type : {kHello, kConnect, kConnected, kDisconnect, uint16_t{0}, uint16_t{9}, uint16_t{UINT16_MAX}}) {
    peers.emplace_back("first " + std::to_string(type),
                       [type](const Channel& channel, Wire&) { (void)channel.send(Message(type).endless_text(2)); });
    peers.emplace_back("after INIT " + std::to_string(type), [type](const Channel& channel, Wire& wire) {
      ASSERT_EQ(channel.hear(wire), kHello);
      ASSERT_TRUE(channel.send(init().endless_text(33)));
      (void)channel.send(Message(type).endless_text(2));
    });
  }
  peers.emplace_back("short", [](const Channel& channel, Wire&) { (void)channel.send(init(), {}, 20); });
  peers.emplace_back("another version", [](const Channel& channel, Wire&) { (void)channel.send(init().put(2, uint16_t{1})); });
  peers.emplace_back("another interface", [](const Channel& channel, Wire&) { (void)channel.send(init().put(4, 7U)); });
  peers.emplace_back("INIT twice", [](const Channel& channel, Wire&) { (void)channel.send(init()), (void)channel.send(init()); });
  for (const uint16_t type : {kAck, kInit, kAddRegion, kAddRing, kConnect, kDisconnect}) {
    peers.emplace_back("descriptors with " + std::to_string(type), [type](const Channel& channel, Wire& wire) {
      ASSERT_EQ(channel.hear(wire), kHello);
      for (int i = 0; i < 3; i++) {
        std::vector<int> many(16);
        for (int& fd : many) fd = event();
        (void)channel.send(type == kInit ? init() : Message(type), many);
      }
      (void)channel.send(Message(kHello));
    });
  }
  all_are_refused(peers);
}

// Somebody else who may open the socket does not disturb the connection that is there.
TEST_F(MemifHandshake, ASecondChannelChangesNothing) {
  Wire* wire = open(",role=server");
  Process client(echoing(",role=client"));
  client.hear([&] { wire->run_control(); });
  ASSERT_TRUE(round_trip(*wire, 1));
  for (int i = 0; i < 20; i++) {
    const Channel channel(path());
    ASSERT_EQ(channel.hear(*wire), kHello);
    if (i % 2 == 0) (void)channel.send(init());
    (void)channel.send(add_region(0, kRegionBytes), {make_region(kRegionBytes)});
    (void)channel.send(add_ring(kToServer, 0, 0, kLog2), {event()});
    EXPECT_TRUE(channel.is_closed(*wire));
    ASSERT_TRUE(round_trip(*wire, static_cast<uint32_t>(2 + i)));
  }
  EXPECT_EQ(wire->facts().peers, 1U);
  client.tell('x');
  EXPECT_EQ(client.wait_exit(), 0);
}

// A client tries again after each, and finds a server at last.
TEST_F(MemifHandshake, ServersThatMakeNoSense) {
  const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un address = Channel::address_of(path());
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener, 4), 0);
  testing::internal::CaptureStderr();
  Wire* wire = open(",role=client");
  const auto descriptors = low_descriptors();
  const std::vector<std::vector<Message>> servers = {
      {Message(kConnected)},
      {hello().endless_text(45), Message(kConnected).endless_text(2)},
      {hello(), hello()},
      {hello().put(34, uint16_t{1}).put(36, uint16_t{1})},
      {init()},
      {hello(), add_region(0, kRegionBytes)},
      {hello(), add_ring(0, 0, 0, kLog2)},
      {hello(), Message(kConnect)},
      {hello(), Message(kDisconnect).endless_text(6)},
      {Message(0)},
      {Message(UINT16_MAX)},
  };
  for (size_t i = 0; i < servers.size(); i++) {
    SCOPED_TRACE(i);
    int fd = -1;
    ASSERT_TRUE(until([&] {
      wire->run_control();
      return (fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;
    }));
    const Channel channel(fd);
    for (const Message& message : servers[i]) (void)channel.send(message, {event()});
    EXPECT_TRUE(channel.is_closed(*wire));
  }
  EXPECT_EQ(low_descriptors(), descriptors);
  EXPECT_EQ(wire->facts().peers, 0U);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  close(listener);
  ASSERT_EQ(unlink(path().c_str()), 0);
  Process server(echoing(",role=server"));
  server.hear([&] { wire->run_control(); });
  EXPECT_TRUE(round_trip(*wire, 1));
  server.tell('x');
  EXPECT_EQ(server.wait_exit(), 0);
}

}  // namespace
