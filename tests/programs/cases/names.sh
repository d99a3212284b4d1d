#!/bin/bash
# Name servers on the stack's own address, asked over UDP and TCP, IPv4 and IPv6, from the kernel's side of the wire. What is not installed says so.
# modes: stack
# together: yes
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
. "$PROGRAMS_SOURCE/cases/wire_lib.sh"
cd "$TMPDIR" || exit 1
export ZPS_UDP=stack

for i in $(seq 1 50); do echo "10.1.0.$i host$i.test"; done >hosts
for i in $(seq 1 50); do echo "host$i.test A"; done >questions
questions() {
  for transport in "udp -q 20" "tcp -q 1"; do  # dnsmasq ends a connection after 100
    for at in $address $address6; do
      native dnsperf -s $at -p 53 -d questions -n 1 -c 1 -m $transport | grep -E "Queries (completed|lost)|Response codes"
    done
  done
}
if has dnsperf; then
  if has dnsmasq; then
    dnsmasq --keep-in-foreground --no-resolv --no-hosts --addn-hosts="$PWD/hosts" --listen-address=$address --listen-address=$address6 \
      --bind-interfaces --user=root --pid-file= --conf-file=/dev/null --log-facility="$PWD/dnsmasq.log" & server=$!
    await answers 53
    step dnsmasq questions
    end_server
  fi
  if has unbound; then
    sed -n 's/^\([^ ]*\) \(.*\)/ local-data: "\2. A \1"/p' hosts >data
    printf '%s\n' server: " interface: $address" " interface: $address6" ' chroot: ""' ' username: ""' ' pidfile: ""' ' use-syslog: no' ' logfile: "log"' " directory: \"$PWD\"" \
      " access-control: 0.0.0.0/0 allow" " access-control: ::/0 allow" ' num-threads: 1' ' local-zone: "test." static' >unbound.conf
    cat data >>unbound.conf
    unbound -d -c unbound.conf & server=$!
    await answers 53
    step unbound questions
    end_server
  fi
fi
