#!/bin/bash
# sshd and ssh with a key on loopback: remote commands, many sessions, scp, sftp, forwarding, a terminal. sshd separates privileges and
# builds the environment of its sessions itself.
# hooked: sshd ssh scp sftp sftp-server bash cat
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
mkdir -p /run/sshd
chmod 755 "$TMPDIR" "$TMPDIR/.."
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f user
cp user.pub authorized
cat >sshd_config <<END
ListenAddress 127.0.0.1:2222
HostKey $TMPDIR/host
AuthorizedKeysFile $TMPDIR/authorized
PidFile $TMPDIR/sshd.pid
StrictModes no
UsePAM no
MaxStartups 50
LogLevel ERROR
SetEnv HOME=$HOME
Subsystem sftp /usr/lib/openssh/sftp-server
END
cat >ssh_config <<END
Host server
  HostName 127.0.0.1
  Port 2222
  User root
  IdentityFile $TMPDIR/user
  IdentitiesOnly yes
  StrictHostKeyChecking no
  UserKnownHostsFile $TMPDIR/known
  LogLevel ERROR
END
/usr/sbin/sshd -f "$TMPDIR/sshd_config" -E "$TMPDIR/sshd.log"
echo "sshd $?"
await listens 2222
remote() { ssh -F ssh_config server "$@"; }
step command remote 'echo on the other side; id -un; exit 3'
step input sh -c 'seq 1 200000 | ssh -F ssh_config server "sort -rn | head -2"'
step large sh -c 'ssh -F ssh_config server "seq 1 500000" | sha256sum'
step environment remote 'env | grep -c -E "^(LD_PRELOAD|SHELL)"' </dev/null >count
step terminal sh -c "ssh -tt -F ssh_config server 'stty size; tty | sed s/[0-9]//g; exit 4' </dev/null | tr -d '\r'"
for i in $(seq 1 12); do remote "echo session $i" >"session$i" & sessions[i]=$!; done
for i in $(seq 1 12); do wait "${sessions[i]}" || echo "session $i: $?"; done
cat session? session??
seq 1 300000 >original
step scp scp -q -F ssh_config original "server:$TMPDIR/sent"
step scp-back scp -q -F ssh_config "server:$TMPDIR/sent" returned
cmp original returned && echo same
step sftp sh -c "printf 'put original $TMPDIR/by-sftp\nls $TMPDIR/by-sftp\nrm $TMPDIR/by-sftp\n' | sftp -q -F ssh_config -b - server"
ssh -F ssh_config -N -L 127.0.0.1:3333:127.0.0.1:2222 server & forward=$!
await listens 3333
step forwarded ssh -F ssh_config -p 3333 server echo through a tunnel
kill $forward
wait $forward
echo "forward $?"
ssh -F ssh_config -o ControlMaster=yes -o ControlPath="$TMPDIR/master" -N -f server
for i in 1 2 3; do ssh -F ssh_config -o ControlPath="$TMPDIR/master" server echo "shared $i"; done
ssh -F ssh_config -o ControlPath="$TMPDIR/master" -O exit server 2>&1
kill -HUP "$(cat sshd.pid)"
await listens 2222
step again remote echo after a restart
kill "$(cat sshd.pid)"
gone() { ! listens 2222; }
await gone
cat sshd.log
