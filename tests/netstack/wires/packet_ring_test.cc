// The packet socket's ring: one's place in it after a death at any instruction, whatever the clock says, and slots whose headers are
// nonsense.
// SPDX-License-Identifier: BSD-3-Clause
#include "packet_bed.h"

#include <gtest/gtest.h>

#include <csignal>
#include <random>

namespace {

using namespace packet_bed;

constexpr uint32_t kSlots = 4, kSlotBytes = 256;

// Fills slots as the kernel does, each frame with a number, and with a clock that is set back after each frame but the third.
class Kernel {
 public:
  explicit Kernel(uint32_t position) : position_(position) {}
  bool fill(uint8_t* memory) {
    auto& slot = *reinterpret_cast<tpacket2_hdr*>(memory + position_ * kSlotBytes);
    if ((slot.tp_status & TP_STATUS_USER) != 0) return false;
    slot.tp_len = slot.tp_snaplen = 100 + number_++;
    slot.tp_mac = 64;
    slot.tp_sec = number_ == 3 ? UINT32_MAX : 1'000'000 - number_;
    slot.tp_nsec = 999'999'999 - number_;
    slot.tp_status = TP_STATUS_USER;
    position_ = (position_ + 1) % kSlots;
    return true;
  }
  [[nodiscard]] uint32_t filled() const { return number_; }

 private:
  uint32_t position_;
  uint32_t number_ = 0;
};

alignas(64) uint8_t memory[kSlots * kSlotBytes];
PacketRing* ring;
Kernel* kernel;
uint32_t steps, wrong;

// How many wait.
uint32_t waiting() {
  uint32_t count = 0;
  for (uint32_t i = 0; i < kSlots; i++)
    count += (reinterpret_cast<tpacket2_hdr*>(memory + i * kSlotBytes)->tp_status & TP_STATUS_USER) != 0;
  return count;
}

// Whether, after a death right here and `more` frames that come before anybody notices, those that wait are found, each once and in order.
bool all_are_found(uint32_t more) {
  Kernel kernel_then = *kernel;
  for (uint32_t i = 0; i < more; i++) (void)kernel_then.fill(memory);
  ring->realign();
  (void)kernel_then.fill(memory);
  const uint32_t count = waiting();
  uint32_t found = 0;
  for (const tpacket2_hdr* slot; found < count && (slot = ring->front()) != nullptr; found++) {
    const bool marked = found == 0 && slot->tp_len == 0;  // its receiver is dead
    if (!marked && slot->tp_len != 100 + kernel_then.filled() - count + found) return false;
    ring->pop();
  }
  return found == count && ring->front() == nullptr && kernel_then.fill(memory) && ring->front() != nullptr;
}

// Runs after each instruction of a pop; everything is afterwards as it was before.
void die_here(int) {
  alignas(PacketRing) uint8_t ring_before[sizeof(PacketRing)], memory_before[sizeof memory];
  memcpy(ring_before, ring, sizeof ring_before);
  memcpy(memory_before, memory, sizeof memory);
  steps++;
  for (uint32_t more = 0; more <= kSlots; more++) {
    wrong += !all_are_found(more);
    memcpy(static_cast<void*>(ring), ring_before, sizeof ring_before);
    memcpy(memory, memory_before, sizeof memory);
  }
}

[[gnu::noinline]] void pop_step_by_step() {
  asm volatile("pushf; orl $0x100, (%%rsp); popf" ::: "memory", "cc");
  ring->pop();
  asm volatile("pushf; andl $~0x100, (%%rsp); popf" ::: "memory", "cc");
}

TEST(PacketRing, FindsItsPlaceAfterADeathAtAnyInstruction) {
  struct sigaction action {};
  action.sa_handler = die_here;
  ASSERT_EQ(sigaction(SIGTRAP, &action, nullptr), 0);
  for (uint32_t start = 0; start < kSlots; start++) {
    for (uint32_t wait = 1; wait <= kSlots; wait++) {
      memset(memory, 0, sizeof memory);
      PacketRing fresh(memory, kSlotBytes, kSlots);
      Kernel counting(0);
      ring = &fresh;
      kernel = &counting;
      for (uint32_t i = 0; i < start; i++) {
        ASSERT_TRUE(counting.fill(memory));
        ring->pop();
      }
      for (uint32_t i = 0; i < wait; i++) ASSERT_TRUE(counting.fill(memory));
      steps = wrong = 0;
      pop_step_by_step();
      EXPECT_GE(steps, 5U) << "a pop is some instructions long";
      EXPECT_EQ(wrong, 0U) << "started at " << start << ", " << wait << " waited";
      EXPECT_EQ(waiting(), wait - 1);
    }
  }
}

TEST(PacketRing, NothingMovesWithoutADeath) {
  for (uint32_t wait = 0; wait <= kSlots; wait++) {
    memset(memory, 0, sizeof memory);
    PacketRing fresh(memory, kSlotBytes, kSlots);
    Kernel counting(0);
    ring = &fresh;
    kernel = &counting;
    for (uint32_t i = 0; i < wait; i++) ASSERT_TRUE(counting.fill(memory));
    EXPECT_TRUE(all_are_found(0)) << wait;
  }
}

// Whatever stands in the slots, what comes out are frames of the pool with lengths that they can have.
TEST(PacketRing, HeadersThatAreNonsense) {
  if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a network namespace";
  Bed bed;
  std::mt19937 random(5);
  const uint32_t lengths[] = {
      0,         1, 60, 1514, Bed::kSlotBytes - 64, Bed::kSlotBytes, Bed::kSlotBytes + 1, 65535, 1 << 20, 0x80000000, UINT32_MAX - 2047,
      UINT32_MAX};
  const uint32_t statuses[] = {
      1, 3, 1 | TP_STATUS_CSUMNOTREADY, 1 | TP_STATUS_VLAN_VALID, TP_STATUS_LOSING | 1, UINT32_MAX, UINT32_MAX & ~2U, 0, 4};
  for (int turn = 0; turn < 100000; turn++) {
    for (uint32_t i = 0; i < Bed::kSlots; i++) {
      tpacket2_hdr& slot = bed.slot(i);
      slot.tp_len = lengths[random() % std::size(lengths)];
      slot.tp_snaplen = random() % 4 != 0 ? slot.tp_len : lengths[random() % std::size(lengths)];
      slot.tp_mac = static_cast<uint16_t>(random() % 4 != 0 ? 64 : random());
      slot.tp_vlan_tci = static_cast<uint16_t>(random() % 2 != 0 ? random() : 0);
      slot.tp_status = statuses[random() % std::size(statuses)];
    }
    bed.receive();
    if (turn % 100 == 0) bed.wire->recover();
  }
  EXPECT_GT(bed.frames, 1000U);
  EXPECT_EQ(bed.wire->free_frames(), bed.wire->total_frames());
}

}  // namespace
