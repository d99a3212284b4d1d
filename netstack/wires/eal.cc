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
#include "netstack/wires/redirected.h"

namespace netstack {
namespace {

long owner_pid = 0;
bool owner_took_device = false;

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
// a fixed address. What a device has access to, all of it and pinned, is below 2^39: small IOMMUs know no higher addresses.
base::Result<bool> start_eal(const char* device, const char* interrupts) noexcept {
  const long pid = base::kernel_call(SYS_getpid);
  if (owner_pid == pid && device == nullptr && !owner_took_device) return true;
  if (owner_pid == pid) return base::make_error("a process that has a wire of DPDK's cannot open a device too, nor a second one");
  if (owner_pid != 0) return base::make_error("a forked process cannot open another wire: it shares its parent's");

  static base::Error cpu = base::make_error("--lcores=0@%d", first_allowed_cpu());
  static char program[] = "zpstack", no_huge[] = "--no-huge", no_shconf[] = "--no-shconf", no_hpet[] = "--no-hpet",
              no_telemetry[] = "--no-telemetry", iova[] = "--iova-mode=va", simd[] = "--force-max-simd-bitwidth=128",
              prefix[] = "--file-prefix=zpstack", no_pci[] = "--no-pci", little[] = "-m2", place[] = "--base-virtaddr=0x300000000000",
              more[] = "-m8", low_place[] = "--base-virtaddr=0x4000000000";
  static base::Error allow = base::make_error("--allow=%s", device != nullptr ? device : "");
  static base::Error kind = base::make_error("--vfio-intr=%s", interrupts);
  char* with_device[] = {program, cpu.text, no_huge,    no_shconf, no_hpet,   no_telemetry, iova,
                         simd,    prefix,   allow.text, more,      low_place, kind.text,    nullptr};
  char* without[] = {program, cpu.text, no_huge, no_shconf, no_hpet, no_telemetry, iova, simd, prefix, no_pci, little, place, nullptr};
  const bool takes = device != nullptr;
  char** const arguments = takes ? with_device : without;
  int count = 0;
  while (arguments[count] != nullptr) count++;
  if (takes) let_vfio_in();
  if (rte_eal_init(count, arguments) < 0) {
    return base::make_error("DPDK did not start: error %d (ZPS_LOG=debug tells more)", rte_errno);
  }
  owner_pid = pid;
  owner_took_device = takes;
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
