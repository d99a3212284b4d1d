// What is configured and from where: environment ZPS_*, then /etc/zpstack.toml, then defaults; unknown keys are errors.
//
// One table (config.cc) holds every key: its name in the file, its variable, type, default and one line of help. The
// core reads it once at start; `zpstack config` prints it; docs/configuration.md is generated from it.
#pragma once

#include <cstdint>

#include "base/log.h"
#include "base/result.h"

namespace base {

enum class Fallback { fail, kernel };

// Addresses are in wire order; sizes and times carry their unit in the name. Zero means "chosen by the wire".
struct Config {
  char hook[16] = "auto";          // ZPS_HOOK: auto, zpoline, nopage0, sud, symbols, off
  char hook_library[256] = "";     // ZPS_HOOK_LIBRARY
  char wire[256] = "veth";         // ZPS_WIRE
  uint32_t address_be = 0;         // ZPS_IP=198.18.0.2/24
  uint8_t prefix = 24;
  uint32_t gateway_be = 0;         // ZPS_GATEWAY
  uint32_t mtu = 0;                // ZPS_MTU
  uint32_t frames = 0;             // ZPS_FRAMES
  uint32_t memory_mb = 48;         // ZPS_MEMORY_MB, 16 at least
  uint32_t time_wait_ms = 2000;    // ZPS_TIME_WAIT_MS
  uint32_t spin_us = 50;           // ZPS_SPIN_US: how long a wait polls before it sleeps
  bool hugepages = true;           // ZPS_HUGEPAGES: use them when they are there
  Fallback fallback = Fallback::fail;  // ZPS_FALLBACK=kernel
  LogLevel log = LogLevel::info;   // ZPS_LOG
  bool ledger = false;             // ZPS_LEDGER=1: print what was served, passed on and refused, at exit
  bool io_uring = false;           // ZPS_IO_URING=kernel
};

// Reads file and environment (`environment` is a null-terminated envp). The error is one clear line.
Result<Config> load_config(const char* const* environment, const char* file = "/etc/zpstack.toml") noexcept;

}  // namespace base
