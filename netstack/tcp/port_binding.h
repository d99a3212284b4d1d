// What bind() gives to a socket, and the rules by which it does.
// SPDX-License-Identifier: BSD-3-Clause
//
// The users of a port are the sockets bound to it, listeners, and connections in every state, TIME-WAIT as well, whoever began them.
// Another socket gets the port if it may share it with each of them (Linux: inet_csk_get_port(), inet_bind_conflict()):
//   - both say SO_REUSEADDR, and the user is not a listener; or
//   - both say SO_REUSEPORT, and belong to one user id (a connection that no socket has any more, to none).
// listen() asks again, as a listener, of all but its own socket. A socket that leaves the choice to us, or to the kernel, gets a port
// without users.
// Those whose addresses have none in common do not meet at all (BoundTo).
//
// What counts is what the users say now. One memory of what they said there is: PortTable::note_bound().
#pragma once

#include "lwip/priv/tcp_priv.h"
#include "netstack/stack.h"
#include "netstack/tcp/port_table.h"

namespace netstack {

class Tcp;

// False if `option` is none of a port's.
bool set_sharing(PortSharing* sharing, TcpOption option, int value) noexcept;

class LwipBinding final : public PortBinding {
 public:
  LwipBinding(Tcp& tcp, const SocketAddress& local, bool v6_only, const PortSharing& how) noexcept
      : sharing(how), tcp_(tcp), local_(local), v6_only_(v6_only) {}

  [[nodiscard]] SocketAddress local() const noexcept override { return local_; }
  [[nodiscard]] long set_option(TcpOption option, int value) noexcept override;
  void release() noexcept override;

  [[nodiscard]] BoundTo bound_to() const noexcept { return {local_.address, v6_only_}; }

  PortSharing sharing;
  LwipBinding* next_in_bucket = nullptr;
  bool held = true;  // by a socket

 private:
  Tcp& tcp_;
  SocketAddress local_;
  bool v6_only_;
};

class PortOwners {
 public:
  explicit PortOwners(Tcp& tcp) noexcept : tcp_(tcp) {}

  // Whether a socket may have what it asks for; `own` is the binding it has already. Chooses a port for port 0.
  // 0, -EADDRNOTAVAIL or -EADDRINUSE.
  [[nodiscard]] long find(const PortRequest& request, const PortBinding* own, SocketAddress* local) const noexcept;
  void add(LwipBinding& binding) noexcept;
  void remove(LwipBinding& binding) noexcept;
  void reset() noexcept;

 private:
  static constexpr int kBuckets = 256;

  [[nodiscard]] bool conflict(uint16_t port, const BoundTo& to, const PortSharing& sharing, const PortBinding* own) const noexcept;

  Tcp& tcp_;
  LwipBinding* buckets_[kBuckets] = {};
};

}  // namespace netstack
