// The rings of a vhost-user wire: whole frames of any length both ways, peers that write what they want, members that die.
// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "vhost_bed.h"

namespace {

using namespace vhost_bed;
using virtio::Descriptor;

std::string pattern(size_t bytes, unsigned seed) {
  std::string made(bytes, '\0');
  std::minstd_rand random(seed);
  for (char& byte : made) byte = static_cast<char>(random());
  return made;
}

class VhostQueues : public testing::Test {
 protected:
  void SetUp() override {
    free_before_ = pool().free_count();
    testing::internal::CaptureStderr();
  }
  void TearDown() override {
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_EQ(pool().free_count(), free_before_);
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), complaints_) << said;
  }
  void passes(netstack::FrameQueues& from, netstack::FrameQueues& to, size_t bytes, int pieces) {
    const std::string frame = pattern(bytes, static_cast<unsigned>(bytes));
    ASSERT_TRUE(Bed::send(from, frame, pieces));
    EXPECT_EQ(bed_.receive(to), frame);
    EXPECT_EQ(bed_.received, 1);
  }

  Bed bed_;
  uint32_t free_before_ = 0;
  int complaints_ = 0;
};

TEST_F(VhostQueues, FramesOfAnyLengthPassBothWays) {
  for (const uint64_t features : {kAll, virtio::kVersion1, virtio::kMergeableBuffers, uint64_t{0}}) {
    SCOPED_TRACE(features);
    bed_.features = features;
    bed_.start();
    const bool is_long = (features & virtio::kMergeableBuffers) != 0;
    for (const size_t bytes : {size_t{1}, size_t{60}, size_t{1514}, size_t{2048}, size_t{2049}, size_t{16334}, size_t{65549}}) {
      const int pieces = bytes > 60 ? 3 : 1;
      passes(*bed_.driver, *bed_.device, bytes, pieces);
      if (bytes <= kFrameBytes || is_long) passes(*bed_.device, *bed_.driver, bytes, pieces);
    }
  }
}

// Far more than the rings hold, with as much on its way as there is room for; in order and whole.
TEST_F(VhostQueues, AStreamOfThem) {
  std::minstd_rand random(1);
  for (netstack::FrameQueues* from : {static_cast<netstack::FrameQueues*>(bed_.driver), static_cast<netstack::FrameQueues*>(bed_.device)}) {
    netstack::FrameQueues& to = from == bed_.driver ? static_cast<netstack::FrameQueues&>(*bed_.device) : *bed_.driver;
    std::vector<std::string> expected;
    size_t next = 0;
    int refused = 0;
    while (next < 20'000) {
      for (unsigned burst = random() % 300; burst > 0; burst--) {
        const std::string frame = pattern(14 + random() % (random() % 8 == 0 ? 16'000 : 1500), static_cast<unsigned>(expected.size()));
        if (!Bed::send(*from, frame, 2)) {
          refused++;
          break;
        }
        expected.push_back(frame);
      }
      for (unsigned taken = random() % 10; taken > 0; taken--) {
        RxFrame frames[16];
        const int count = to.receive(frames, 16, pool());
        std::string got;
        for (int i = 0; i < count; i++) {
          if (!frames[i].continues && i > 0) {
            ASSERT_EQ(got, expected[next++]);
            got.clear();
          }
          got.append(reinterpret_cast<char*>(frames[i].data), frames[i].length);
          pool().give(&frames[i].handle, 1);
        }
        if (count == 0) break;
        ASSERT_EQ(got, expected[next++]);
      }
    }
    EXPECT_GT(refused, 0);
    while (!bed_.receive(to).empty()) {
    }
    EXPECT_TRUE(from->taken());
    bed_.start();
  }
}

TEST_F(VhostQueues, WhatTheHeaderSaysOfTheChecksum) {
  for (const uint8_t flags : {uint8_t{0}, netstack::VnetHeader::kNeedsChecksum, virtio::Header::kDataValid}) {
    ASSERT_TRUE(Bed::send(*bed_.driver, "a frame", 1, flags));
    EXPECT_EQ(bed_.receive(*bed_.device), "a frame");
    EXPECT_EQ(bed_.verified, flags != 0);
  }
}

// Each end is woken only where it asked for it.
TEST_F(VhostQueues, WhoSleepsIsWoken) {
  for (const bool asleep : {false, true, false}) {
    bed_.device->want_event(asleep);
    bed_.driver->want_event(asleep);
    ASSERT_TRUE(Bed::send(*bed_.driver, "to the device"));
    ASSERT_TRUE(Bed::send(*bed_.device, "to the driver"));
    EXPECT_EQ(Bed::rang(bed_.events[1].kick), asleep);
    EXPECT_EQ(Bed::rang(bed_.events[0].call), asleep);
    EXPECT_EQ(bed_.receive(*bed_.device), "to the device");
    EXPECT_EQ(bed_.receive(*bed_.driver), "to the driver");
    EXPECT_FALSE(Bed::rang(bed_.events[0].kick));
    EXPECT_FALSE(Bed::rang(bed_.events[1].call));
  }
}

TEST_F(VhostQueues, TakenSaysWhenAllHasBeenRead) {
  passes(*bed_.device, *bed_.driver, 100, 1);
  ASSERT_TRUE(Bed::send(*bed_.driver, "x"));
  ASSERT_TRUE(Bed::send(*bed_.device, "x"));
  EXPECT_FALSE(bed_.driver->taken());
  EXPECT_FALSE(bed_.device->taken());
  (void)bed_.receive(*bed_.device);
  (void)bed_.receive(*bed_.driver);
  EXPECT_TRUE(bed_.driver->taken());
  EXPECT_TRUE(bed_.device->taken());
}

// What no room is for waits: in the ring as long as the pool is empty, and for the next call if it has more pieces than places are left.
TEST_F(VhostQueues, WhatHasNoPlaceWaits) {
  std::vector<void*> all(pool().free_count());
  ASSERT_TRUE(pool().take(all.data(), static_cast<unsigned>(all.size())));
  for (netstack::FrameQueues* from : {static_cast<netstack::FrameQueues*>(bed_.driver), static_cast<netstack::FrameQueues*>(bed_.device)}) {
    netstack::FrameQueues& to = from == bed_.driver ? static_cast<netstack::FrameQueues&>(*bed_.device) : *bed_.driver;
    const std::string frame = pattern(5000, 1);
    ASSERT_TRUE(Bed::send(*from, "first"));
    ASSERT_TRUE(Bed::send(*from, frame));
    EXPECT_EQ(bed_.receive(to), "");
    EXPECT_TRUE(to.waits());
    pool().give(all.data(), 3);
    RxFrame out[4];
    ASSERT_EQ(to.receive(out, 3, pool()), 1) << "three pieces have no place behind one";
    pool().give(&out[0].handle, 1);
    EXPECT_EQ(bed_.receive(to), frame);
    EXPECT_FALSE(to.waits());
    ASSERT_TRUE(pool().take(all.data(), 3));
  }
  pool().give(all.data(), static_cast<unsigned>(all.size()));
}

// ---------------------------------------------------------------- a driver that writes what it wants

// Sends a sound frame, spoils its descriptors before the device looks, and then another one.
class HostileDriver : public VhostQueues {
 protected:
  template <class Spoil>
  void spoiled(const char* what, Spoil spoil, size_t bytes = 100) {
    SCOPED_TRACE(what);
    bed_.start();
    ASSERT_TRUE(Bed::send(*bed_.driver, pattern(bytes, 7), 2));
    spoil(bed_.driver->to_device());
    EXPECT_EQ(bed_.receive(*bed_.device), "");
    complaints_++;
    bed_.driver->to_device().descriptors[0].flags = 0;
    ASSERT_TRUE(Bed::send(*bed_.driver, "sound"));
    EXPECT_EQ(bed_.receive(*bed_.device), "sound");
  }
};

TEST_F(HostileDriver, BuffersThatCannotBe) {
  const size_t end = DriverQueues::memory_bytes(kBufferBytes);
  spoiled("outside", [](const virtio::Ring& ring) { ring.descriptors[0].address = 8; });
  spoiled("over the end", [&](const virtio::Ring& ring) { ring.descriptors[0].address = Bed::address(bed_.memory) + end - 10; });
  spoiled("wraps", [](const virtio::Ring& ring) { ring.descriptors[0] = {UINT64_MAX - 5, 100, 0, 0}; });
  spoiled("too long", [&](const virtio::Ring& ring) {
    ring.descriptors[0] = {Bed::address(bed_.memory), static_cast<uint32_t>(end), 0, 0};
  });
  spoiled("endless length", [](const virtio::Ring& ring) { ring.descriptors[0].length = UINT32_MAX; });
  spoiled("empty", [](const virtio::Ring& ring) { ring.descriptors[0].length = 0; });
  spoiled("header only", [](const virtio::Ring& ring) { ring.descriptors[0].length = sizeof(virtio::Header); });
  spoiled("half a header", [](const virtio::Ring& ring) { ring.descriptors[0].length = 5; });
  spoiled("to be written", [](const virtio::Ring& ring) { ring.descriptors[0].flags = Descriptor::kWrite; });
  spoiled("indirect", [](const virtio::Ring& ring) { ring.descriptors[0].flags = Descriptor::kIndirect; });
  spoiled("a circle", [](const virtio::Ring& ring) { ring.descriptors[0].flags = Descriptor::kNext, ring.descriptors[0].next = 0; });
  spoiled("a circle of nothing", [](const virtio::Ring& ring) {
    ring.descriptors[0] = {ring.descriptors[0].address, 0, Descriptor::kNext, 0};
  });
  spoiled("goes on outside",
          [](const virtio::Ring& ring) { ring.descriptors[0].flags = Descriptor::kNext, ring.descriptors[0].next = 5000; });
  spoiled("a head outside", [](const virtio::Ring& ring) { ring.available->ring[0] = UINT16_MAX; });
}

// As many chains are looked at as there is room for frames, whatever they are: who holds the stack's lock comes to an end. The rest is not
// forgotten by who sleeps.
TEST_F(HostileDriver, ARingFullOfCircles) {
  const virtio::Ring& ring = bed_.driver->to_device();
  for (uint32_t i = 0; i < ring.entries(); i++) {
    ring.descriptors[i] = {Bed::address(bed_.memory), 0, Descriptor::kNext, static_cast<uint16_t>(i)};
    ring.available->ring[i] = static_cast<uint16_t>(i);
  }
  ring.available->index.store(static_cast<uint16_t>(ring.entries()));
  EXPECT_EQ(bed_.receive(*bed_.device), "");
  complaints_++;
  EXPECT_EQ(ring.used->index.load(), netstack::kBurst);
  EXPECT_TRUE(Bed::rang(bed_.events[1].kick));
  while (bed_.device->waits()) EXPECT_EQ(bed_.receive(*bed_.device), "");
  EXPECT_EQ(ring.used->index.load(), ring.entries());
}

TEST_F(HostileDriver, IndicesThatJump) {
  ASSERT_TRUE(Bed::send(*bed_.driver, "x"));
  for (const uint16_t index : {uint16_t{1025}, uint16_t{30'000}, uint16_t{65'535}}) {
    bed_.driver->to_device().available->index.store(index);
    EXPECT_EQ(bed_.receive(*bed_.device), "");
    bed_.driver->from_device().available->index.store(index);
    EXPECT_FALSE(Bed::send(*bed_.device, "x"));
  }
  complaints_++;
  bed_.driver->to_device().available->index.store(1);
  EXPECT_EQ(bed_.receive(*bed_.device), "x");
}

TEST_F(HostileDriver, EmptyBuffersThatCannotBe) {
  const std::function<void(Descriptor&)> spoils[] = {
      [](Descriptor& descriptor) { descriptor.address = 8; },
      [](Descriptor& descriptor) { descriptor.length = UINT32_MAX; },
      [](Descriptor& descriptor) { descriptor.length = 3; },
      [](Descriptor& descriptor) { descriptor.length = 0; },
      [](Descriptor& descriptor) { descriptor.flags = 0; },
      [](Descriptor& descriptor) { descriptor.flags = Descriptor::kWrite | Descriptor::kIndirect; },
      [](Descriptor& descriptor) {
        descriptor = {descriptor.address, 12, Descriptor::kWrite | Descriptor::kNext, 60'000};
      },
      [](Descriptor& descriptor) {
        descriptor = {descriptor.address, 12, Descriptor::kWrite | Descriptor::kNext, 1};
      },
  };
  for (const auto& spoil : spoils) {
    SCOPED_TRACE(&spoil - spoils);
    bed_.start();
    Descriptor& first = bed_.driver->from_device().descriptors[0];
    const Descriptor sound = first;
    spoil(first);
    bed_.driver->from_device().descriptors[1].address = 8;
    EXPECT_FALSE(Bed::send(*bed_.device, pattern(100, 1)));
    complaints_++;
    first = sound;
    EXPECT_TRUE(Bed::send(*bed_.device, "sound"));
    EXPECT_EQ(bed_.receive(*bed_.driver), "sound");
  }
}

// Who has to find room in them looks at each of them once, not at all of them for each.
TEST_F(HostileDriver, EmptyBuffersOfNothing) {
  const virtio::Ring& ring = bed_.driver->from_device();
  ring.descriptors[0].length = sizeof(virtio::Header);
  for (uint32_t i = 1; i < ring.entries(); i++) {
    ring.descriptors[i] = {ring.descriptors[i].address, 0, Descriptor::kWrite | Descriptor::kNext, static_cast<uint16_t>(i - 1)};
  }
  ring.descriptors[1].flags = Descriptor::kWrite;
  EXPECT_FALSE(Bed::send(*bed_.device, pattern(100, 1)));
  complaints_++;
}

// ---------------------------------------------------------------- a device that writes what it wants

class HostileDevice : public VhostQueues {};

TEST_F(HostileDevice, BuffersThatCannotBe) {
  struct Said {
    uint32_t id, length;
    uint16_t buffers;
  };
  for (const Said& said : {Said{kBufferBytes, 100, 1},
                           {UINT32_MAX, 100, 1},
                           {0, kBufferBytes + 1, 1},
                           {0, UINT32_MAX, 1},
                           {0, 0, 1},
                           {0, 12, 1},
                           {0, 5, 1},
                           {0, 100, 0},
                           {0, 100, 2},
                           {0, 100, UINT16_MAX}}) {
    SCOPED_TRACE(testing::Message() << said.id << ' ' << said.length << ' ' << said.buffers);
    bed_.start();
    ASSERT_TRUE(Bed::send(*bed_.device, pattern(88, 1)));
    const virtio::Ring& ring = bed_.driver->from_device();
    memcpy(reinterpret_cast<uint8_t*>(ring.descriptors[0].address) + 10, &said.buffers, 2);
    ring.used->ring[0] = {said.id, said.length};
    EXPECT_EQ(bed_.receive(*bed_.driver), "");
    complaints_++;
    ASSERT_TRUE(Bed::send(*bed_.device, "sound"));
    EXPECT_EQ(bed_.receive(*bed_.driver), "sound");
  }
}

// What the driver has laid out in the shared memory is not what it believes.
TEST_F(HostileDevice, DescriptorsThatItWrites) {
  const virtio::Ring& from = bed_.driver->from_device();
  for (uint32_t i = 0; i < DriverQueues::kEntries; i++) from.descriptors[i].address = bed_.driver->to_device().descriptors[i].address = 8;
  from.used->ring[0] = {3, 40};
  from.used->index.store(1);
  EXPECT_EQ(bed_.receive(*bed_.driver).size(), 0U) << "no frame has no buffers";
  complaints_++;
  passes(*bed_.driver, *bed_.device, 3000, 1);
}

TEST_F(HostileDevice, IndicesThatJump) {
  for (const uint16_t index : {uint16_t{1025}, uint16_t{30'000}, uint16_t{65'535}}) {
    bed_.driver->from_device().used->index.store(index);
    EXPECT_EQ(bed_.receive(*bed_.driver), "");
    bed_.driver->to_device().used->index.store(index);
    for (int i = 0; i < 2000; i++) (void)Bed::send(*bed_.driver, "x");
  }
  complaints_++;
  bed_.start();
  passes(*bed_.driver, *bed_.device, 100, 1);
}

// The same chain again and again, and in any order.
TEST_F(HostileDevice, ChainsGivenBackInAnyOrder) {
  const virtio::Ring& ring = bed_.driver->to_device();
  ring.used->flags.store(virtio::Used::kNoNotify);
  uint16_t back = 0;
  std::minstd_rand random(3);
  for (int round = 0; round < 50; round++) {
    while (Bed::send(*bed_.driver, pattern(1 + random() % 9000, 1))) {
    }
    const uint16_t out = static_cast<uint16_t>(ring.available->index.load() - back);
    for (uint16_t i = 0; i < out; i++) {
      const uint16_t slot = static_cast<uint16_t>(back + out - 1 - i);  // the last one first
      const uint32_t id = round % 5 == 4 ? random() : ring.available->ring[slot & 1023];
      ring.used->ring[(back + i) & 1023] = {id, 0};
    }
    back = static_cast<uint16_t>(back + out);
    ring.used->index.store(back);
  }
  bed_.start();
  passes(*bed_.driver, *bed_.device, 100, 1);
}

// ---------------------------------------------------------------- members that die

// What was laid out but not shown is forgotten; the ring goes on, also where its member died between showing and noting it.
TEST_F(VhostQueues, WhoDiedHasSentWhatItHasShown) {
  for (netstack::FrameQueues* from : {static_cast<netstack::FrameQueues*>(bed_.driver), static_cast<netstack::FrameQueues*>(bed_.device)}) {
    netstack::FrameQueues& to = from == bed_.driver ? static_cast<netstack::FrameQueues&>(*bed_.device) : *bed_.driver;
    ASSERT_TRUE(Bed::send(*from, "shown"));
    const Piece forgotten{"forgotten", 9};
    ASSERT_TRUE(from->lay({}, &forgotten, 1));
    from->recover();
    to.recover();
    ASSERT_TRUE(Bed::send(*from, "after it"));
    EXPECT_EQ(bed_.receive(to), "shown");
    EXPECT_EQ(bed_.received, 2);
  }
  const Piece shown{"shown, not noted", 16};
  for (int i = 0; i < 3; i++) ASSERT_TRUE(bed_.driver->lay({}, &shown, 1));
  bed_.driver->to_device().available->index.fetch_add(3);
  bed_.driver->recover();
  ASSERT_TRUE(Bed::send(*bed_.driver, "after it"));
  EXPECT_EQ(bed_.receive(*bed_.device), "shown, not noted");
  EXPECT_EQ(bed_.received, 4);
  for (int i = 0; i < 3000; i++) passes(*bed_.driver, *bed_.device, 100, 1);
}

}  // namespace
