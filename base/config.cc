// The table of settings, and how a setting gets its value: default, then file, then environment.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/config.h"

#include <arpa/inet.h>
#include <strings.h>
#include <cstdarg>
#include <cstring>

#include "base/check.h"
#include "base/config_file.h"
#include "base/config_whole.h"
#include "base/log.h"
#include "base/wire_kinds.h"

namespace base {
namespace {

// --- Values: each pair parses a text into a member (false: not a value of this type) and prints it back. ---

[[gnu::format(printf, 3, 4)]] void print(char* out, size_t capacity, const char* format, ...) noexcept {
  va_list arguments;
  va_start(arguments, format);
  (void)format_line(out, capacity, format, arguments);
  va_end(arguments);
}

bool parse_decimal(const char* text, uint64_t* out) noexcept {
  if (*text == '\0') return false;
  uint64_t value = 0;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9' || value > UINT32_MAX) return false;
    value = value * 10 + static_cast<uint64_t>(*text - '0');
  }
  *out = value;
  return true;
}

// The numbers from `Low` to `High`; `OrZero` admits 0 as "chosen by the wire" as well.
template <uint32_t Config::*Member, uint32_t Low, uint32_t High, bool OrZero>
bool parse_number(Config& config, const char* text) noexcept {
  uint64_t value;
  if (!parse_decimal(text, &value)) return false;
  if (!(OrZero && value == 0) && (value < Low || value > High)) return false;
  config.*Member = static_cast<uint32_t>(value);
  return true;
}
template <uint32_t Config::*Member, bool OrZero>
void print_number(const Config& config, char* out, size_t capacity) noexcept {
  if (OrZero && config.*Member == 0) print(out, capacity, "%s", "");
  else print(out, capacity, "%u", config.*Member);
}

template <bool Config::*Member>
bool parse_flag(Config& config, const char* text) noexcept {
  constexpr const char* kOff[] = {"0", "false", "off", "no"};
  constexpr const char* kOn[] = {"1", "true", "on", "yes"};
  for (int i = 0; i < 4; i++) {
    if (strcasecmp(text, kOff[i]) == 0) return config.*Member = false, true;
    if (strcasecmp(text, kOn[i]) == 0) return config.*Member = true, true;
  }
  return false;
}
template <bool Config::*Member>
void print_flag(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.*Member ? "1" : "0");
}

template <size_t Size, char (Config::*Member)[Size]>
void print_text(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.*Member);
}

bool copy_text(char* out, size_t capacity, const char* text) noexcept {
  const size_t length = strlen(text);
  if (length >= capacity) return false;
  memcpy(out, text, length + 1);
  return true;
}

bool parse_hook(Config& config, const char* text) noexcept {
  for (const char* mode : {"auto", "zpoline", "nopage0", "sud", "symbols", "off"}) {
    if (strcmp(text, mode) == 0) return copy_text(config.hook, sizeof config.hook, text);
  }
  return false;
}

bool parse_hook_library(Config& config, const char* text) noexcept {
  return text[0] == '/' && copy_text(config.hook_library, sizeof config.hook_library, text);
}
bool parse_network(Config& config, const char* text) noexcept {
  return is_network_name(text) && copy_text(config.network, sizeof config.network, text);
}
bool parse_wire(Config& config, const char* text) noexcept {
  return names_wire(text) && copy_text(config.wire, sizeof config.wire, text);
}

// A unicast address that a host can have; 127/8 is the kernel's.
bool parse_unicast(const char* text, uint32_t* out_be) noexcept {
  in_addr address;
  if (inet_pton(AF_INET, text, &address) != 1) return false;
  const uint32_t first = ntohl(address.s_addr) >> 24;
  if (first == 0 || first == 127 || first >= 224) return false;
  *out_be = address.s_addr;
  return true;
}

// Calls take(text) for each piece between commas, without the spaces around it; false as soon as it says so, or if there is nothing in one.
template <class Take>
bool for_each_piece(const char* text, Take take) noexcept {
  for (;; text++) {
    text += strspn(text, " ");
    const size_t length = strcspn(text, ",");
    size_t trimmed = length;
    while (trimmed > 0 && text[trimmed - 1] == ' ') trimmed--;
    char piece[64];
    if (trimmed == 0 || trimmed >= sizeof piece) return false;
    memcpy(piece, text, trimmed);
    piece[trimmed] = '\0';
    if (!take(piece)) return false;
    text += length;
    if (*text == '\0') return true;
  }
}

bool is_ip6(const char* text) noexcept { return strchr(text, ':') != nullptr; }
bool is_link_local(const uint8_t* address) noexcept { return address[0] == 0xfe && (address[1] & 0xc0) == 0x80; }

bool has_address6(const uint8_t* address) noexcept { return !IN6_IS_ADDR_UNSPECIFIED(reinterpret_cast<const in6_addr*>(address)); }

// A unicast address that a host can have: neither ::, ::1 nor a v4-mapped one.
bool parse_unicast6(const char* text, uint8_t* out) noexcept {
  in6_addr address;
  if (inet_pton(AF_INET6, text, &address) != 1) return false;
  if (IN6_IS_ADDR_UNSPECIFIED(&address) || IN6_IS_ADDR_LOOPBACK(&address) || IN6_IS_ADDR_MULTICAST(&address) ||
      IN6_IS_ADDR_V4MAPPED(&address))
    return false;
  memcpy(out, &address, sizeof address);
  return true;
}

// What may be a link-local address with its zone (RFC 4007, 11), which is the wire whatever the name; the rest is behind it.
bool parse_zoned6(const char* text, size_t length, uint8_t* out) noexcept {
  char address[INET6_ADDRSTRLEN];
  const size_t zone_at = strcspn(text, "%"), bytes = zone_at < length ? zone_at : length;
  if (bytes >= sizeof address || zone_at + 1 == length) return false;
  memcpy(address, text, bytes);
  address[bytes] = '\0';
  return parse_unicast6(address, out) && (bytes == length || is_link_local(out));
}

// One that is link-local takes the place of the one that the interface has by itself.
bool parse_ip6(Config& config, const char* text) noexcept {
  const size_t length = strcspn(text, "/");
  uint64_t prefix = 64;
  if (text[length] == '/' && (!parse_decimal(text + length + 1, &prefix) || prefix < 1 || prefix > 128)) return false;
  Ip6Setting made;
  if (!parse_zoned6(text, length, made.address)) return false;
  made.prefix = static_cast<uint8_t>(prefix);
  if (is_link_local(made.address))
    return prefix == 64 && !has_address6(config.link_local6) && memcpy(config.link_local6, made.address, sizeof made.address) != nullptr;
  for (Ip6Setting& place : config.ip6) {
    if (place.prefix != 0 && memcmp(place.address, made.address, sizeof made.address) == 0) return false;
    if (place.prefix != 0) continue;
    place = made;
    return true;
  }
  return false;
}

bool parse_ip4(Config& config, const char* text) noexcept {
  if (config.address_be != 0 || config.dhcp) return false;
  char address[INET_ADDRSTRLEN];
  const size_t length = strcspn(text, "/");
  if (length >= sizeof address) return false;
  memcpy(address, text, length);
  address[length] = '\0';
  uint64_t prefix = 24;
  if (text[length] == '/' && (!parse_decimal(text + length + 1, &prefix) || prefix < 1 || prefix > 32)) return false;
  uint32_t address_be;
  if (!parse_unicast(address, &address_be)) return false;
  const uint32_t host_mask = prefix == 32 ? 0 : UINT32_MAX >> prefix;
  const uint32_t host = ntohl(address_be) & host_mask;
  if (prefix <= 30 && (host == 0 || host == host_mask)) return false;  // the network's own and its broadcast address
  config.address_be = address_be;
  config.prefix = static_cast<uint8_t>(prefix);
  return true;
}

bool parse_ip(Config& config, const char* text) noexcept {
  Config made = config;
  made.address_be = 0, made.prefix = 24, made.autoconfigure = made.dhcp = false;
  for (Ip6Setting& place : made.ip6) place = {};
  memset(made.link_local6, 0, sizeof made.link_local6);
  const auto take = [&](const char* piece) {
    if (strcmp(piece, "dhcp") == 0) return !made.dhcp && made.address_be == 0 && (made.dhcp = true);
    if (strcmp(piece, "auto") != 0) return is_ip6(piece) ? parse_ip6(made, piece) : parse_ip4(made, piece);
    return made.autoconfigure = true;
  };
  if (!for_each_piece(text, take)) return false;
  config = made;
  return true;
}
void print_address(uint32_t address_be, char* out, size_t capacity) noexcept {
  const uint32_t a = ntohl(address_be);
  print(out, capacity, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
}
void print_ip(const Config& config, char* out, size_t capacity) noexcept {
  char all[256] = "", address[INET6_ADDRSTRLEN];
  size_t length = 0;
  const auto append = [&](const char* text, unsigned prefix) {
    print(all + length, sizeof all - length, "%s%s/%u", length > 0 ? "," : "", text, prefix);
    length += strlen(all + length);
  };
  if (config.address_be != 0) {
    print_address(config.address_be, address, sizeof address);
    append(address, config.prefix);
  }
  if (config.dhcp) print(all, sizeof all, "dhcp"), length = strlen(all);
  for (int i = 0; i < kMostIp6Settings && config.ip6[i].prefix != 0; i++)
    append(inet_ntop(AF_INET6, config.ip6[i].address, address, sizeof address), config.ip6[i].prefix);
  if (has_address6(config.link_local6)) append(inet_ntop(AF_INET6, config.link_local6, address, sizeof address), 64);
  if (config.autoconfigure) print(all + length, sizeof all - length, "%sauto", length > 0 ? "," : "");
  print(out, capacity, "%s", all);
}

bool parse_gateway(Config& config, const char* text) noexcept {
  Config made = config;
  made.gateway_be = 0;
  memset(made.gateway6, 0, sizeof made.gateway6);
  const auto take = [&](const char* piece) {
    if (is_ip6(piece)) return !has_address6(made.gateway6) && parse_zoned6(piece, strlen(piece), made.gateway6);
    return made.gateway_be == 0 && parse_unicast(piece, &made.gateway_be);
  };
  if (!for_each_piece(text, take)) return false;
  config = made;
  return true;
}
void print_gateway(const Config& config, char* out, size_t capacity) noexcept {
  char first[INET_ADDRSTRLEN] = "", second[INET6_ADDRSTRLEN] = "";
  if (config.gateway_be != 0) print_address(config.gateway_be, first, sizeof first);
  if (has_address6(config.gateway6)) (void)inet_ntop(AF_INET6, config.gateway6, second, sizeof second);
  print(out, capacity, "%s%s%s", first, first[0] != '\0' && second[0] != '\0' ? "," : "", second);
}

bool parse_fallback(Config& config, const char* text) noexcept {
  if (strcmp(text, "fail") == 0) config.fallback = Fallback::fail;
  else if (strcmp(text, "kernel") == 0) config.fallback = Fallback::kernel;
  else return false;
  return true;
}
void print_fallback(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.fallback == Fallback::kernel ? "kernel" : "fail");
}

bool parse_cpu_sleep(Config& config, const char* text) noexcept {
  if (strcmp(text, "light") != 0 && strcmp(text, "any") != 0) return false;
  config.cpu_sleep = text[0] == 'l' ? CpuSleep::light : CpuSleep::any;
  return true;
}
void print_cpu_sleep(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.cpu_sleep == CpuSleep::light ? "light" : "any");
}

bool parse_log(Config& config, const char* text) noexcept { return parse_log_level(text, &config.log); }
void print_log(const Config& config, char* out, size_t capacity) noexcept {
  constexpr const char* kNames[] = {"error", "warn", "info", "debug"};
  print(out, capacity, "%s", kNames[static_cast<int>(config.log)]);
}

bool parse_io_uring(Config& config, const char* text) noexcept {
  if (strcmp(text, "off") != 0 && strcmp(text, "kernel") != 0) return false;
  config.io_uring = text[0] == 'k';
  return true;
}
void print_io_uring(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.io_uring ? "kernel" : "off");
}

bool parse_inherit(Config& config, const char* text) noexcept {
  if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0) return false;
  config.inherit = text[0] == 'y';
  return true;
}
void print_inherit(const Config& config, char* out, size_t capacity) noexcept { print(out, capacity, "%s", config.inherit ? "yes" : "no"); }

bool parse_jit(Config& config, const char* text) noexcept {
  if (strcmp(text, "hook") != 0 && strcmp(text, "kernel") != 0) return false;
  config.jit = text[0] == 'h';
  return true;
}
void print_jit(const Config& config, char* out, size_t capacity) noexcept { print(out, capacity, "%s", config.jit ? "hook" : "kernel"); }

bool parse_udp(Config& config, const char* text) noexcept {
  if (strcmp(text, "kernel") != 0 && strcmp(text, "stack") != 0) return false;
  config.udp = text[0] == 's' ? Side::stack : Side::kernel;
  return true;
}
void print_udp(const Config& config, char* out, size_t capacity) noexcept {
  print(out, capacity, "%s", config.udp == Side::stack ? "stack" : "kernel");
}

Error append_rules(Config& config, const char* text) noexcept { return add_rules(&config.rules, text); }
bool parse_rules(Config& config, const char*) noexcept { return config.rules.count = 0, true; }  // append_rules() says the rest
void print_rules(const Config& config, char* out, size_t capacity) noexcept {
  out[0] = '\0';
  for (const Rule& rule : config.rules) {
    const size_t length = strlen(out);
    char one[160];
    print_rule(rule, one, sizeof one);
    print(out + length, capacity - length, "%s%s", length > 0 ? "; " : "", one);
  }
}

// --- The table. ---

struct Row {
  ConfigKey key;
  bool (*parse)(Config&, const char*) noexcept;
  void (*print)(const Config&, char*, size_t) noexcept;
  Error (*append)(Config&, const char*) noexcept = nullptr;  // of what may be a list: one element, behind those before it
};

constexpr Row kRows[] = {
    {{"hook", "ZPS_HOOK", "one of auto, zpoline, nopage0, sud, symbols, off",
      "how system calls are caught; auto takes the best mode the machine allows"},
     parse_hook,
     print_text<16, &Config::hook>},
    {{"hook_library", "ZPS_HOOK_LIBRARY", "absolute path", "a hook library to run on the engine in place of the stack"},
     parse_hook_library,
     print_text<256, &Config::hook_library>},
    {{"wire", "ZPS_WIRE",
      "one of veth, host[:interface], af_xdp[:interface], tap, memif:/path, vhost:/path, virtio-user:/path, af_packet:interface, "
      "device:address",
      "where frames come from and go to"},
     parse_wire,
     print_text<256, &Config::wire>},
    {{"ip", "ZPS_IP",
      "host addresses with prefix lengths, one of IPv4, up to three of IPv6 and a link-local one, as 198.18.0.2/24,fd00::2/64",
      "the stack's addresses; of a family without one the wire chooses. dhcp: IPv4's as a server says (RFC 2131); "
      "auto: and what routers of IPv6 advertise (RFC 4862). A link-local one, with or without a zone (fe80::2%eth0), is that of the wire"},
     parse_ip,
     print_ip},
    {{"gateway", "ZPS_GATEWAY", "host address, one of each family at most, as 198.18.0.1,fe80::1",
      "the stack's default routes; without one the wire chooses. The zone of a link-local one (fe80::1%eth0) is always the wire"},
     parse_gateway,
     print_gateway},
    {{"vlan", "ZPS_VLAN", "number from 1 to 4094, or 0",
      "the VLAN that the stack's frames are of (IEEE 802.1Q), on the wires device, memif, tap, vhost and virtio-user; 0: none"},
     parse_number<&Config::vlan, 1, 4094, true>,
     print_number<&Config::vlan, true>},
    {{"mtu", "ZPS_MTU", "number from 576 to 65535, or 0", "IP bytes in a frame; 0: the wire's own"},
     parse_number<&Config::mtu, 576, 65535, true>,
     print_number<&Config::mtu, true>},
    {{"frames", "ZPS_FRAMES", "number from 256 to 1048576, or 0", "frames in the pool; 0: the wire's own"},
     parse_number<&Config::frames, 256, 1048576, true>,
     print_number<&Config::frames, true>},
    {{"memory_mb", "ZPS_MEMORY_MB", "number from 16 to 65536", "the most a stack may add to the resident memory, in MB"},
     parse_number<&Config::memory_mb, 16, 65536, false>,
     print_number<&Config::memory_mb, false>},
    {{"time_wait_ms", "ZPS_TIME_WAIT_MS", "number from 1 to 240000", "how long a closed connection stays in TIME-WAIT, in milliseconds"},
     parse_number<&Config::time_wait_ms, 1, 240000, false>,
     print_number<&Config::time_wait_ms, false>},
    {{"spin_us", "ZPS_SPIN_US", "number from 0 to 1000000", "how long a wait polls before it sleeps, in microseconds"},
     parse_number<&Config::spin_us, 0, 1000000, false>,
     print_number<&Config::spin_us, false>},
    {{"cpu_sleep", "ZPS_CPU_SLEEP", "light or any",
      "how idle processors sleep while a peer on this machine is answered at once: lightly, by a request to the kernel, or as it likes"},
     parse_cpu_sleep,
     print_cpu_sleep},
    {{"patience_ms", "ZPS_PATIENCE_MS", "number from 0 to 3600000",
      "how long a forked process that a debugger or a frozen control group holds inside the stack is waited for before it is killed, "
      "in milliseconds; 0: for ever"},
     parse_number<&Config::patience_ms, 0, 3600000, false>,
     print_number<&Config::patience_ms, false>},
    {{"hugepages", "ZPS_HUGEPAGES", "0 or 1", "use huge pages when there are some"},
     parse_flag<&Config::hugepages>,
     print_flag<&Config::hugepages>},
    {{"fallback", "ZPS_FALLBACK", "fail or kernel",
      "what to do when something is missing: end with status 127, or run untouched on the kernel"},
     parse_fallback,
     print_fallback},
    {{"log", "ZPS_LOG", "one of error, warn, info, debug", "what is printed on stderr"}, parse_log, print_log},
    {{"ledger", "ZPS_LEDGER", "0 or 1", "print at exit what was served, passed on and refused"},
     parse_flag<&Config::ledger>,
     print_flag<&Config::ledger>},
    {{"io_uring", "ZPS_IO_URING", "off or kernel", "off: io_uring_setup answers ENOSYS; kernel: let it through, for files"},
     parse_io_uring,
     print_io_uring},
    {{"udp", "ZPS_UDP", "kernel or stack", "who serves UDP on the addresses of the stack's networks"}, parse_udp, print_udp},
    {{"rules", "ZPS_RULES", "rules with semicolons between them, in the file a list of them",
      "which side serves a socket: the first rule that matches says it, as \"kernel udp port=53\""},
     parse_rules,
     print_rules,
     append_rules},
    {{"network", "ZPS_NETWORK", "a name of letters, digits and . _ -", "programs of one user with this name share one stack and its ports"},
     parse_network, print_text<33, &Config::network>},
    {{"inherit", "ZPS_INHERIT", "yes or no", "whether programs that it starts run on the stack even if they are given another environment"},
     parse_inherit,
     print_inherit},
    {{"jit", "ZPS_JIT", "hook or kernel", "where system calls go that are made by code which the program makes itself"},
     parse_jit,
     print_jit},
};
static_assert(sizeof kRows / sizeof kRows[0] == kConfigKeys);

constexpr char kPrefix[] = "ZPS_";
constexpr char kTestPrefix[] = "ZPS_TEST_";

bool starts_with(const char* text, const char* prefix) noexcept { return strncmp(text, prefix, strlen(prefix)) == 0; }

// Gives a key its value, or the value of `place` in its list; `name` is what the source calls it. The error is a hint for the values that
// look right and are not.
Error set_value(Config& config, const Row& row, const char* source, const char* name, const char* text, int place) noexcept {
  if (place <= 0 && !row.parse(config, text)) return make_error("%s%s=%s is not valid: expected %s", source, name, text, row.key.type);
  if (row.append == nullptr) return {};
  const Error error = row.append(config, text);
  return error.text[0] == '\0' ? error : make_error("%s%s: %s", source, name, error.text);
}

// What the file's reader calls for each setting.
struct FileTarget {
  Config* config;
  Origin* origins;
  const char* file;
};

// The rules that came from one line know it.
void note_line(Rules* rules, int before, unsigned line) noexcept {
  for (int i = before; i < rules->count; i++) rules->rule[i].line = line;
}

Error set_from_file(void* context, const FileSetting& setting) noexcept {
  const auto& target = *static_cast<FileTarget*>(context);
  char source[100];
  print(source, sizeof source, "%s: line %u: ", target.file, setting.line);
  for (int i = 0; i < kConfigKeys; i++) {
    const Row& row = kRows[i];
    if (strcmp(row.key.name, setting.name) != 0) continue;
    if (setting.place >= 0 && row.append == nullptr)
      return make_error("%s%s is a list: expected %s", source, setting.name, row.key.type);
    if (setting.quoted && starts_with(row.key.type, "number"))
      return make_error("%s%s=\"%s\" is text: expected %s", source, setting.name, setting.value, row.key.type);
    const int rules_before = setting.place > 0 ? target.config->rules.count : 0;
    if (const Error error = set_value(*target.config, row, source, setting.name, setting.value, setting.place); error.text[0] != '\0')
      return error;
    if (row.append != nullptr) note_line(&target.config->rules, rules_before, setting.line);
    target.origins[i] = Origin::file;
    return {};
  }
  return make_error("%sunknown setting %s (`zpstack config` lists them)", source, setting.name);
}

Error set_from_environment(Config& config, Origin* origins, const char* entry) noexcept {
  const char* equals = strchr(entry, '=');
  if (equals == nullptr || starts_with(entry, kTestPrefix)) return {};
  const size_t length = static_cast<size_t>(equals - entry);
  for (int i = 0; i < kConfigKeys; i++) {
    const Row& row = kRows[i];
    if (strlen(row.key.variable) != length || strncmp(row.key.variable, entry, length) != 0) continue;
    if (equals[1] == '\0') return {};
    if (const Error error = set_value(config, row, "", row.key.variable, equals + 1, -1); error.text[0] != '\0') return error;
    origins[i] = Origin::environment;
    return {};
  }
  char name[64] = {};
  memcpy(name, entry, length < sizeof name ? length : sizeof name - 1);
  return make_error("unknown setting %s in the environment (`zpstack config` lists them)", name);
}

}  // namespace

const ConfigKey& config_key(int index) noexcept {
  CHECK(index >= 0 && index < kConfigKeys);
  return kRows[index].key;
}

void print_config_value(const Config& config, int index, char* out, size_t capacity) noexcept {
  CHECK(index >= 0 && index < kConfigKeys);
  kRows[index].print(config, out, capacity);
}

Result<Config> load_config(const char* const* environment, const char* file, Origin* origins) noexcept {
  Config config;
  Origin own_origins[kConfigKeys];
  if (origins == nullptr) origins = own_origins;
  for (int i = 0; i < kConfigKeys; i++) origins[i] = Origin::by_default;
  FileTarget target{&config, origins, file};
  Error error = read_config_file(file, &target, set_from_file);
  if (error.text[0] != '\0') return error;
  for (const char* const* entry = environment; *entry != nullptr; entry++) {
    if (!starts_with(*entry, kPrefix)) continue;
    error = set_from_environment(config, origins, *entry);
    if (error.text[0] != '\0') return error;
  }
  if (error = check_together(config); error.text[0] != '\0') return error;
  return config;
}

}  // namespace base
