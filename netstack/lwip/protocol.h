// What the glue around lwIP asks of a transport protocol: the only way up from here. TCP is one; the next finds its example in tcp/tcp.h.
// SPDX-License-Identifier: BSD-3-Clause
//
// The stack's top calls its protocols by name, once per turn. What is here is what must be asked in the middle of the frames' way, and none
// of it is a call per frame: a burst is announced whole, finish_input() is called only for a protocol that wished for it, defer() only
// for segments that are longer than a frame.
#pragma once

#include <cstddef>
#include <cstdint>

namespace netstack {

// A received frame before lwIP sees it.
struct FrameView {
  // What of a connection is worth having in the cache: its PCB, and the endpoint that the PCB points to.
  static constexpr size_t kStateBytes = 448, kOwnerBytes = 384;

  const uint8_t* bytes;  // from the Ethernet header on
  // Filled in by the frame's protocol, or not: where a pointer to the PCB of its connection lies, and at which offset in that the one to
  // the endpoint.
  const void* const* slot;
  uint16_t owner_at;
  uint8_t protocol;  // IP's number, if the IP header has no options or extensions and the ports are there; else 0
  bool v6;
  bool plain_ip;     // IP to our own MAC, complete header
  bool fragment;
  bool other_ip;     // IP, but not TCP
  bool stays;        // it may be more than an acknowledgement, which is released before input returns
};

class Protocol {
 public:
  // A burst has come and is handed to lwIP next, one frame after the other: finds the state of this protocol's connections for the cache.
  virtual void begin_burst(FrameView* frames, int count) noexcept = 0;
  // lwIP has processed the segment during which FrameInput::finish_for() was called.
  virtual void finish_input() noexcept = 0;
  // Has the connection of this frame, which is not sent then, send it in this turn's flush. False if it has no endpoint, or if there will
  // be none.
  [[nodiscard]] virtual bool defer(const uint8_t* frame) noexcept = 0;

 protected:
  ~Protocol() = default;
};

}  // namespace netstack
