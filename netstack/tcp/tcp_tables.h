// What TCP keeps in the stack's region: connections and ports by number, half-open connections, endpoints, resets that are owed. It
// survives recovery.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "netstack/lwip/slab.h"
#include "netstack/tcp/port_binding.h"
#include "netstack/tcp/port_table.h"
#include "netstack/tcp/request_table.h"
#include "netstack/tcp/tcp_demux.h"
#include "netstack/tcp/tcp_listener.h"
#include "netstack/tcp/tcp_recovery.h"
#include "netstack/tcp/tcp_stream.h"

namespace netstack {

// Laid over zero-filled memory: all of it is valid, and empty, as zeros, and stays untouched until it is used.
struct TcpTables {
  static constexpr int kMaxStreams = 65536;
  static constexpr int kMaxListeners = 1024;
  static constexpr uint32_t kMostResets = 2 * kMaxStreams;

  alignas(64) TcpDemux demux;
  alignas(64) PortTable ports;
  alignas(64) RequestTable requests;
  alignas(64) Slab<LwipStream, kMaxStreams> streams;
  alignas(64) Slab<LwipListener, kMaxListeners> listeners;
  alignas(64) Slab<LwipBinding, kMaxStreams> bindings;
  OwedReset resets[kMostResets];
};

}  // namespace netstack
