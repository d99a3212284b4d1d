#!/bin/bash
# Programs that shut themselves in (seccomp filters, prctl, limits), and programs that others shut in: setuid, chroot, limits.
# hooked: filters man file setpriv
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
ulimit -c 0
native gcc -O2 -o filters "$PROGRAMS_SOURCE/sources/filters.c" -lseccomp
step filters ./filters strict 'strict, broken' few 'few, broken' trap locked 'no new privileges' 'small space'
step man sh -c 'MANWIDTH=80 man -P cat true | head -4'
step file file -b -z /bin/true /usr/share/man/man1/gzip.1.gz
step groups setpriv --clear-groups --no-new-privs id -G
step space sh -c 'ulimit -v 400000; seq 1 1000 | sort -n | tail -1'
step files sh -c 'ulimit -n 16; cat /proc/self/limits | grep -c "open files *16"'
step stack sh -c 'ulimit -s 128; find /etc/passwd'
step processes bash -c 'ulimit -u 100000; (echo forked)'
step priority chrt -b 0 nice -n 3 echo batch
step affinity taskset -c 0 nproc
step chroot sh -c 'mkdir root; cp filters root/; chroot root /filters 2>/dev/null || echo "no loader there: $?"'
# A setuid program: ld.so leaves out what is not in a trusted folder, and the program runs natively.
native gcc -O2 -o whoami-really -x c - <<'END'
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("%d %d\n", (int)getuid(), (int)geteuid()); return 0; }
END
chmod 4755 whoami-really
chmod 755 "$TMPDIR" "$TMPDIR/.."
step setuid setpriv --reuid=65534 --clear-groups ./whoami-really 2>/dev/null
if [ -d /sys/fs/cgroup/memory ]; then group=/sys/fs/cgroup/memory/zps-programs-$$; limit=memory.limit_in_bytes; else group=/sys/fs/cgroup/zps-programs-$$; limit=memory.max; fi
mkdir "$group"
echo 64M >"$group/$limit"
limited() { sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$group" "$@"; }
step cgroup limited sort -S 8M -n --parallel=2 <(seq 1 100000) -o sorted
tail -1 sorted
step cgroup-killed limited python3 -c 'bytearray(200 << 20)' 2>/dev/null
rmdir "$group"
