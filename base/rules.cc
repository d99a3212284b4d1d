// Reading, printing and matching rules.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstdarg>
#include <cstring>

#include "base/log.h"

namespace base {
namespace {

constexpr int kMappedBits = 96;  // of a v4-mapped address before the IPv4 address (RFC 4291, 2.5.5.2)

// What a word says of a rule; false: nothing that makes sense. `value` is what stands behind its equals sign.
struct Word {
  const char* name;
  bool (*take)(Rule& rule, const char* value) noexcept;
};

bool parse_whole(const char* text, const char* end, uint32_t most, uint32_t* out) noexcept {
  if (text == end) return false;
  *out = 0;
  for (; text != end; text++) {
    if (*text < '0' || *text > '9') return false;
    *out = *out * 10 + static_cast<uint32_t>(*text - '0');
    if (*out > most) return false;
  }
  return true;
}

bool take_port(Rule& rule, const char* value) noexcept {
  const char* const dash = value + strcspn(value, "-");
  uint32_t first, last;
  if (!parse_whole(value, dash, 65535, &first) || first == 0) return false;
  last = first;
  if (*dash != '\0' && !parse_whole(dash + 1, dash + strlen(dash), 65535, &last)) return false;
  rule.first_port = static_cast<uint16_t>(first);
  rule.last_port = static_cast<uint16_t>(last);
  return first <= last;
}

bool has_bits_behind(const uint8_t* address, int prefix) noexcept {
  for (int bit = prefix; bit < 128; bit++) {
    if ((address[bit / 8] >> (7 - bit % 8) & 1) != 0) return true;
  }
  return false;
}

// A network or a single address. One with bits behind its prefix is a slip.
bool take_peer(Rule& rule, const char* value) noexcept {
  char address[INET6_ADDRSTRLEN];
  const size_t length = strcspn(value, "/");
  if (length >= sizeof address) return false;
  memcpy(address, value, length);
  address[length] = '\0';
  const bool is_v4 = inet_pton(AF_INET, address, rule.peer + 12) == 1;
  if (is_v4) {
    memset(rule.peer, 0, 10);
    memset(rule.peer + 10, 0xff, 2);
  } else if (inet_pton(AF_INET6, address, rule.peer) != 1) {
    return false;
  }
  const uint32_t most = is_v4 ? 32 : 128;
  uint32_t prefix = most;
  if (value[length] == '/' && !parse_whole(value + length + 1, value + strlen(value), most, &prefix)) return false;
  rule.peer_prefix = static_cast<uint8_t>(prefix + (is_v4 ? kMappedBits : 0));
  rule.has_peer = true;
  return !has_bits_behind(rule.peer, rule.peer_prefix);
}

bool take_program(Rule& rule, const char* value) noexcept {
  const size_t length = strlen(value);
  if (length == 0 || length >= sizeof rule.program || strchr(value, '/') != nullptr) return false;
  memcpy(rule.program, value, length + 1);
  return true;
}

bool take_tcp(Rule& rule, const char*) noexcept { return rule.protocol = IPPROTO_TCP, true; }
bool take_udp(Rule& rule, const char*) noexcept { return rule.protocol = IPPROTO_UDP, true; }

constexpr Word kWords[] = {{"tcp", take_tcp}, {"udp", take_udp}, {"port=", take_port}, {"peer=", take_peer}, {"program=", take_program}};
constexpr char kExpected[] = "expected kernel or stack, then any of: tcp or udp, port=53 or port=80-90, peer=10.0.0.0/8, program=nginx";
static_assert(sizeof kWords / sizeof kWords[0] < 8);  // bits of `seen`

bool take_side(Rule& rule, const char* word) noexcept {
  rule.side = word[0] == 's' ? Side::stack : Side::kernel;
  return strcmp(word, "kernel") == 0 || strcmp(word, "stack") == 0;
}

// One word behind the side. Each may be said once, and of the protocols one.
bool take_word(Rule& rule, const char* word, unsigned* seen) noexcept {
  for (unsigned i = 0; i < sizeof kWords / sizeof kWords[0]; i++) {
    const size_t length = strlen(kWords[i].name);
    const bool has_value = kWords[i].name[length - 1] == '=';
    if (strncmp(word, kWords[i].name, length) != 0 || (!has_value && word[length] != '\0')) continue;
    const unsigned mark = has_value ? 1u << i : 1;
    if ((*seen & mark) != 0) return false;
    *seen |= mark;
    return kWords[i].take(rule, word + length);
  }
  return false;
}

// `text` is cut into its words.
Error read_rule(char* text, Rule* out) noexcept {
  char whole[120];
  (void)strncpy(whole, text, sizeof whole - 1);
  whole[sizeof whole - 1] = '\0';
  unsigned seen = 0;
  char* rest = nullptr;
  int place = 0;
  for (char* word = strtok_r(text, " \t", &rest); word != nullptr; word = strtok_r(nullptr, " \t", &rest), place++) {
    if (place == 0 ? take_side(*out, word) : take_word(*out, word, &seen)) continue;
    return make_error("rule \"%s\": \"%s\" is not valid: %s", whole, word, kExpected);
  }
  return place == 0 ? make_error("an empty rule: %s", kExpected) : Error{};
}

bool matches(const Rule& rule, const RuleQuestion& question) noexcept {
  if (rule.protocol != 0 && rule.protocol != question.protocol) return false;
  if (question.port < rule.first_port || question.port > rule.last_port) return false;
  if (!rule.has_peer) return true;
  if (question.peer == nullptr) return false;
  const int bytes = rule.peer_prefix / 8, bits = rule.peer_prefix % 8;
  if (memcmp(rule.peer, question.peer, static_cast<size_t>(bytes)) != 0) return false;
  return bits == 0 || ((rule.peer[bytes] ^ question.peer[bytes]) >> (8 - bits)) == 0;
}

[[gnu::format(printf, 3, 4)]] void append(char* out, size_t capacity, const char* format, ...) noexcept {
  const size_t length = strlen(out);
  va_list arguments;
  va_start(arguments, format);
  (void)format_line(out + length, capacity - length, format, arguments);
  va_end(arguments);
}

}  // namespace

Error add_rules(Rules* rules, const char* text) noexcept {
  for (;; text++) {
    const size_t length = strcspn(text, ";");
    char one[160];
    if (length >= sizeof one) return make_error("rule \"%.60s...\" is longer than %zu bytes", text, sizeof one - 1);
    memcpy(one, text, length);
    one[length] = '\0';
    Rule made;
    if (const Error error = read_rule(one, &made); error.text[0] != '\0') return error;
    if (rules->count == kMostRules) return make_error("more than %d rules", kMostRules);
    rules->rule[rules->count++] = made;
    text += length;
    if (*text == '\0') return {};
  }
}

void print_rule(const Rule& rule, char* out, size_t capacity) noexcept {
  out[0] = '\0';
  append(out, capacity, "%s", rule.side == Side::stack ? "stack" : "kernel");
  if (rule.protocol != 0) append(out, capacity, " %s", rule.protocol == IPPROTO_TCP ? "tcp" : "udp");
  if (rule.first_port != 0) append(out, capacity, " port=%u", rule.first_port);
  if (rule.first_port != 0 && rule.last_port != rule.first_port) append(out, capacity, "-%u", rule.last_port);
  if (rule.has_peer) {
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const bool is_v4 = rule.peer_prefix >= kMappedBits && memcmp(rule.peer, kMapped, sizeof kMapped) == 0;
    char address[INET6_ADDRSTRLEN];
    (void)inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? rule.peer + 12 : rule.peer, address, sizeof address);
    append(out, capacity, " peer=%s/%d", address, rule.peer_prefix - (is_v4 ? kMappedBits : 0));
  }
  if (rule.program[0] != '\0') append(out, capacity, " program=%s", rule.program);
}

const Rule* find_rule(const Rules& rules, const RuleQuestion& question) noexcept {
  for (const Rule& rule : rules) {
    if (matches(rule, question)) return &rule;
  }
  return nullptr;
}

bool may_be_served_by(const Rules& rules, Side side, Side by_default, int protocol, uint16_t port) noexcept {
  for (const Rule& rule : rules) {
    if (rule.has_peer) {  // whoever that is
      Rule of_all = rule;
      of_all.has_peer = false;
      if (rule.side == side && matches(of_all, {protocol, port})) return true;
    } else if (matches(rule, {protocol, port})) {
      return rule.side == side;
    }
  }
  return by_default == side;
}

void keep_rules_of(Rules* rules, const char* name, const char* other_name) noexcept {
  int kept = 0;
  for (int i = 0; i < rules->count; i++) {
    const char* const program = rules->rule[i].program;
    if (program[0] == '\0' || strcmp(program, name) == 0 || strcmp(program, other_name) == 0) rules->rule[kept++] = rules->rule[i];
  }
  rules->count = kept;
}

}  // namespace base
