// `zpstack config --explain host:port[/udp]`: which side serves that, and why.
// SPDX-License-Identifier: BSD-3-Clause
//
// The order is that of shim/files/routing.h. What a rule says of a port is meant of the local end, so the port counts where the host is the
// program's own end: all addresses, or one of the stack's. Of a name all addresses are told, and the way to the servers that are asked for
// it.
#include <arpa/inet.h>
#include <fmt/core.h>
#include <netdb.h>
#include <netinet/in.h>

#include <array>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "apps/zpstack/commands.h"
#include "apps/zpstack/error.h"
#include "base/reach.h"

namespace tool {
namespace {

using Address = std::array<uint8_t, 16>;  // IPv4's are v4-mapped

struct Place {
  std::string host;
  uint16_t port = 0;
  int protocol = IPPROTO_TCP;
};

struct Answer {
  std::string side;  // kernel, stack, both
  std::string why;
  bool operator==(const Answer&) const = default;
};

struct Line {
  std::string what;
  Answer answer;
};

Place parse_place(std::string text) {
  Place place;
  const std::string whole = text;
  const size_t slash = text.rfind('/');
  if (slash != std::string::npos) {
    const std::string protocol = text.substr(slash + 1);
    if (protocol != "udp" && protocol != "tcp") throw Failure(whole + ": the protocol is tcp or udp");
    if (protocol == "udp") place.protocol = IPPROTO_UDP;
    text.resize(slash);
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) throw Failure(whole + ": expected host:port or host:port/udp, as [fd00::1]:53/udp");
  place.host = text.substr(0, colon);
  if (place.host.size() > 1 && place.host.front() == '[' && place.host.back() == ']')
    place.host = place.host.substr(1, place.host.size() - 2);
  else if (place.host.find(':') != std::string::npos) throw Failure(whole + ": an IPv6 address goes into brackets, as [fd00::1]:53");
  const std::string port = text.substr(colon + 1);
  if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string::npos || std::stoul(port) > 65535)
    throw Failure(whole + ": " + (port.empty() ? "a port" : port) + " is no number from 0 to 65535");
  place.port = static_cast<uint16_t>(std::stoul(port));
  if (place.host.empty() || place.host == "*") place.host = "0.0.0.0";
  return place;
}

Address mapped(const void* v4) {
  Address address{};
  address[10] = address[11] = 0xff;
  memcpy(address.data() + 12, v4, 4);
  return address;
}

std::string text_of(const Address& address) {
  in6_addr v6;
  memcpy(&v6, address.data(), sizeof v6);
  char text[INET6_ADDRSTRLEN];
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return inet_ntop(AF_INET, address.data() + 12, text, sizeof text);
  return fmt::format("[{}]", inet_ntop(AF_INET6, &v6, text, sizeof text));
}

std::vector<Address> resolve(const std::string& host, bool* is_name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  *is_name = getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0;
  if (*is_name) {
    hints.ai_flags = 0;
    if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) throw Failure(host + ": " + gai_strerror(error));
  }
  std::vector<Address> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    Address address;
    if (each->ai_family == AF_INET) {
      address = mapped(&reinterpret_cast<const sockaddr_in*>(each->ai_addr)->sin_addr);
    } else {
      memcpy(address.data(), &reinterpret_cast<const sockaddr_in6*>(each->ai_addr)->sin6_addr, address.size());
    }
    addresses.push_back(address);
  }
  freeaddrinfo(found);
  return addresses;
}

// What is the kernel's whatever the rules say; nullptr: the rules are asked.
const char* never_the_stacks(const Address& address) {
  in6_addr v6;
  memcpy(&v6, address.data(), sizeof v6);
  const bool is_v4 = IN6_IS_ADDR_V4MAPPED(&v6);
  if (is_v4 ? address[12] == 127 : IN6_IS_ADDR_LOOPBACK(&v6)) return "loopback";
  if (IN6_IS_ADDR_LINKLOCAL(&v6)) return "a link-local address";
  if (is_v4 ? (address[12] & 0xf0) == 0xe0 : IN6_IS_ADDR_MULTICAST(&v6)) return "a group, which is sent to where IP_MULTICAST_IF says";
  return nullptr;
}

const char* reason_of(base::Reach reach) {
  switch (reach) {
    case base::Reach::own: return "an address of the stack's";
    case base::Reach::network: return "in a network of the stack's";
    case base::Reach::gateway: return "by the stack's gateway";
    case base::Reach::wires: return "in the networks of which the wire takes its own";
    case base::Reach::interface: return "by an interface of the kernel's: the stack's if it is the wire's";
    case base::Reach::shared: return "the kernel's own address, which the wire shares";
    case base::Reach::kernel_has: return "the kernel has a way there, from an address of the networks of which the wire takes its own";
    case base::Reach::outside: break;
  }
  return "no way of the stack's leads there";
}

class Explainer {
 public:
  Explainer(const Settings& settings, const std::string& file) : settings_(settings), file_(file) {}

  [[nodiscard]] Answer answer(const Address& address, uint16_t port, int protocol, const std::string& program) const {
    if (const char* why = never_the_stacks(address)) return {"kernel", why};
    const bool to_all = is_any(address);
    uint8_t bytes[16];
    memcpy(bytes, address.data(), sizeof bytes);
    const base::Reach reach = to_all ? base::Reach::own : base::reach_of(settings_.config, bytes);
    const bool is_own = reach == base::Reach::own || reach == base::Reach::shared;
    base::Rules rules = settings_.config.rules;
    base::keep_rules_of(&rules, program.c_str(), "");
    const base::Rule* const rule = base::find_rule(rules, {protocol, is_own ? port : uint16_t{0}, is_own ? nullptr : bytes});
    const std::string because = rule != nullptr ? describe(*rule) : by_default(protocol);
    const base::Side side = rule != nullptr ? rule->side : protocol == IPPROTO_UDP ? settings_.config.udp : base::Side::stack;
    if (to_all && base::may_be_served_by(rules, base::Side::stack, side, protocol, port) && side == base::Side::kernel &&
        protocol == IPPROTO_UDP)
      return {"both", "peers that a rule gives to the stack are the stack's; else " + because};
    if (side == base::Side::kernel) return {"kernel", because};
    if (to_all) return {"both", because.empty() ? "all addresses: the stack has its own, the kernel its own" : because};
    if (!base::is_stacks(reach)) return {"kernel", reason_of(reach)};
    return {"stack", because.empty() ? reason_of(reach) : because + "; " + reason_of(reach)};
  }

 private:
  static bool is_any(const Address& address) { return address == Address{} || address == mapped("\0\0\0\0"); }
  [[nodiscard]] std::string by_default(int protocol) const {
    if (protocol != IPPROTO_UDP) return "";
    return settings_.config.udp == base::Side::kernel ? "udp = kernel" : "udp = stack";
  }
  [[nodiscard]] std::string describe(const base::Rule& rule) const {
    char text[200];
    base::print_rule(rule, text, sizeof text);
    return fmt::format("rule \"{}\" ({})", text, rule.line != 0 ? fmt::format("{}, line {}", file_, rule.line) : "ZPS_RULES");
  }

  const Settings& settings_;
  const std::string& file_;
};

// The servers of resolv.conf(5).
std::vector<Address> name_servers(const Environment& environment) {
  const std::string other = environment.get("ZPS_TEST_RESOLV_CONF");
  std::ifstream file(other.empty() ? "/etc/resolv.conf" : other);
  std::vector<Address> found;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, host;
    bool is_name;
    if (!(words >> key >> host) || key != "nameserver") continue;
    const std::vector<Address> one = resolve(host, &is_name);
    found.insert(found.end(), one.begin(), one.end());
  }
  return found;
}

// The answer for any program, and for those that have another one.
void explain_one(const Explainer& explainer, const Settings& settings, const std::string& program, const std::string& prefix,
                 const Address& address, const Place& place, std::vector<Line>* lines) {
  const std::string what = fmt::format("{}{}:{}/{}", prefix, text_of(address), place.port, place.protocol == IPPROTO_UDP ? "udp" : "tcp");
  const Answer answer = explainer.answer(address, place.port, place.protocol, program);
  lines->push_back({what, answer});
  if (!program.empty()) return;
  std::set<std::string> others;
  for (const base::Rule& rule : settings.config.rules) {
    if (rule.program[0] != '\0') others.insert(rule.program);
  }
  for (const std::string& other : others) {
    const Answer theirs = explainer.answer(address, place.port, place.protocol, other);
    if (!(theirs == answer)) lines->push_back({what + " of " + other, theirs});
  }
}

}  // namespace

int explain(const Environment& environment, const std::string& what, const std::string& program, bool json) {
  const Settings settings = load_settings(environment);
  const std::string file = config_file(environment);
  const Place place = parse_place(what);
  const Explainer explainer(settings, file);
  bool is_name;
  std::vector<Line> lines;
  for (const Address& address : resolve(place.host, &is_name)) explain_one(explainer, settings, program, "", address, place, &lines);
  if (is_name) {
    const Place query{"", 53, IPPROTO_UDP};
    for (const Address& address : name_servers(environment))
      explain_one(explainer, settings, program, "nameserver ", address, query, &lines);
  }
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Line& line : lines) {
    if (json) out.push_back({{"what", line.what}, {"side", line.answer.side}, {"why", line.answer.why}});
    else fmt::print("{}  {}: {}\n", line.what, line.answer.side, line.answer.why);
  }
  if (json) fmt::print("{}\n", out.dump(2));
  return 0;
}

}  // namespace tool
