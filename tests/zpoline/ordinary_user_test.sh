#!/bin/bash
# Modes without page 0 for a user without any privilege: the engine's tests, and Redis served over memif to a client of the same kind.
# Usage: ordinary_user_test.sh LIBZPSTACK CORE STACK PROBE_HOOK TEST...     (needs root, to become that user; exit status 77: skipped)
# SPDX-License-Identifier: BSD-3-Clause
set -u
[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || exit 77
library=$1 probe=$4
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
chmod 755 "$directory"
cp "$@" "$directory"
mkdir -m 777 "$directory/run"
shift 4
failed=0
as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs env LD_PRELOAD="$directory/$(basename "$library")")
check() { if [ "$2" = "$3" ]; then echo "ok: $1"; else echo "FAILED: $1: got '$2', want '$3'"; failed=1; fi; }

cd "$directory/run" || exit 1
for mode in nopage0 sud; do
  for test in "$@"; do
    "${as_nobody[@]}" ZPS_HOOK=$mode ZPS_LOG=error ZPS_EXPECT_HOOK=$mode ZPS_HOOK_LIBRARY="$directory/$(basename "$probe")" \
      "$directory/$(basename "$test")" >log 2>&1
    status=$?
    [ $status = 0 ] || tail -20 log
    check "$(basename "$test"), $mode" $status 0
  done
done

command -v redis-server >/dev/null && command -v redis-cli >/dev/null || exit $failed
for mode in nopage0 sud; do
  wire="memif:$directory/run/$mode.sock"
  "${as_nobody[@]}" ZPS_HOOK=$mode ZPS_LOG=warn ZPS_IP=198.18.0.2/24 ZPS_WIRE="$wire,role=server" \
    redis-server --port 6379 --save "" --protected-mode no >"redis.$mode" 2>&1 &
  server=$!
  # A line of the log is the event to wait for.
  timeout 60 bash -c 'while read -r line; do case $line in *"Ready to accept"*) exit 0;; esac; done' < <(tail -f -n +1 "redis.$mode")
  client() { "${as_nobody[@]}" ZPS_HOOK=$mode ZPS_LOG=warn ZPS_IP=198.18.0.1/24 ZPS_WIRE="$wire,role=client" timeout 60 redis-cli -h 198.18.0.2 "$@"; }
  check "redis over memif, $mode: set" "$(client set key value 2>&1)" OK
  check "redis over memif, $mode: get" "$(client get key 2>&1)" value
  kill $server
  wait $server
  check "redis over memif, $mode: end" $? 0
done
exit $failed
