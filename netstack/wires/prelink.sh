#!/bin/sh
# Prelinks the parts of DPDK that the wires use into one relocatable object, with a few of their calls redirected to ours.
# SPDX-License-Identifier: BSD-3-Clause
#
# usage: prelink.sh <folder of librte_*.a> <folder of the redirect lists> <work folder> <output.o> <list of what device drivers need>
#
# Debian's static archives are position independent. Copies of them are changed, never the originals:
#  - descriptors: whatever makes one (redirect_common.syms) calls a version of ours that moves it into the hidden range;
#  - the interrupt service (one member of EAL) is left out, interrupts.cc stands in for it;
#  - memif and tap get lists of their own (in the folders of their wires);
#  - eal_common_options.c keeps a 4 KiB thread-local buffer for directories of plugins. Static TLS of a dlmopen'ed object is
#    scarce and we have no plugins: the section's size field is written down to 8 bytes. For the same reason the member
#    with rte_strerror() and its buffer is left out, tls.cc has both of its names;
#  - pages that a program writes to cost each fork of it: ethdev's constructor, which fills 256 KB for the case that somebody polls a port
#    that is not there (with empty tables that receives nothing as well, and says nothing), and EAL's look for VFIO, which fills 560 KB, are
#    left out, and what EAL clears that is new is not touched (zps_dpdk_clear_new);
#  - rte_log goes through --wrap, since a renamed reference in the defining archive would rename the definition too.
set -eu
lib=$1 here=$2 work=$3 out=$4 needed=$5
mkdir -p "$work"

drivers="net_memif net_tap bus_vdev"
libraries="eal kvargs telemetry ring mempool mbuf net meter ethdev hash rcu gso"

for name in $drivers $libraries; do
  cp "$lib/librte_$name.a" "$work/$name.a"
  chmod u+w "$work/$name.a"
done

cd "$work"
ar d eal.a eal_linux_eal_interrupts.c.o eal_common_eal_common_errno.c.o

options=eal_common_eal_common_options.c.o
ar x eal.a $options
headers=$(readelf -hW $options | awk '/Start of section headers/{print $5}')
index=$(readelf -SW $options | sed -n 's/^ *\[ *\([0-9]*\)\] \.tbss .*/\1/p')
printf '\010\0\0\0\0\0\0\0' | dd of=$options bs=1 seek=$((headers + index * 64 + 32)) conv=notrunc status=none
ar r eal.a $options 2>/dev/null

# The interrupt handles of memif are made at any time and by any member of the family: from the shared arena, like memif's own memory.
handles=eal_common_eal_common_interrupts.c.o
ar x eal.a $handles
objcopy --redefine-syms="$here/redirect_memory.syms" $handles
ar r eal.a $handles 2>/dev/null

ports=ethdev_ethdev_private.c.o
ar x ethdev.a $ports
objcopy --remove-section .init_array --remove-section .rela.init_array $ports
ar r ethdev.a $ports 2>/dev/null

tables=eal_common_eal_common_fbarray.c.o
ar x eal.a $tables
objcopy --redefine-sym memset=zps_dpdk_clear_new $tables
ar r eal.a $tables 2>/dev/null

# Only callers outside the defining member can be told apart from the definition.
ethdev_member=$(ar t net_memif.a | grep 'rte_eth_memif\.c\.o$')
ar x net_memif.a "$ethdev_member"
objcopy --redefine-sym memif_connect_client=zps_memif_connect_client --redefine-sym memif_connect_server=zps_memif_connect_server "$ethdev_member"
ar r net_memif.a "$ethdev_member" 2>/dev/null

for name in $drivers eal telemetry; do
  objcopy --redefine-syms="$here/redirect_common.syms" $name.a
  for list in "$here"/*/redirect_"$name".syms; do
    if [ -e "$list" ]; then objcopy --redefine-syms="$list" $name.a; fi
  done
done
objcopy --redefine-syms="$here/redirect_memory.syms" net_memif.a

archives() { for name in "$@"; do printf '%s.a ' "$name"; done; }
# What is called by nobody in here is linked for the drivers of devices.
wanted=$(nm --defined-only ethdev.a eal.a net.a mempool.a mbuf.a hash.a rcu.a kvargs.a telemetry.a 2>/dev/null | sed -n 's/^[0-9a-f]* [TDBVR] //p' | grep -xFf "$needed" | sed 's/^/-u /')
# shellcheck disable=SC2046,SC2086
ld -r --wrap=rte_log --wrap=rte_vfio_enable $wanted -o prelinked.o --whole-archive $(archives $drivers) --no-whole-archive --start-group $(archives $libraries) --end-group
rm -f ./*.c.o
mv prelinked.o "$out"
