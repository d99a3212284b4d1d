// What must have reached an end of a connection before an operation there has a determined result.
// SPDX-License-Identifier: BSD-3-Clause
//
// Both processes of a test look at their own ends only; what the other end has done comes from the tester's books (world.h).
#pragma once

#include <cstdint>

namespace random_sequences {

struct Arrival {
  uint32_t unread_bytes = 0;  // at least so many wait to be read
  bool connected = false;     // the handshake is over, one way or the other
  bool fin = false;           // the other side has ended its stream
  bool closed = false;        // nothing will come any more in either direction: by reset, or both streams have ended
};

// True if all of it has been seen at this descriptor, or nothing more can come.
bool has_arrived(int fd, const Arrival& arrival);

// True if all that was sent here, a FIN as well, is acknowledged, or nothing more can come.
bool is_acknowledged(int fd);
// Makes this end send an acknowledgement that it delays, and delay the next one as before.
void acknowledge_now(int fd);
// 20 us, for one who waits.
void nap();

// The TCP state (tcp_info's), -1 if it has none.
int tcp_state(int fd);
// FIONREAD, 0 if there is no answer.
uint32_t unread_bytes(int fd);

uint64_t now_us();

// The patience of who looks again and again for what must come: so long, and so many looks. A busy machine may give a process no turn
// for seconds, and then it knows nothing.
class Patience {
 public:
  explicit Patience(uint64_t us) : end_us_(now_us() + us) {}
  // After a look in vain: pauses, and tells whether there shall be another one.
  bool goes_on();

 private:
  uint64_t end_us_;
  int looks_ = 0;
};

// A text without end, from an offset on.
void fill_endless(char* data, unsigned bytes, uint32_t offset);
// Reads `skipped` bytes and then `bytes` of that text, as they come. False if they do not, or are others.
bool drain(int fd, uint32_t skipped, uint32_t bytes);

// Fills with bytes that tell `origin` and their place; text that names what was read.
void fill(char* data, unsigned bytes, unsigned origin);
uint32_t digest(const void* data, unsigned bytes);

}  // namespace random_sequences
