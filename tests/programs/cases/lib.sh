# What the cases share: sourced, not run.
# SPDX-License-Identifier: BSD-3-Clause
set -u

# Runs a command without the hook, children included. (`env` itself is still hooked.)
native() { env -u LD_PRELOAD ZPS_HOOK=off "$@"; }

# Says what comes, runs it, and says how it ended.
step() {
  local name=$1
  shift
  echo "-- $name"
  "$@"
  local status=$?
  [ "$status" = 0 ] || echo "$name: status $status"
}

# Asks until the command succeeds, for at most ten seconds.
await() {
  local end=$((SECONDS + 10))
  until "$@" >/dev/null 2>&1; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "waited in vain: $*"
      return 1
    fi
    native sleep 0.02
  done
}

# True if somebody listens on the TCP port. (Asked of the kernel: a connection would be seen by the listener.)
listens() { native grep -q "^ *[0-9]*: [0-9A-F]*:$(printf %04X "$1") [0-9A-F:]* 0A" /proc/net/tcp /proc/net/tcp6; }
