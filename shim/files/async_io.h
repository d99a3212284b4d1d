// Signal-driven I/O of the stack's sockets: O_ASYNC, F_SETOWN, F_SETSIG, and the owner that SIGURG goes to.
// SPDX-License-Identifier: BSD-3-Clause
//
// As with options, the placeholder is where the program's wishes are kept: the kernel judges them (pid namespaces, dead owners, signal
// numbers) and tells them again. What is needed to send is read back and kept with the socket, in a notice that exists only where a program
// has asked for one: it observes the stack's endpoint, decides which signal an event is worth (sk_wake_async() and its callers), and has it
// sent when the lock is free (family/async_signals.h). A socket without one pays nothing.
#pragma once

#include "shim/family/async_signals.h"
#include "shim/files/file.h"

namespace shim {

class AsyncNotice final : public netstack::Observer {
 public:
  explicit AsyncNotice(File* whose) noexcept : file(whose) {}
  void on_ready(netstack::Pollable& source, uint32_t events) noexcept override;

  File* file;
  SignalOwner owner{};
  int fd = -1;           // the number that O_ASYNC was set through
  bool enabled = false;  // O_ASYNC
  bool muted = false;    // what is announced now comes from the program's own call

 private:
  void queue(int reason) noexcept;
  [[nodiscard]] bool reader_takes_it() noexcept;

  static constexpr int kReasons = 7;
  uint64_t queued_[kReasons] = {};  // number of the last signal for each reason, from 1
};

// The program has changed owner or signal of the placeholder, or its O_ASYNC flag, through `fd`. Without the lock. 0 or -ENOMEM.
[[nodiscard]] long follow_owner(int fd) noexcept;
[[nodiscard]] long follow_async_flag(int fd, bool enabled) noexcept;

// With the lock held: the socket has got an endpoint; it ends.
void attach_notice(File* file) noexcept;
void release_notice(File* file) noexcept;

// While it exists what the endpoint announces is no reason for a signal: a call of the program's own has brought it about.
class MutedNotice {
 public:
  explicit MutedNotice(File* file) noexcept : notice_(file->notice) {
    if (notice_ != nullptr) notice_->muted = true;
  }
  ~MutedNotice() {
    if (notice_ != nullptr) notice_->muted = false;
  }
  MutedNotice(const MutedNotice&) = delete;
  MutedNotice& operator=(const MutedNotice&) = delete;

 private:
  AsyncNotice* notice_;
};

}  // namespace shim
