// Tells that all datagrams that were sent have arrived, and what they have caused as well.
// SPDX-License-Identifier: BSD-3-Clause
//
// Nothing else tells of a datagram that nobody gets, or of a refusal that comes back. But a wire keeps the order of what goes by it: so a
// datagram is sent behind them, of each family (the neighbour of one may have to be asked for first), to the agent, which sends it back;
// and one by the loopback, for what is the kernel's.
#pragma once

#include <cstdint>

namespace random_sequences {

class Agent;

class Barrier {
 public:
  // Its sockets have high numbers, so that they are in no world's way.
  explicit Barrier(Agent& agent);
  // False if something did not come back.
  [[nodiscard]] bool pass(Agent& agent);

 private:
  int near_[2], loop_;  // near_: of IPv4 and of IPv6
  int far_[2];          // the agent's
  uint32_t turn_ = 0;
};

}  // namespace random_sequences
