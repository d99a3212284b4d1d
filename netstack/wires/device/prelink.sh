#!/bin/sh
# Prelinks DPDK's PCI drivers into one relocatable object, and lists what they need of the DPDK that the core has.
# SPDX-License-Identifier: BSD-3-Clause
#
# usage: prelink.sh <folder of librte_*.a> <folder of redirect_common.syms> <work folder> <output.o> <output list>
#
# Their calls are redirected as those of the other drivers are (../prelink.sh). Of EAL they have a copy of one member of their own, which
# the core leaves out: what switches interrupts on and off; registrations go to the core all the same. A start after a stop has to find
# the event descriptors of the first, and virtio's driver, which a stop leaves as it was, its memory when it is set up anew. What ixgbe's
# driver would have a thread do is done at once (library.cc).
set -eu
lib=$1 redirects=$2 work=$3 out=$4 list=$5
mkdir -p "$work"

drivers="net_e1000 net_igc net_ixgbe net_i40e net_ice net_virtio net_vmxnet3 net_ena net_gve bus_pci"
libraries="common_iavf pci security cryptodev timer"

for name in $drivers $libraries eal; do
  cp "$lib/librte_$name.a" "$work/$name.a"
  chmod u+w "$work/$name.a"
done

cd "$work"
interrupts=eal_linux_eal_interrupts.c.o
ar x eal.a $interrupts
objcopy --redefine-sym eventfd=zps_device_eventfd --redefine-sym close=zps_device_close \
  --redefine-sym rte_intr_efd_enable=zps_device_efd_enable $interrupts
for name in rte_eal_intr_init rte_intr_callback_register rte_intr_callback_unregister rte_intr_callback_unregister_pending \
    rte_intr_callback_unregister_sync rte_thread_is_intr; do
  objcopy --redefine-sym $name=zps_unused_$name $interrupts
done
objcopy --redefine-syms="$redirects" $interrupts

for name in $drivers $libraries; do
  objcopy --redefine-syms="$redirects" "$name.a"
done

for name in rte_zmalloc rte_zmalloc_socket rte_free rte_memzone_free rte_memzone_reserve_aligned; do
  objcopy --redefine-sym $name=zps_device_${name#rte_} net_virtio.a
done

objcopy --redefine-sym rte_ctrl_thread_create=zps_device_run_here --redefine-sym pthread_detach=zps_device_detach net_ixgbe.a

archives() { for name in "$@"; do printf '%s.a ' "$name"; done; }
# shellcheck disable=SC2046
ld -r --wrap=rte_log -o prelinked.o $interrupts --whole-archive $(archives $drivers) --no-whole-archive --start-group $(archives $libraries) --end-group
rm -f ./*.c.o
nm -u prelinked.o | sed -nE 's/^ *U ((rte_|__rte_|__wrap_rte_|eal_|per_lcore_|zps_dpdk_|strlc).*)$/\1/p' | sort -u >needed
mv prelinked.o "$out"
mv needed "$list"
