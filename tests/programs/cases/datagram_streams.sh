#!/bin/bash
# Datagrams below and above the MTU, streams of them both ways, and a terminal, between the stack's own address and the kernel's side of the wire.
# modes: stack
# together: yes
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
. "$PROGRAMS_SOURCE/cases/wire_lib.sh"
cd "$TMPDIR" || exit 1
export ZPS_UDP=stack

if has sockperf; then
  sockperf server -i $address -p 11111 >sockperf.log & server=$!
  await grep -q block sockperf.log
  ponged() { native sockperf pp -i $address -p 11111 -t 1 -m "$1" | grep -o "dropped.*"; }
  for bytes in 14 4000; do step "sockperf $bytes" ponged $bytes; done
  end_server
fi

if has iperf3; then
  iperf3 -s >/dev/null & server=$!
  await answers 5201
  few_lost='import json, sys; s = json.load(sys.stdin)["end"]["sum"]; print(s["packets"] > 50, s["lost_packets"] * 10 < s["packets"])'
  streamed() { native iperf3 -c "$1" -u -b 2M -l 1000 -t 1 -J "${@:2}" | native python3 -c "$few_lost"; }
  step "iperf3" streamed $address
  step "iperf3 reverse" streamed $address --reverse
  step "iperf3 IPv6" streamed $address6 --bidir
  end_server
fi

if has mosh-server; then
  mosh-server new -i $address -p 60001 -- sh -c 'read word; echo "<$word>"; read word' >mosh.log 2>&1 </dev/null
  MOSH_KEY=$(sed -n 's/^MOSH CONNECT [0-9]* //p' mosh.log)
  export MOSH_KEY TERM=xterm
  typed() { (native sleep 1; echo hello; native sleep 1; echo) | native timeout 8 script -qec "stty rows 24 cols 80; mosh-client $address 60001" /dev/null; }
  shown() { typed | native grep -ao '<hello>' | native head -1; }
  step mosh shown
fi
