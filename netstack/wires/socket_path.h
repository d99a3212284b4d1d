// The Unix socket by which two programs of a host find each other: whose it is, and who of the two serves at it.
// SPDX-License-Identifier: BSD-3-Clause
//
// Start order does not matter where the role is automatic: who can bind the path is the server, who finds somebody there is the client. A
// file that a dead server left behind is found by connecting to it, and removed. Between the look and the bind a lock on its folder keeps
// others out.
#pragma once

#include <cstddef>

#include "base/result.h"

namespace netstack {

// Holds the folder of the socket while it is looked at and bound.
class FolderLock {
 public:
  explicit FolderLock(const char* path) noexcept;
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  [[nodiscard]] bool there() const noexcept { return fd_ >= 0; }
  [[nodiscard]] bool writable() const noexcept { return writable_; }

 private:
  long fd_;
  bool writable_ = true;
};

struct SocketPath {
  // For wires of kind `wire`, as messages say it, whose sockets have type `type` (SOCK_STREAM, SOCK_SEQPACKET).
  SocketPath(const char* wire = "", int type = 0) noexcept : kind(wire), socket_type(type) {}

  // Takes the path at the begin of `text`, up to a comma or the end: where it ends, or nullptr if it is no absolute one, or too long.
  [[nodiscard]] const char* take_path(const char* text) noexcept;
  // Whether the `length` bytes at `text` are a role (role=server, role=client, role=auto), which is taken.
  [[nodiscard]] bool take_role(const char* text, size_t length) noexcept;
  // Decides an automatic role and removes what a dead server left; an error if something else is in the way.
  base::Result<bool> settle_role(const FolderLock& folder) noexcept;

  const char* kind;
  int socket_type;
  char path[108] = "";
  bool client = false, automatic = true;
};

}  // namespace netstack
