#!/bin/sh
# How the engine starts and fails: settings, missing privilege, missing hook, memory limits, and children it cannot be in.
# Usage: start_test.sh libzpstack.so hook.so late-library.so untabled-library.so
# SPDX-License-Identifier: BSD-3-Clause
library=$1
hook=$2
late=$3
untabled=$4
failed=0

# expect NAME STATUS PATTERN command...: the command's status, and a pattern in its output (both streams).
expect() {
  name=$1 status=$2 pattern=$3
  shift 3
  output=$("$@" 2>&1)
  got=$?
  if [ "$got" -eq "$status" ] && printf '%s\n' "$output" | grep -q -- "$pattern"; then
    echo "ok: $name"
  else
    echo "FAILED: $name: status $got (want $status), output: $output"
    failed=1
  fi
}
hooked() { env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY="$hook" "$@"; }
limited() { ( ulimit -v 300000; hooked "$@" ); }
# Without CAP_SYS_RAWIO page 0 is out of reach.
powerless() { setpriv --bounding-set=-all --inh-caps=-all --reuid=65534 --clear-groups env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY="$hook" "$@"; }

powerless_fallback() { ( ZPS_FALLBACK=kernel; export ZPS_FALLBACK; powerless "$@" ); }

expect "runs" 0 "^hi$" hooked echo hi
expect "off" 1 "^0$" hooked env ZPS_HOOK=off grep -c zpstack-hook /proc/self/maps
expect "unknown mode" 127 "^zpstack: ZPS_HOOK=frobnicate is not known" env LD_PRELOAD="$library" ZPS_HOOK=frobnicate echo hi
for mode in zpoline nopage0 sud symbols; do
  expect "says its mode, $mode" 0 "^zpstack: mode $mode: " hooked ZPS_HOOK=$mode ZPS_LOG=debug echo hi
done
expect "no hook library" 127 "^zpstack: the hook library cannot be loaded" env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY=/nonexistent.so echo hi
expect "no hook library, fallback" 0 "^hi$" env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY=/nonexistent.so ZPS_FALLBACK=kernel echo hi
expect "not a hook library" 127 "has no zps_hook_open" env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY=libm.so.6 echo hi
# Calls of code that no table describes: they trap, or one line says that they do not.
unproven() { env LD_PRELOAD="$library $untabled" ZPS_HOOK_LIBRARY="$hook" "$@"; }
expect "calls that cannot be proven" 0 "untabled-sites-start.so has 2 system calls in no function that is known: they trap$" unproven ZPS_LOG=debug echo hi
expect "the same where nothing is armed" 0 "^zpstack: .*has 2 system calls in no function that is known: they go to the kernel$" unproven ZPS_JIT=kernel echo hi
# PR_SET_MDWE, as systemd's MemoryDenyWriteExecute sets it; kernels before 6.3 have none.
denied() {
  hooked python3 -c 'import ctypes, os, sys
os.environ["ZPS_FALLBACK"] = sys.argv[1]
sys.exit(77) if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) else os.execvp(sys.argv[2], sys.argv[2:])' "$@"
}
if python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0)'; then
  expect "memory that cannot become executable" 0 "^zpstack: mode sud: " denied fail env ZPS_LOG=debug echo hi
  expect "memory that cannot become executable, zpoline asked for" 127 "^zpstack: memory cannot be made executable" \
    denied fail env ZPS_HOOK=zpoline echo hi
  expect "memory that cannot become executable, fallback" 0 "^hi$" denied kernel env ZPS_HOOK=zpoline echo hi
  python=$(python3 -c 'import sys; print(sys.executable)')  # not a script that leads to it
  loads_late() {
    hooked ZPS_LOG=debug ZPS_HOOK=nopage0 "$@" "$python" -c 'import ctypes, sys
libc = ctypes.CDLL(None)
libc.mmap(ctypes.c_void_p(0x5ee000000000), ctypes.c_size_t(4096), 3, 0x32, -1, ctypes.c_long(0))  # the library looks there (late_library.h)
libc.prctl(65, 1, 0, 0, 0)
ctypes.CDLL(sys.argv[1])' "$late"
  }
  expect "late library whose text may not be written" 0 "late-one.so cannot be rewritten (-13): its system calls trap" loads_late
  expect "the same where nothing is armed" 0 "late-one.so cannot be rewritten (-13): its system calls go to the kernel" loads_late ZPS_JIT=kernel
fi
expect "under ulimit -v" 0 "^hi$" limited echo hi
if [ "$(id -u)" = 0 ] && [ "$(cat /proc/sys/vm/mmap_min_addr)" != 0 ] && command -v setpriv >/dev/null; then
  # The library must be readable for the unprivileged user: a copy under /tmp is.
  directory=$(mktemp -d)
  chmod 755 "$directory"
  cp "$library" "$hook" "$directory"
  library=$directory/$(basename "$library")
  hook=$directory/$(basename "$hook")
  # The best mode is then one without page 0, and it says why.
  expect "no privilege" 0 "^hi$" powerless echo hi
  expect "no privilege, says so" 0 "^zpstack: no better mode: page 0 cannot be mapped" powerless ZPS_LOG=debug echo hi
  expect "no privilege, says its mode" 0 "^zpstack: mode nopage0: " powerless ZPS_LOG=debug echo hi
  expect "no privilege, sud" 0 "^zpstack: mode sud: " powerless ZPS_LOG=debug ZPS_HOOK=sud echo hi
  expect "no new privileges" 0 "^zpstack: mode nopage0: " setpriv --no-new-privs --reuid=65534 --clear-groups env LD_PRELOAD="$library" \
    ZPS_HOOK_LIBRARY="$hook" ZPS_LOG=debug echo hi
  expect "no privilege, zpoline asked for" 127 "^zpstack: page 0 cannot be mapped" powerless ZPS_HOOK=zpoline echo hi
  expect "no privilege, fallback" 0 "^hi$" powerless_fallback ZPS_HOOK=zpoline echo hi
  rm -r "$directory"
fi
exit $failed
