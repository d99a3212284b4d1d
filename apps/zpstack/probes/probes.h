// The prerequisites, each as a probe: what it found and how to mend it.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "apps/zpstack/settings.h"

namespace tool {

enum class State {
  ok,
  absent,   // not there, and what is in force does without
  missing,  // not there, and what is in force will not work
};

struct Finding {
  std::string what;
  State state;
  std::string detail;
  std::string mend;  // empty when there is nothing to do
};

// What the settings in force ask of the machine.
struct Needs {
  bool page_zero;  // the hook mode rewrites to calls through page 0
  bool page_zero_is_wanted;  // it does without if it must
  bool dispatch;
  bool veth, tap, packet;
  bool host, xdp, interface;

  static Needs of(const base::Config& config);
};

// machine_probes.cc
Finding probe_libraries();
Finding probe_versions();
Finding probe_processor();
Finding probe_page_zero(const Needs& needs);
Finding probe_selinux(const Needs& needs);
Finding probe_dispatch(const Needs& needs);
Finding probe_memfd();
Finding probe_memory(const base::Config& config);
Finding probe_hugepages();
Finding probe_cpu_sleep();
Finding probe_memlock();

// limit_probes.cc
Finding probe_descriptors();
Finding probe_group_memory(const base::Config& config);
Finding probe_seccomp();

// network_probes.cc
Finding probe_net_admin(const Needs& needs);
Finding probe_net_raw(const Needs& needs);
Finding probe_namespace();
Finding probe_veth(const Needs& needs);
Finding probe_af_packet(const Needs& needs);
Finding probe_tap(const Needs& needs);

// sharing_probes.cc
Finding probe_host_wire(const Needs& needs);
Finding probe_af_xdp(const Needs& needs);
Finding probe_interface(const base::Config& config, const Needs& needs);

// device_probes.cc: one for each network card on the PCI bus.
std::vector<Finding> probe_devices(const base::Config& config);

// Helpers that these files use.
bool has_capability(int number);  // in the effective set
std::string first_line(const std::string& file);
// `state` of something that is not there.
inline State lack(bool needed) { return needed ? State::missing : State::absent; }
// How to get `capability`, given as "net_admin".
std::string mend_capability(const std::string& capability);

}  // namespace tool
