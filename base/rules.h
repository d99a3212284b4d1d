// The rules that say which side serves a socket: their text, and which of them is the first that matches.
// SPDX-License-Identifier: BSD-3-Clause
//
// A rule is a side and what it is for, in any order behind it: "kernel udp port=53", "stack tcp peer=10.0.0.0/8 program=nginx". What it
// does not name is any. Rules are looked at in their order, and the first one that matches says the side; if none does, it is as without
// rules. A rule that names a peer says nothing of a listener, which has none yet, and one that names a port nothing of a socket that has no
// port yet.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace base {

enum class Side : uint8_t { kernel, stack };

inline constexpr int kMostRules = 32;

struct Rule {
  Side side = Side::kernel;
  uint8_t protocol = 0;     // IPPROTO_TCP or IPPROTO_UDP; 0: both
  uint8_t peer_prefix = 0;  // bits of `peer` that count, as of an IPv6 address
  bool has_peer = false;
  uint16_t first_port = 0, last_port = 65535;  // of the local end; last 65535 and first 0: any
  uint8_t peer[16] = {};                       // IPv4's are v4-mapped
  char program[48] = "";                       // the name of its file; empty: any
  uint32_t line = 0;                           // of the file it was read from
};

struct Rules {
  int count = 0;
  Rule rule[kMostRules];

  [[nodiscard]] const Rule* begin() const noexcept { return rule; }
  [[nodiscard]] const Rule* end() const noexcept { return rule + count; }
};

// Adds the rules of `text`, which semicolons part. The error says which rule is not one and why.
[[nodiscard]] Error add_rules(Rules* rules, const char* text) noexcept;
// As add_rules() reads it.
void print_rule(const Rule& rule, char* out, size_t capacity) noexcept;

// What is asked of the rules.
struct RuleQuestion {
  int protocol;
  uint16_t port = 0;              // the local end's, 0: none yet
  const uint8_t* peer = nullptr;  // 16 bytes; nullptr: nobody in particular
};
// The first rule that matches, whatever program it names; nullptr: none.
[[nodiscard]] const Rule* find_rule(const Rules& rules, const RuleQuestion& question) noexcept;
// Whether a socket of this protocol and port is served by `side` towards one peer at least, where `by_default` is the side without a rule.
[[nodiscard]] bool may_be_served_by(const Rules& rules, Side side, Side by_default, int protocol, uint16_t port) noexcept;

// Leaves the rules that are for a program whose file has one of these names.
void keep_rules_of(Rules* rules, const char* name, const char* other_name) noexcept;

}  // namespace base
