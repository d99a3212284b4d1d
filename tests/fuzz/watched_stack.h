// A stack that is watched by sanitizers, made anew for each input: a wire of exact frames, sockets that wait for what comes, a clock.
// SPDX-License-Identifier: BSD-3-Clause
//
// A target says how it makes frames of the fuzzer's bytes, feed(). Between them the program does what a program does (act()): it sends,
// reads, lets time pass. In the end it closes everything, and then nothing is left: no memory, no frame, no timer that runs for ever. What
// the stack sends is whole: a header that tells of more than there is would be one that it took from the input.
#pragma once

#include "netstack/lwip/stack_setup.h"
#include "netstack/udp_endpoint.h"
#include "packets.h"

namespace fuzz {

class ExactWire final : public netstack::Wire {
 public:
  static constexpr int kFrames = 256;
  static constexpr uint16_t kMtu = 1500;

  ExactWire();
  void deliver(const Bytes& frame);
  void empty();

  const netstack::WireFacts& facts() const noexcept override { return facts_; }
  int receive(netstack::RxFrame* out, int capacity) noexcept override;
  bool crowded() const noexcept override { return crowd; }
  void release(void* handle) noexcept override;
  bool allocate(netstack::TxFrame* out) noexcept override;
  void send(void* handle, uint32_t length) noexcept override;
  void flush() noexcept override {}
  int backlog() const noexcept override { return 0; }
  int sleep_fd() noexcept override { return -1; }
  void arm() noexcept override {}
  void disarm() noexcept override {}
  int control_fd() noexcept override { return -1; }
  void run_control() noexcept override {}
  int free_frames() const noexcept override { return kFrames - taken_; }
  int total_frames() const noexcept override { return kFrames; }
  void recover() noexcept override {}

  bool refuse = false;  // no frame to send with
  bool crowd = false;

 private:
  struct Frame;

  netstack::WireFacts facts_{};
  int taken_ = 0;
  std::vector<Frame*> inbox_;
};

class Bed {
 public:
  Bed();
  void begin();
  void act(Input& input);
  void deliver(const Bytes& frame);
  void end();

 private:
  void open();
  void announce();
  void send(Input& input);
  void read();
  void poll() { (void)stack_->poll(now_ns); }

 public:
  static uint64_t now_ns;
  static bool autoconfigures;  // routers are asked for more addresses (a target's choice, before main())

 private:
  ExactWire wire_;
  base::Heap heap_{4 << 20};
  netstack::StackDoor door_;
  void* region_;
  netstack::Stack* stack_ = nullptr;
  std::vector<netstack::UdpEndpoint*> endpoints_;
  std::vector<netstack::TcpStream*> streams_;
  netstack::TcpListener* listener_ = nullptr;
};

// One more frame, or several, by the target's own rules.
void feed(Bed& bed, Input& input);

}  // namespace fuzz
