// The command line DPDK gets, and the fixed way a port is set up.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/eal.h"

#include <cerrno>
#include <sched.h>

#include <rte_bus_vdev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_memory.h>

#include "base/log.h"
#include "base/shared_memory.h"
#include "base/syscall.h"

namespace netstack {
namespace {

long owner_pid = 0;

}  // namespace

namespace {

int first_allowed_cpu() noexcept {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (base::kernel_call(SYS_sched_getaffinity, 0, sizeof allowed, base::as_arg(&allowed)) <= 0) return 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &allowed)) return cpu;
  }
  return 0;
}

// Its file has been moved out of the program's sight.
int note_memory(const rte_memseg_list* list, void*) noexcept {
  const auto begin = reinterpret_cast<uintptr_t>(list->base_va);
  base::note_shared_part({begin, list->len, 0, rte_memseg_get_fd(rte_mem_virt2memseg(list->base_va, list)), true, false});
  return 0;
}

}  // namespace

// EAL's own memory holds port tables and driver state only (frames have their mapping), lies in a memfd that fork() shares, and is
// backed when it is touched. It is asked for far above 4 GiB, where EAL would put it, in the way of a growing heap of a program at
// a fixed address.
base::Result<bool> start_eal() noexcept {
  const long pid = base::kernel_call(SYS_getpid);
  if (owner_pid == pid) return true;
  if (owner_pid != 0) return base::make_error("a forked process cannot open another wire: it shares its parent's");

  static base::Error cpu = base::make_error("--lcores=0@%d", first_allowed_cpu());
  static char program[] = "zpstack", no_huge[] = "--no-huge", no_shconf[] = "--no-shconf", no_pci[] = "--no-pci", no_hpet[] = "--no-hpet",
              no_telemetry[] = "--no-telemetry", iova[] = "--iova-mode=va", simd[] = "--force-max-simd-bitwidth=128",
              megabytes[] = "-m", two[] = "2", prefix[] = "--file-prefix=zpstack", place[] = "--base-virtaddr=0x300000000000";
  static char* arguments[] = {program, cpu.text,  no_huge, no_shconf, no_pci,  no_hpet, no_telemetry, iova,
                              simd,    megabytes, two,     prefix,    place, nullptr};
  if (rte_eal_init(static_cast<int>(sizeof arguments / sizeof *arguments) - 1, arguments) < 0) {
    return base::make_error("DPDK did not start: error %d (ZPS_LOG=debug tells more)", rte_errno);
  }
  owner_pid = pid;
  (void)rte_memseg_list_walk(note_memory, nullptr);
  return true;
}

base::Result<uint16_t> start_port(const char* name, const char* arguments, FramePool* pool, uint16_t depth, uint32_t mtu) noexcept {
  int error = rte_vdev_init(name, arguments);
  uint16_t port = 0;
  if (error != 0 || rte_eth_dev_get_port_by_name(name, &port) != 0) {
    return base::make_error("DPDK cannot make the device %s,%s: error %d (ZPS_LOG=debug tells more)", name, arguments, error);
  }
  rte_eth_conf config{};
  if (error = rte_eth_dev_configure(port, 1, 1, &config); error == 0)
    error = rte_eth_rx_queue_setup(port, 0, depth, 0, nullptr, pool->mempool());
  if (error == 0) error = rte_eth_tx_queue_setup(port, 0, depth, 0, nullptr);
  if (error == 0) error = rte_eth_dev_start(port);
  if (error != 0) return base::make_error("DPDK cannot start the device %s: error %d (ZPS_LOG=debug tells more)", name, error);
  return port;
}

}  // namespace netstack
