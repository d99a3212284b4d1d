// `zpstack doctor`: runs every probe, prints what it found, and says whether what is in force will work.
// SPDX-License-Identifier: BSD-3-Clause
#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "apps/zpstack/commands.h"
#include "apps/zpstack/probes/probes.h"

namespace tool {
namespace {

const char* name_of(State state) {
  constexpr const char* kNames[] = {"ok", "absent", "missing"};
  return kNames[static_cast<int>(state)];
}

std::vector<Finding> examine(const base::Config& config) {
  const Needs needs = Needs::of(config);
  std::vector<Finding> findings{
      probe_libraries(),    probe_versions(),       probe_processor(),    probe_page_zero(needs),
      probe_selinux(needs), probe_dispatch(needs),  probe_memfd(),        probe_memory(config),
      probe_hugepages(),    probe_memlock(),        probe_descriptors(),  probe_group_memory(config),
      probe_seccomp(),      probe_net_admin(needs), probe_net_raw(needs), probe_namespace(),
      probe_veth(needs),    probe_af_packet(needs), probe_tap(needs),     probe_host_wire(needs),
      probe_af_xdp(needs),  probe_interface(config, needs), probe_cpu_sleep(),
  };
  for (Finding& device : probe_devices(config)) findings.push_back(std::move(device));
  return findings;
}

bool all_there(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(), [](const Finding& f) { return f.state == State::missing; });
}

// Whether all is there for the same settings with the one wire that needs no privilege.
bool memif_would_work(base::Config config) {
  strcpy(config.wire, "memif:/path");
  return all_there(examine(config));
}

void print_text(const std::vector<Finding>& findings, const base::Config& config, bool works) {
  for (const Finding& finding : findings) {
    fmt::print("{:<8} {:<19} {}\n", name_of(finding.state), finding.what, finding.detail);
    if (finding.state != State::ok && !finding.mend.empty()) fmt::print("{:<28} mend: {}\n", "", finding.mend);
  }
  fmt::print("\nhook {}, wire {}: {}\n", config.hook, config.wire,
             works ? "will work here" : "will not work here until what is missing is mended");
  if (!works && memif_would_work(config)) fmt::print("wire memif, which needs no privilege, would: ZPS_WIRE=memif:/path/of/a/socket\n");
}

void print_json(const std::vector<Finding>& findings, const base::Config& config, bool works) {
  nlohmann::ordered_json out = {
      {"works", works}, {"hook", config.hook}, {"wire", config.wire}, {"probes", nlohmann::ordered_json::array()}};
  for (const Finding& finding : findings) {
    out["probes"].push_back(
        {{"what", finding.what}, {"state", name_of(finding.state)}, {"detail", finding.detail}, {"mend", finding.mend}});
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

int run_doctor(const Environment& environment, bool json) {
  const base::Config config = load_settings(environment).config;
  const std::vector<Finding> findings = examine(config);
  const bool works = all_there(findings);
  if (json) print_json(findings, config, works);
  else print_text(findings, config, works);
  return works ? 0 : 1;
}

}  // namespace tool
