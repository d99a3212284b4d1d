#!/bin/bash
# Programs executed in every way, and under limits: hooked, or cleanly native where documented (static programs).
# Usage: exec_test.sh libzpstack.so hook.so static-program
# SPDX-License-Identifier: BSD-3-Clause
library=$1
hook=$2
static=$3
failed=0
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

expect() {
  name=$1 wanted=$2
  shift 2
  got=$("$@" 2>&1)
  if [ "$got" = "$wanted" ]; then
    echo "ok: $name"
  else
    echo "FAILED: $name: got '$got', want '$wanted'"
    failed=1
  fi
}
hooked() { env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY="$hook" ZPS_LOG=error "$@"; }
# Prints hooked or native: whether libzpstack.so is in the memory of the program that looks.
look='grep -q libzpstack.so /proc/self/maps && echo hooked || echo native'

printf '#!/bin/sh\n%s\n' "$look" >"$scratch/script"
chmod +x "$scratch/script"
expect "a script" hooked hooked "$scratch/script"
expect "a script's script" hooked hooked sh -c "'$scratch/script'"
expect "without an environment" hooked hooked env -i /bin/sh -c "$look"
expect "with LD_PRELOAD cleared" hooked hooked sh -c "LD_PRELOAD= sh -c '$look'"
expect "switched off" native hooked env ZPS_HOOK=off sh -c 'grep -q "$(basename "$0")" /proc/self/maps && echo hooked || echo native' "$hook"
expect "fexecve" hooked hooked python3 -c "
import os
os.execve(os.open('/bin/sh', os.O_RDONLY), ['sh', '-c', '''$look'''], {})"
expect "execveat with an empty path" hooked hooked python3 -c "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
arguments = (ctypes.c_char_p * 4)(b'sh', b'-c', b'''$look''', None)
libc.syscall(322, os.open('/bin/sh', os.O_RDONLY), b'', arguments, (ctypes.c_char_p * 1)(None), 0x1000)"
expect "another real user" "zpstack: a program is executed with another real user or group than its effective one: it runs without the stack
native" env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY="$hook" ZPS_LOG=warn python3 -c "
import os
os.setresuid(65534, 0, 0)
for path in ('/nowhere/sh', '/bin/sh'):
    try:
        os.execv(path, ['sh', '-c', '''$look'''])
    except OSError:
        pass"
expect "another real user, and itself again" "hooked 65534 0 None" hooked python3 -S -c "
import os, sys
os.setresuid(65534, 0, 0)
os.execve(sys.executable, ['python3', '-S', '-c', '''
import os
print('hooked' if 'libzpstack.so' in open('/proc/self/maps').read() else 'native', os.getuid(), os.geteuid(), os.environ.get('LD_LIBRARY_PATH'))'''],
          {'LD_LIBRARY_PATH': '/nowhere', 'LD_PRELOAD': '/nowhere/libzpstack.so', 'ZPS_HOOK_LIBRARY': '/nowhere/hook.so', 'PYTHONHOME': sys.prefix})"
expect "a static program" "static: 42" hooked "$static"
expect "a static program's child" hooked hooked "$static" /bin/sh -c "$look"
expect "a static program, left alone" native hooked "$static" look
reached() { hooked env ZPS_PROGRAM= env "$@"; }
expect "a static program on the stack" hooked reached "$static" look
expect "its child" hooked reached "$static" /bin/sh -c "$look"
expect "its static child" hooked reached "$static" "$static" look
expect "itself again" hooked reached "$static" /proc/self/exe look
expect "its own name" "$(readlink -f "$static")" reached "$static" name
expect "by one that a filter would kill for a look" executed reached python3 -S -c "
import ctypes, os, struct
fgetxattr = ((0x20, 0, 0, 0), (0x15, 0, 1, 193), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000))
code = b''.join(struct.pack('HBBI', *step) for step in fgetxattr)
libc = ctypes.CDLL(None)
filter = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.cast(code, ctypes.c_void_p).value))
libc.prctl(38, 1, 0, 0, 0)
libc.prctl(22, 2, filter)
os.execv('/bin/echo', ['echo', 'executed'])"
expect "a static program of a shell" hooked reached sh -c "PATH=/nowhere; exec '$static' look"
expect "by its descriptor" hooked reached python3 -c "
import os
os.execve(os.open('$static', os.O_RDONLY), ['static', 'look'], {})"
expect "a static program that may not be executed" "sh: 1: $scratch/closed: Permission denied" reached sh -c "cp '$static' '$scratch/closed'; chmod 644 '$scratch/closed'; '$scratch/closed' look"
expect "a static program with rights of its own" native reached sh -c "cp '$static' '$scratch/setuid'; chmod u+s '$scratch/setuid'; '$scratch/setuid' look"
expect "a file that is no program" "sh: 1: /etc/passwd: Permission denied" hooked sh -c /etc/passwd
expect "address space of 200 MB" hooked bash -c "ulimit -v 200000; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"
expect "data of 20 MB" hooked bash -c "ulimit -d 20000; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"
expect "a stack of 128 KB" hooked bash -c "ulimit -s 128; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"
expect "16 descriptors" hooked bash -c "ulimit -n 16; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"
expect "no core, no locked memory" hooked bash -c "ulimit -c 0 -l 0; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"

# A memory cgroup of 16 MB, where the system has that controller.
group=/sys/fs/cgroup/memory/zpstack-test-$$
if [ -d /sys/fs/cgroup/memory ] && mkdir "$group" 2>/dev/null; then
  echo 16M >"$group/memory.limit_in_bytes"
  expect "a cgroup of 16 MB" hooked bash -c "echo \$\$ >$group/cgroup.procs; LD_PRELOAD='$library' ZPS_HOOK_LIBRARY='$hook' sh -c '$look'"
  rmdir "$group"
fi
exit $failed
