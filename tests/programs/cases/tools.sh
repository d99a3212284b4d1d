#!/bin/bash
# tar, gzip, xz, find, sort, awk, sed, xargs, rsync, sqlite, vim, file, man, perl, bc and coreutils on a tree of files.
# hooked: tar gzip xz find sort mawk|gawk sed xargs rsync sqlite3 vim.basic|vim.tiny file man perl
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"

mkdir tree
for i in $(seq 1 60); do
  mkdir -p "tree/d$((i % 7))/e$((i % 3))"
  seq "$i" $((i * 53)) >"tree/d$((i % 7))/e$((i % 3))/f$i"
done
ln -s d1/e1 tree/link
touch -d '2001-02-03 04:05:06Z' tree
find tree -exec touch -h -d '2001-02-03 04:05:06Z' {} +
step tar tar --sort=name --owner=0 --group=0 -cf tree.tar tree
step gzip gzip -9 -n -k tree.tar
step xz xz -T2 -k tree.tar
step zstd sh -c 'tar -cf - tree | gzip -n | gunzip | tar -tf - | sort | sha256sum'
mkdir copy
step untar tar -xzf tree.tar.gz -C copy
step diff diff -r tree copy/tree
step rsync rsync -a --checksum tree/ synced/
step diff diff -r tree synced
step find find tree -name 'f*5' -size +0 -print0
step xargs sh -c 'find tree -type f -print0 | sort -z | xargs -0 -n 7 -P 3 sha256sum | sort | sha256sum'
step sort sh -c 'find tree -type f | sort | xargs cat | sort -n -S 64k --parallel=2 -T . | uniq -c | sha256sum'
step awk sh -c "find tree -type f | sort | xargs cat | awk '{ sum += \$1; n[\$1 % 10]++ } END { print sum; for (i = 0; i < 10; i++) print i, n[i] }'"
step awk-pipe awk 'BEGIN { while (("seq 1 5" | getline x) > 0) print x * x; print "b\na" | "sort"; close("sort"); system("echo from system"); }'
step sed sed -n -i.orig 's/^1\(.*\)9$/<\1>/p' tree/d1/e0/f15
step cut sh -c 'paste -d, tree/d1/e1/f1 tree/d2/e2/f2 | cut -d, -f1 | tail -3'
step split sh -c 'split -b 10000 tree.tar piece. && cat piece.* | cmp - tree.tar && rm piece.*'
step dd dd if=tree.tar of=dd.out bs=1000 count=50 status=none
step timeout timeout 0.1 sleep 10
step timeout-kill timeout -s KILL 0.1 sleep 10
step nice nice -n 5 nice
step env sh -c 'env -i A=1 env | grep -v -E "^(LD_PRELOAD|ZPS_)"'
step nohup sh -c 'nohup echo kept 2>/dev/null'
step tee sh -c 'seq 1 1000 | tee one two | sha256sum'
step tac tac one
step od sh -c 'od -c tree.tar | sha256sum'
step stdbuf stdbuf -oL echo buffered
step getent getent passwd root
step id id
step who sh -c 'ls -l / | wc -l'
step ps sh -c 'ps -o comm= -p $$'
step df sh -c 'df --output=target / | tail -1'
step watch sh -c 'mkfifo pipe; cat pipe & echo through >pipe; wait; rm pipe'
step flock sh -c 'flock lock sh -c "echo locked; flock -n lock echo twice || echo busy"'

step sqlite sqlite3 data.db "create table t(a integer primary key, b text); with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) insert into t select i, hex(i * i) from n; create index i on t(b); select count(*), sum(a), max(b) from t; pragma integrity_check;"
step sqlite-wal sqlite3 wal.db "pragma journal_mode=wal; create table t(a); begin; insert into t values(1); rollback; select count(*) from t; insert into t values(2); select a from t;"
rm -f data.db wal.db*
step vim vim.tiny -N -u NONE -i NONE -n -es -c '%s/1/one/g' -c 'w! edited' -c 'q!' tree/d3/e0/f3 </dev/null
step ex vim.tiny -e -s -u NONE -i NONE -c '1,10p' -c 'q' tree/d3/e0/f3
step file file -b tree.tar tree.tar.gz /bin/bash tree/link
step man sh -c "MANWIDTH=80 man -P cat ls | head -5"
step perl perl -e 'use strict; my @p; for my $i (1..4) { my $pid = fork // die; if (!$pid) { exit $i } push @p, $pid } for (@p) { waitpid $_, 0; print $? >> 8, "\n" }'
step perl-pipe perl -e 'open(my $in, "-|", "seq 1 1000") or die; my $s = 0; $s += $_ while <$in>; close $in; print "$s $?\n"; local $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; select(undef, undef, undef, 10); }; print $@; print `echo backtick`; printf "%s\n", join ",", sort { $a <=> $b } map { $_ * 7 % 11 } 1..10;'
step perl-socket perl -MIO::Socket::INET -e 'my $l = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die; my $port = $l->sockport; if (!fork) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $port) or die; print $c "line $_\n" for 1..1000; exit } my $s = $l->accept; my $n = 0; $n++ while <$s>; wait; print "$n $?\n";'
step perl-thread perl -MPOSIX -e 'my $m = POSIX::SigSet->new(SIGUSR1); sigprocmask(SIG_BLOCK, $m); $SIG{USR1} = sub { print "usr1\n" }; kill USR1 => $$; print "blocked\n"; sigprocmask(SIG_UNBLOCK, $m); print "done\n"; exec "/bin/echo", "exec"'
