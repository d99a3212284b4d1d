# What the cases with a server on the stack's own address share: sourced, not run.
# SPDX-License-Identifier: BSD-3-Clause
address=198.18.0.2
address6=fdc6:1200::2
if [ "$PROGRAMS_MODE" = native ]; then
  ip address add $address/15 dev lo
  ip address add $address6/64 dev lo nodad
fi

has() { command -v "$1" >/dev/null || { echo "no $1"; return 1; }; }
# True if the server takes TCP connections.
answers() { native bash -c ": </dev/tcp/$address/$1"; }
# Ends $server, and waits until its address is gone as well.
without_wire() { ! native ip link show zps0 >/dev/null 2>&1; }
end_server() {
  kill "$server"
  wait "$server"
  await without_wire
}
