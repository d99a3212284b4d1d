// The bpf(2) calls.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/bpf.h"

#include <cstring>

#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint32_t kTcxIngress = 46;  // BPF_TCX_INGRESS of Linux 6.6

int make(int command, bpf_attr& attributes) noexcept {
  return base::move_fd_high(static_cast<int>(kernel_call(SYS_bpf, command, as_arg(&attributes), sizeof attributes)));
}

}  // namespace

int make_bpf_map(uint32_t type, uint32_t key_bytes, uint32_t value_bytes, uint32_t entries, uint32_t flags) noexcept {
  bpf_attr attributes{};
  attributes.map_type = type;
  attributes.key_size = key_bytes;
  attributes.value_size = value_bytes;
  attributes.max_entries = entries;
  attributes.map_flags = flags;
  return make(BPF_MAP_CREATE, attributes);
}

int link_to_ingress(int program, int interface) noexcept {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = static_cast<uint32_t>(interface);
  attributes.link_create.attach_type = kTcxIngress;
  return make(BPF_LINK_CREATE, attributes);
}

int link_to_xdp(int program, int interface, uint32_t flags) noexcept {
  bpf_attr attributes{};
  attributes.link_create.prog_fd = static_cast<uint32_t>(program);
  attributes.link_create.target_ifindex = static_cast<uint32_t>(interface);
  attributes.link_create.attach_type = BPF_XDP;
  attributes.link_create.flags = flags;
  return make(BPF_LINK_CREATE, attributes);
}

long set_map_entry(int map, uint32_t key, uint32_t value) noexcept {
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = reinterpret_cast<uint64_t>(&key);
  attributes.value = reinterpret_cast<uint64_t>(&value);
  return kernel_call(SYS_bpf, BPF_MAP_UPDATE_ELEM, as_arg(&attributes), sizeof attributes);
}

void program_name(uint32_t id, char* out) noexcept {
  *out = '\0';
  bpf_attr attributes{};
  attributes.prog_id = id;
  const int program = make(BPF_PROG_GET_FD_BY_ID, attributes);
  if (program < 0) return;
  bpf_prog_info info{};
  attributes = {};
  attributes.info.bpf_fd = static_cast<uint32_t>(program);
  attributes.info.info_len = sizeof info;
  attributes.info.info = reinterpret_cast<uint64_t>(&info);
  if (kernel_call(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, as_arg(&attributes), sizeof attributes) == 0) memcpy(out, info.name, BPF_OBJ_NAME_LEN);
  (void)base::close_high_fd(program);
}

int BpfCode::load(uint32_t type, uint32_t flags) const noexcept {
  bpf_attr attributes{};
  attributes.prog_flags = flags;
  memcpy(attributes.prog_name, kOwnProgram, sizeof kOwnProgram);
  attributes.prog_type = type;
  attributes.insns = reinterpret_cast<uint64_t>(code_);
  attributes.insn_cnt = static_cast<uint32_t>(count_);
  attributes.license = reinterpret_cast<uint64_t>("BSD");
  return make(BPF_PROG_LOAD, attributes);
}

}  // namespace netstack
