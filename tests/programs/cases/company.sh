#!/bin/bash
# What looks at programs: strace, gdb (break, backtrace through a hooked call, attach, detach), gcore, perf, core files. The tools run natively,
# the programs they look at hooked.
# hooked: debugged bash
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
native gcc -g -O1 -fno-optimize-sibling-calls -o debugged "$PROGRAMS_SOURCE/sources/debugged.c"
hook=(env ${LD_PRELOAD:+"LD_PRELOAD=$LD_PRELOAD"} ${ZPS_HOOK_LIBRARY:+"ZPS_HOOK_LIBRARY=$ZPS_HOOK_LIBRARY"} ${ZPS_WITNESS:+"ZPS_WITNESS=$ZPS_WITNESS"})
debug() { native gdb -q -nx -batch -iex 'set debuginfod enabled off' -iex 'set print thread-events off' -ex "set exec-wrapper ${hook[*]}" "$@" 2>&1; }

echo "-- strace"
native strace -f -o trace -E "LD_PRELOAD=${LD_PRELOAD:-}" -E "ZPS_HOOK_LIBRARY=${ZPS_HOOK_LIBRARY:-}" -E ZPS_HOOK=auto ./debugged
echo "status $?"
grep -c 'write(1, "round\\n", 6) = 6' trace
native strace -f -c -o summary -E "LD_PRELOAD=${LD_PRELOAD:-}" -E ZPS_HOOK=auto bash -c 'echo traced | cat; exit 6'
echo "status $?"
strace -e trace=write -o own-trace sh -c 'echo both hooked'
echo "status $? $(grep -c 'both hooked' own-trace)"

echo "-- gdb"
debug -ex 'break stop_here if round == 2' -ex run -ex bt -ex 'print round' -ex finish -ex 'info threads' -ex continue ./debugged |
  grep -E '^#[0-9]|^\$|Value|exited' | sed 's/0x[0-9a-f]*/ADDRESS/g; s/process [0-9]*/process PID/'
debug -ex 'break write' -ex run -ex 'bt -2' -ex 'delete' -ex continue ./debugged | grep -E 'main|exited' | sed 's/0x[0-9a-f]*/ADDRESS/g; s/process [0-9]*/process PID/'
debug -ex 'catch signal SIGSEGV' -ex 'run crash' -ex bt -ex 'print $_siginfo._sifields._sigfault.si_addr' ./debugged | grep -E '^#|^\$' | sed 's/0x[0-9a-f]\{3,\}/ADDRESS/g'

echo "-- attach"
mkfifo input
./debugged wait <input >output & program=$!
exec 5>input
waits() { [ "$(grep -c round output 2>/dev/null)" = 3 ] && native grep -q '^State:.S' "/proc/$program/status"; }
await waits
native gdb -q -nx -batch -iex 'set debuginfod enabled off' -p "$program" -ex 'thread apply all bt' -ex 'print sum' -ex detach >attached 2>&1
grep -c -E 'in (main|wait_for_input) ' attached
grep '^\$' attached
native gcore -o core "$program" >/dev/null 2>&1
echo "gcore $?"
native gdb -q -nx -batch -iex 'set debuginfod enabled off' ./debugged "core.$program" -ex 'thread apply all bt' -ex 'frame function main' -ex 'print sum' >from-core 2>&1
grep -c -E 'in (main|wait_for_input) ' from-core
grep '^\$' from-core
native strace -f -q -o attached-trace -p "$program" & tracer=$!
traced() { native grep -q 'TracerPid:.[1-9]' "/proc/$program/status"; }
await traced
echo "a line" >&5
exec 5>&-
wait "$program"
echo "status $?"
wait $tracer
grep -c 'sum 6 1' attached-trace
cat output

echo "-- perf"
native perf record -q -e cpu-clock -g -o perf.data -- "${hook[@]}" ZPS_HOOK=auto bash -c 'for ((i = 0; i < 200000; i++)); do :; done; echo profiled' 2>perf.err
echo "status $?"
native perf report -i perf.data --stdio --no-children --comm bash --sort symbol 2>/dev/null | grep -c -m1 execute_command

echo "-- core"
ulimit -c 0
bash -c "$TMPDIR/debugged crash" >/dev/null 2>&1
echo "status $?"
native env LD_DEBUG=statistics ${LD_PRELOAD:+"LD_PRELOAD=$LD_PRELOAD"} ZPS_HOOK=auto true 2>&1 | grep -c 'runtime linker statistics'
LD_BIND_NOW=1 step bind-now seq 2 3
LD_DEBUG=files step nothing true 2>/dev/null
native gcc -shared -fPIC -o audit.so -x c - <<'END'
#define _GNU_SOURCE
#include <link.h>
unsigned la_version(unsigned version) { return version; }
END
LD_AUDIT=$PWD/audit.so step audit seq 1 2
LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD:}$PWD/audit.so" step second-preload seq 1 2
