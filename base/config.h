// What is configured and from where: environment ZPS_*, then /etc/zpstack.toml, then defaults; unknown keys are errors.
// SPDX-License-Identifier: BSD-3-Clause
//
// One table (config.cc) holds every key: its name in the file, its variable, type, default and one line of help. The
// core reads it once at start; `zpstack config` prints it; docs/configuration.md is generated from it. An empty variable
// counts as not set; ZPS_TEST_* belongs to tests and is not looked at. Link zps_config to use what is declared here.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/log.h"
#include "base/network_name.h"
#include "base/result.h"
#include "base/rules.h"

namespace base {

enum class Fallback { fail, kernel };
enum class CpuSleep { light, any };

// An IPv6 address with the length of its prefix; a prefix of 0: none.
struct Ip6Setting {
  uint8_t address[16] = {};
  uint8_t prefix = 0;
};
inline constexpr int kMostIp6Settings = 3;

// Addresses are in wire order; sizes and times carry their unit in the name. Zero means "chosen by the wire".
struct Config {
  char hook[16] = "auto";       // ZPS_HOOK: auto, zpoline, nopage0, sud, symbols, off
  char hook_library[256] = "";  // ZPS_HOOK_LIBRARY
  // ZPS_WIRE: veth, host[:interface], af_xdp[:interface], tap, memif:/path[,role=server|client|auto], af_packet:interface
  char wire[256] = "veth";
  uint32_t address_be = 0;      // ZPS_IP=198.18.0.2/24,fd00::2/64
  uint8_t prefix = 24;
  Ip6Setting ip6[kMostIp6Settings];
  bool autoconfigure = false;          // ZPS_IP=auto: and what routers of IPv6 advertise
  bool dhcp = false;                   // ZPS_IP=dhcp: and IPv4's, as a server says
  uint32_t gateway_be = 0;             // ZPS_GATEWAY=198.18.0.1,fe80::1
  uint8_t gateway6[16] = {};
  uint32_t vlan = 0;                   // ZPS_VLAN
  uint8_t link_local6[16] = {};        // zeros: the interface makes its own
  uint32_t mtu = 0;                    // ZPS_MTU
  uint32_t frames = 0;                 // ZPS_FRAMES
  uint32_t memory_mb = 48;             // ZPS_MEMORY_MB, 16 at least
  uint32_t time_wait_ms = 2000;        // ZPS_TIME_WAIT_MS
  uint32_t spin_us = 200;              // ZPS_SPIN_US: how long a wait polls before it sleeps
  CpuSleep cpu_sleep = CpuSleep::light;  // ZPS_CPU_SLEEP: how idle processors sleep while a peer on this machine answers at once
  uint32_t patience_ms = 1000;         // ZPS_PATIENCE_MS: how long a process that is held inside the lock is waited for before it is killed
  bool hugepages = true;               // ZPS_HUGEPAGES: use them when they are there
  Fallback fallback = Fallback::fail;  // ZPS_FALLBACK=kernel
  LogLevel log = LogLevel::info;       // ZPS_LOG
  bool ledger = false;                 // ZPS_LEDGER=1: print what was served, passed on and refused, at exit
  bool io_uring = false;               // ZPS_IO_URING=kernel
  bool inherit = true;                 // ZPS_INHERIT=no: programs it starts get exactly the environment it gives them
  Side udp = Side::kernel;             // ZPS_UDP: who serves datagram sockets of the stack's networks
  Rules rules;                         // ZPS_RULES: exceptions from who serves what
  char network[kMostNetworkName + 1] = "";  // ZPS_NETWORK: programs of one name share a stack
  bool jit = true;                     // ZPS_JIT=kernel: calls of code that it makes itself go to the kernel
};

// Where a value came from.
enum class Origin : uint8_t { by_default, file, environment };

// One row of the table, for people: all strings are static.
struct ConfigKey {
  const char* name;      // in the file: "memory_mb"
  const char* variable;  // in the environment: "ZPS_MEMORY_MB"
  const char* type;      // what a value looks like: "number from 16 to 65536"
  const char* help;      // one line
};
inline constexpr int kConfigKeys = 23;
[[nodiscard]] const ConfigKey& config_key(int index) noexcept;
// The value of key `index` as it would be written in the environment; empty if it is "chosen by the wire".
inline constexpr size_t kMostValueBytes = 8192;
void print_config_value(const Config& config, int index, char* out, size_t capacity) noexcept;

// The file that is read when it exists.
inline constexpr char kConfigFile[] = "/etc/zpstack.toml";

// Reads file and environment (`environment` is a null-terminated envp). The error is one clear line. `origins`, if given,
// receives kConfigKeys entries. Costs one failing open() when there is no file.
Result<Config> load_config(const char* const* environment, const char* file = kConfigFile, Origin* origins = nullptr) noexcept;

}  // namespace base
