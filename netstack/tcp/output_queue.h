// The streams that have something to send, and when it leaves.
// SPDX-License-Identifier: BSD-3-Clause
//
// Nothing is sent in a write(): the stream is queued here, and all that are queued are sent in one flush at the end of the turn, so that a
// frame of each rides on one doorbell (Linux: sk_buff xmit_more, TCP small queues' tasklet, autocorking). Some writes flush earlier:
//
//  - Where sending needs no kernel call the peer gets a batch while the program still works on the next one: a server that answers all its
//    clients before it waits would else take turns with its peer, each idle half of the time. And after 64 KB it looks at what has come:
//    the acknowledgements give back the memory that the next answer is copied to, while it is in the cache, and before it gets short.
//  - Where it needs one, the last of the answers to what the last poll brought in leaves at once (with one client it is the only one, and
//    its way back into the wait would be part of the round trip), and so does what fills a message to the kernel (segment_train.h): it is
//    copied once more, while it is in the cache. But an answer after which the program closes leaves together with the FIN, in one segment:
//    a peer that gets it alone may close first, and then its kernel keeps the connection in TIME-WAIT, of which 14 000 to one address and
//    port are as many as it has ports for (tcp_tw_reuse spares loopback only, with timestamps or without). Whether the program will close
//    is told by what it did after the last few answers; if it then does not, the answer leaves at the next turn.
//
// A wire that has no room now ends a flush: whoever was refused goes to the end of the queue, and the next flush begins where this one
// stopped. All have their turn, however many they are and whoever became ready first. The same holds for memory that lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/list.h"
#include "netstack/lwip/frame_output.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

class Tcp;

class OutputQueue {
 public:
  explicit OutputQueue(Tcp& tcp) noexcept;

  void add(LwipStream& stream) noexcept {
    streams_.push_back(&stream);
    count_++;
  }
  // After a write of so many bytes (Linux: tcp_push()): flushes now if one of the reasons above holds.
  void push(const LwipStream& stream, size_t bytes) noexcept {
    unflushed_bytes_ += bytes;
    unseen_bytes_ += bytes;
    if (count_ < early_flush_ && (!costs_a_call_ || (count_ != answers_due_ && unflushed_bytes_ < kEarlyFlushBytes))) return;
    if (count_ == answers_due_) {
      answers_due_ = 0;  // a program that answers in many small writes has the others sent together
      answered_ = &stream;
      if (costs_a_call_ && closes_after_answer_ == kExpectClose) return;
    }
    flush();
  }
  // The program has nothing more to send.
  void close(const LwipStream& stream) noexcept {
    if (answered_ != &stream) return;
    answered_ = nullptr;
    if (closes_after_answer_ < kExpectClose) closes_after_answer_++;
  }
  // Before a write: so much was written since the wire was looked at. Where frames cost a call looking more often would not pay: it is the
  // peer's batches that are lost.
  [[nodiscard]] bool look_is_due() const noexcept { return unseen_bytes_ >= kLookAfterBytes && !costs_a_call_; }
  void note_look() noexcept { unseen_bytes_ = 0; }
  void begin_turn() noexcept {
    note_look();
    if (answered_ != nullptr) closes_after_answer_ = 0;
    answered_ = nullptr;
  }
  // A burst comes; in it a stream has got data.
  void begin_burst() noexcept { answers_due_ = 0; }
  void data_received() noexcept { answers_due_++; }
  void flush() noexcept;
  // Has the connection, whose segment is longer than a frame and cannot leave now, send it in this turn's flush.
  void defer(LwipStream& stream) noexcept;
  // The wire had no frame for something. What no stream has (a SYN that is answered, a FIN of a connection that lwIP ends alone) is marked
  // in its connection, and all that wait are armed; streams have their turn in the flush.
  void retry() noexcept;
  // A connection in TIME-WAIT could not acknowledge the peer's FIN: it has no timer that would repeat that, and no stream any more.
  void owe_last_ack() noexcept { last_acks_owed_ = true; }
  [[nodiscard]] bool owes_last_acks() const noexcept { return last_acks_owed_; }
  // There was no memory to send from: this stream has its turn again when others have had theirs.
  void await_memory(LwipStream& stream) noexcept;
  // A released stream could not send its reset, or what comes before it: the next flushes try again.
  void owe_reset(LwipStream& stream) noexcept;
  // False: the wire has no frame now.
  [[nodiscard]] bool send_reset(const tcp_pcb& pcb) noexcept;
  void reset() noexcept;

 private:
  void finish_resets() noexcept;
  void send_last_acks() noexcept;

  static constexpr int kEarlyFlush = 24;  // measured with redis over memif, 50 connections: 600 k/s without, 900 k/s with it
  static constexpr size_t kEarlyFlushBytes = 64 * 1024;
  static constexpr size_t kLookAfterBytes = 64 * 1024;
  static constexpr int kExpectClose = 4;

  Tcp& tcp_;
  FrameOutput& frames_;
  base::List<DirtyLink> streams_;
  base::List<DirtyLink> resetting_;
  int count_ = 0;
  int answers_due_ = 0;
  const LwipStream* answered_ = nullptr;  // in this turn, the last of those due, and still open
  int closes_after_answer_ = 0;           // in a row, up to kExpectClose
  size_t unflushed_bytes_ = 0;
  size_t unseen_bytes_ = 0;  // written since the wire was looked at
  bool last_acks_owed_ = false;
  const int early_flush_;
  const bool costs_a_call_;
};

}  // namespace netstack
