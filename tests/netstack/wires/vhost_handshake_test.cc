// The vhost-user wires against a peer that says what it wants: the connection is closed, nothing stays behind, and the next peer is served.
// SPDX-License-Identifier: BSD-3-Clause
#include <sys/eventfd.h>
#include <sys/un.h>

#include <algorithm>
#include <random>

#include "memif_peer_process.h"

namespace {

using namespace wires;

constexpr uint32_t kGetFeatures = 1, kSetFeatures = 2, kSetMemTable = 5, kSetVringNum = 8, kSetVringAddr = 9, kGetVringBase = 11,
                   kSetVringKick = 12, kSetVringCall = 13, kSetVringEnable = 18;
constexpr uint64_t kMemoryBytes = 1 << 20, kOwn = 0x7000000000, kVersion1 = 1ULL << 32;

struct Message {
  explicit Message(uint32_t what) : request(what) {}
  template <class T>
  Message& put(T value) {
    memcpy(payload + size, &value, sizeof value);
    size += static_cast<uint32_t>(sizeof value);
    return *this;
  }
  uint32_t request, flags = 1, size = 0;
  uint8_t payload[256] = {};
};

int event() { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

int make_memory(int seals = F_SEAL_SHRINK, off_t bytes = kMemoryBytes) {
  const int fd = memfd_create("hostile", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  EXPECT_EQ(ftruncate(fd, bytes), 0);
  EXPECT_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
  return fd;
}

// A connection to a wire that serves.
class Channel {
 public:
  explicit Channel(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.c_str(), path.size() + 1);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Channel() { close(fd_); }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Sends `bytes` of a message with `descriptors`, which are closed here.
  void send(const Message& message, const std::vector<int>& descriptors = {}, size_t bytes = 0) const {
    iovec part{const_cast<Message*>(&message), bytes != 0 ? bytes : 12 + message.size};
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
    (void)sendmsg(fd_, &header, MSG_NOSIGNAL);
    for (const int descriptor : descriptors) close(descriptor);
  }
  // Whether the wire closes the channel, and not because of an answer.
  [[nodiscard]] bool is_closed(Wire& wire) const {
    ssize_t length = 1;
    EXPECT_TRUE(until([&] {
      wire.run_control();
      char bytes[300];
      while ((length = recv(fd_, bytes, sizeof bytes, 0)) > 0) {
      }
      return length == 0 || errno != EAGAIN;
    }));
    return true;
  }

 private:
  int fd_;
};

void send_memory(const Channel& channel, const std::vector<int>& files = {make_memory()}, uint64_t bytes = kMemoryBytes,
                 uint32_t regions = 1, uint64_t offset = 0) {
  Message table(kSetMemTable);
  table.put(regions).put(uint32_t{0});
  for (uint32_t i = 0; i < std::min<uint32_t>(regions, 7); i++) table.put(uint64_t{0}).put(bytes).put(kOwn + i * kMemoryBytes).put(offset);
  channel.send(table, files);
}
void send_ring(const Channel& channel, uint32_t index, uint64_t at, uint32_t entries = 256) {
  channel.send(Message(kSetVringNum).put(index).put(entries));
  channel.send(Message(kSetVringAddr).put(index).put(uint32_t{0}).put(at).put(at + 8192).put(at + 4096).put(uint64_t{0}));
  channel.send(Message(kSetVringCall).put(uint64_t{index}), {event()});
  channel.send(Message(kSetVringKick).put(uint64_t{index}), {event()});
}

class VhostHandshake : public MemifTest {
 protected:
  void SetUp() override {
    MemifTest::SetUp();
    server_kind_ = "vhost";
    client_kind_ = "virtio-user";
  }
  // Each says something wrong; after all of them the wire serves one that does not.
  void all_are_refused(const std::vector<std::pair<std::string, std::function<void(const Channel&)>>>& peers, long complaints) {
    testing::internal::CaptureStderr();
    Wire* wire = open(",role=server");
    const auto descriptors = low_descriptors();
    for (const auto& [what, speak] : peers) {
      SCOPED_TRACE(what);
      {
        const Channel channel(path());
        speak(channel);
        EXPECT_TRUE(channel.is_closed(*wire));
      }
      EXPECT_EQ(wire->facts().peers, 0U);
    }
    EXPECT_EQ(low_descriptors(), descriptors);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), complaints) << said;
    serves_another(*wire);
  }
  void serves_another(Wire& wire) {
    Process client(echoing(",role=client"));
    client.hear([&] { wire.run_control(); });
    EXPECT_TRUE(round_trip(wire, 1));
    client.tell('x');
    EXPECT_EQ(client.wait_exit(), 0);
  }
};

// The messages of this test are those of the protocol.
TEST_F(VhostHandshake, ARightOneIsServed) {
  Wire* wire = open(",role=server");
  const Channel channel(path());
  channel.send(Message(kSetFeatures).put(kVersion1));
  send_memory(channel);
  send_ring(channel, 0, kOwn);
  send_ring(channel, 1, kOwn + 65536);
  ASSERT_TRUE(until([&] { return wire->run_control(), wire->facts().peers == 1; }));
  channel.send(Message(kGetVringBase).put(uint32_t{0}).put(uint32_t{0}));
  ASSERT_TRUE(until([&] { return wire->run_control(), wire->sleep_fd() == wire->control_fd(); })) << "no frames flow";
  send_ring(channel, 0, kOwn);
  ASSERT_TRUE(until([&] { return wire->run_control(), wire->facts().peers == 2; }));
}

// Rings that a driver enables for itself stand still until then.
TEST_F(VhostHandshake, RingsAreEnabled) {
  Wire* wire = open(",role=server");
  const Channel channel(path());
  channel.send(Message(kSetFeatures).put(kVersion1 | 1ULL << 30));
  send_memory(channel);
  send_ring(channel, 0, kOwn);
  send_ring(channel, 1, kOwn + 65536);
  channel.send(Message(kSetVringEnable).put(uint32_t{0}).put(uint32_t{1}));
  wire->run_control();
  EXPECT_EQ(wire->facts().peers, 0U);
  channel.send(Message(kSetVringEnable).put(uint32_t{1}).put(uint32_t{1}));
  ASSERT_TRUE(until([&] { return wire->run_control(), wire->facts().peers == 1; }));
}

TEST_F(VhostHandshake, DriversThatMakeNoSense) {
  const auto memory = [](std::vector<int> (*files)(), uint64_t bytes, uint32_t regions, uint64_t offset = 0) {
    return [=](const Channel& channel) { send_memory(channel, files(), bytes, regions, offset); };
  };
  const auto one = [] { return std::vector<int>{make_memory()}; };
  const auto ring = [](uint64_t at, uint32_t entries) {
    return [=](const Channel& channel) {
      channel.send(Message(kSetFeatures).put(kVersion1));
      send_memory(channel);
      send_ring(channel, 0, kOwn);
      send_ring(channel, 1, at, entries);
    };
  };
  all_are_refused(
      {{"a file that could become shorter", memory([] { return std::vector<int>{make_memory(F_SEAL_GROW)}; }, kMemoryBytes, 1)},
       {"a file that is shorter", memory(one, 2 * kMemoryBytes, 1)},
       {"a file that is shorter from there on", memory(one, kMemoryBytes, 1, 4096)},
       {"an offset that wraps", memory(one, kMemoryBytes, 1, UINT64_MAX - 10)},
       {"nothing", memory(one, 0, 1)},
       {"no file", memory([] { return std::vector<int>(); }, kMemoryBytes, 1)},
       {"too few files", memory(one, kMemoryBytes, 2)},
       {"too many files", memory(
                              [] {
                                return std::vector<int>{make_memory(), make_memory()};
                              },
                              kMemoryBytes, 1)},
       {"more than a message has", memory(one, kMemoryBytes, UINT32_MAX)},
       {"a file that is none", memory([] { return std::vector<int>{event()}; }, kMemoryBytes, 1)},
       {"a ring outside", ring(8, 256)},
       {"a ring over the end", ring(kOwn + kMemoryBytes - 8192, 256)},
       {"a ring that is not aligned", ring(kOwn + 65537, 256)},
       {"a ring that is not aligned in its file",
        [](const Channel& channel) {
          channel.send(Message(kSetFeatures).put(kVersion1));
          send_memory(channel, {make_memory()}, kMemoryBytes - 4096, 1, 1);
          send_ring(channel, 0, kOwn);
          send_ring(channel, 1, kOwn + 65536);
        }},
       {"a ring of any size", ring(kOwn + 65536, 300)},
       {"a ring of no size", ring(kOwn + 65536, 0)},
       {"a ring of too many", ring(kOwn + 65536, 1 << 20)},
       {"features that were not offered", [](const Channel& channel) { channel.send(Message(kSetFeatures).put(UINT64_MAX)); }},
       {"a ring that is not there", [](const Channel& channel) { channel.send(Message(kGetVringBase).put(uint32_t{7}).put(uint32_t{0})); }},
       {"an event that is a pipe",
        [](const Channel& channel) {
          int ends[2];
          ASSERT_EQ(pipe(ends), 0);
          close(ends[0]);
          channel.send(Message(kSetVringCall).put(uint64_t{0}), {ends[1]});
        }},
       {"an event that is missing", [](const Channel& channel) { channel.send(Message(kSetVringKick).put(uint64_t{0})); }},
       {"half a message", [](const Channel& channel) { channel.send(Message(kSetFeatures).put(kVersion1), {}, 15); }},
       {"half a header", [](const Channel& channel) { channel.send(Message(kSetFeatures).put(kVersion1), {}, 7); }},
       {"a message without end",
        [](const Channel& channel) {
          Message message(kSetFeatures);
          message.size = UINT32_MAX;
          channel.send(message, {}, 100);
        }}},
      1);
}

// Whatever comes in whatever order, with descriptors or without.
TEST_F(VhostHandshake, MessagesAtRandom) {
  testing::internal::CaptureStderr();
  Wire* wire = open(",role=server");
  std::minstd_rand random(5);
  const auto descriptors = low_descriptors();
  for (int peer = 0; peer < 200; peer++) {
    const Channel channel(path());
    for (unsigned left = random() % 40; left > 0; left--) {
      if (random() % 4 == 0) {
        send_memory(channel);
        send_ring(channel, random() % 3, kOwn + random() % 4 * 65536);
        continue;
      }
      Message message(random() % 24);
      while (random() % 4 != 0 && message.size < 64)
        message.put(random() % 3 == 0 ? static_cast<uint32_t>(random() % 3) : static_cast<uint32_t>(random()));
      std::vector<int> files;
      while (random() % 3 == 0 && files.size() < 10) files.push_back(random() % 2 == 0 ? event() : make_memory());
      channel.send(message, files);
      RxFrame frame;
      if (wire->receive(&frame, 1) == 1) wire->release(frame.handle);
    }
    wire->run_control();
  }
  EXPECT_EQ(low_descriptors(), descriptors);
  EXPECT_FALSE(testing::internal::GetCapturedStderr().empty());
  serves_another(*wire);
}

// Who comes and goes at once, and who comes while somebody else is served.
TEST_F(VhostHandshake, ASecondChannelChangesNothing) {
  for (const auto& [server, client] : {std::pair{"vhost", "virtio-user"}, {"virtio-user", "vhost"}}) {
    server_kind_ = server;
    client_kind_ = client;
    Process wire_of_its_own([&](Process&) {
      Wire* wire = open(",role=server");
      for (int i = 0; i < 20; i++) {
        { const Channel gone(path()); }
        if (i % 2 == 0) wire->run_control();
      }
      Process peer(echoing(",role=client"));
      peer.hear([&] { wire->run_control(); });
      ASSERT_TRUE(round_trip(*wire, 1));
      for (uint32_t i = 0; i < 20; i++) {
        const Channel second(path());
        second.send(Message(kSetFeatures).put(kVersion1));
        EXPECT_TRUE(second.is_closed(*wire));
        ASSERT_TRUE(round_trip(*wire, 2 + i));
      }
      EXPECT_EQ(wire->facts().peers, 1U);
      peer.tell('x');
      EXPECT_EQ(peer.wait_exit(), 0);
    });
    EXPECT_EQ(wire_of_its_own.wait_exit(), 0);
    unlink(path().c_str());
  }
}

// A driver takes one answer, to its one question.
TEST_F(VhostHandshake, DevicesThatMakeNoSense) {
  server_kind_ = "virtio-user";
  client_kind_ = "vhost";
  const auto features = [](uint64_t value) { return Message(kGetFeatures).put(value); };
  all_are_refused({{"no number", [](const Channel& channel) { channel.send(Message(kGetFeatures)); }},
                   {"something else", [](const Channel& channel) { channel.send(Message(kGetVringBase).put(uint64_t{0})); }},
                   {"with a file", [&](const Channel& channel) { channel.send(features(kVersion1), {event()}); }},
                   {"half of it", [&](const Channel& channel) { channel.send(features(kVersion1), {}, 15); }}},
                  1);
}

TEST_F(VhostHandshake, RefusesWhatItCannotServe) {
  for (const std::string kind : {"vhost", "virtio-user"}) {
    expect_refused(kind.c_str(), "absolute path");
    expect_refused((kind + ":/tmp/x.sock,role=boss").c_str(), "role=boss");
    expect_refused((kind + ":/no/such/folder/x.sock").c_str(), "does not exist");
    expect_refused((kind + ":/etc/passwd").c_str(), "something else than");
  }
  expect_refused("virtio-user:/tmp/x.sock,memory=any", "memory=any");
}

// A file that lacks the seal is taken where the description says so.
TEST_F(VhostHandshake, MemoryOfAnyKind) {
  Wire* wire = open(",role=server,memory=any");
  const Channel channel(path());
  channel.send(Message(kSetFeatures).put(kVersion1));
  send_memory(channel, {make_memory(F_SEAL_SEAL)});
  send_ring(channel, 0, kOwn);
  send_ring(channel, 1, kOwn + 65536);
  ASSERT_TRUE(until([&] { return wire->run_control(), wire->facts().peers == 1; }));
}

}  // namespace
