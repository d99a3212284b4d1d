// `zpstack config`: what is in force and from where, as text, JSON, or the page of the manual.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "apps/zpstack/commands.h"

namespace tool {
namespace {

std::string origin_name(base::Origin origin, int key, const std::string& file) {
  switch (origin) {
    case base::Origin::file: return file;
    case base::Origin::environment: return base::config_key(key).variable;
    case base::Origin::by_default: break;
  }
  return "default";
}

void print_text(const Settings& settings, const std::string& file) {
  for (int i = 0; i < base::kConfigKeys; i++) {
    const std::string value = settings.value(i);
    fmt::print("{:<13} {:<24} {}\n", base::config_key(i).name, value.empty() ? "-" : value,
               origin_name(settings.origins[static_cast<size_t>(i)], i, file));
  }
}

void print_json(const Settings& settings, const std::string& file) {
  nlohmann::ordered_json out;
  for (int i = 0; i < base::kConfigKeys; i++) {
    out[base::config_key(i).name] = {{"value", settings.value(i)},
                                     {"from", origin_name(settings.origins[static_cast<size_t>(i)], i, file)}};
  }
  fmt::print("{}\n", out.dump(2));
}

void print_rules_page() {
  fmt::print(
      "\n## Rules\n\n"
      "A rule is a side, `kernel` or `stack`, and what it is for; what it does not name is any:\n\n"
      "| word | meaning |\n|---|---|\n"
      "| `tcp` or `udp` | the protocol |\n"
      "| `port=53`, `port=80-90` | the port of the local end; a socket that has none yet is not meant |\n"
      "| `peer=10.0.0.0/8`, `peer=fd00::1` | the network or address that is connected or sent to; a TCP listener, whose peers nobody "
      "knows, is not meant |\n"
      "| `program=nginx` | the name of the file that was executed, or of what that is a link to |\n\n"
      "The first rule that matches says the side. If none does, TCP is the stack's and UDP is as `udp` says. What is loopback's, or "
      "link-local on\n"
      "another link than the wire, and what no way of the stack's leads to, is the kernel's whatever the rules say. A socket that a rule "
      "leaves to the kernel cannot have an address of the stack's (`EADDRNOTAVAIL`).\n"
      "At most {} rules.\n",
      base::kMostRules);
}

// The manual's page shows the table, not this machine: values are the defaults.
void print_markdown() {
  fmt::print(
      "# Configuration\n\n"
      "<!-- Written by `zpstack config --markdown` from the table in base/config.cc: edit that and run scripts/update-docs. -->\n\n"
      "A setting is looked up in the environment, then in `{0}`, then it has its default. An empty variable counts as not set.\n"
      "A key that is not in this table, or a value that is not valid, is an error: one line says which, and the program does not start.\n"
      "`zpstack config` prints what is in force and from where. `zpstack run` takes each key as an option, too: `--memory-mb 64`.\n"
      "`zpstack config --explain host:port` (or `host:port/udp`) says which side serves that, and why.\n\n"
      "| in the file | variable | value | default | meaning |\n|---|---|---|---|---|\n",
      base::kConfigFile);
  const Settings defaults{};
  for (int i = 0; i < base::kConfigKeys; i++) {
    const base::ConfigKey& key = base::config_key(i);
    const std::string value = defaults.value(i);
    fmt::print("| `{}` | `{}` | {} | {} | {} |\n", key.name, key.variable, key.type, value.empty() ? "-" : "`" + value + "`", key.help);
  }
  print_rules_page();
  fmt::print(
      "\nThe file is TOML without sections:\n\n"
      "```toml\nwire = \"memif:/run/zpstack.sock,role=server\"\nip = \"198.18.7.1/24\"\nmemory_mb = 64\nhugepages = false\n"
      "rules = [\n  \"stack udp port=53\",\n  \"kernel tcp port=9100 program=node_exporter\",\n]\n```\n\n"
      "`hook`, `hook_library`, `fallback`, `log`, `inherit`, `jit` and `network` are needed before the file is read. `zpstack run` takes "
      "them from the file and\n"
      "passes them on in the environment; a bare `LD_PRELOAD=libzpstack.so` sees them only as variables.\n");
}

}  // namespace

int show_config(const Environment& environment, ConfigFormat format) {
  if (format == ConfigFormat::markdown) {
    print_markdown();
    return 0;
  }
  const Settings settings = load_settings(environment);
  const std::string file = config_file(environment);
  if (format == ConfigFormat::json) print_json(settings, file);
  else print_text(settings, file);
  return 0;
}

}  // namespace tool
