#!/bin/bash
# Programs built in every way: Rust, Go with and without cgo, musl, static, static-pie, no-pie, 32 bits, without libc, stripped, CET.
# hooked: rust go-dynamic plain plain-pie stripped cet tr
# untabled: bare
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
sources=$PROGRAMS_SOURCE/sources
export GOCACHE=$PROGRAMS_BUILD/go-cache GO111MODULE=off
native /usr/bin/rustc -O -o rust "$sources/threads.rs"
native env CGO_ENABLED=1 go build -o go-dynamic "$sources/threads.go"
native env CGO_ENABLED=0 go build -o go-static "$sources/threads.go"
native gcc -O2 -no-pie -o plain "$sources/plain.c"
native gcc -O2 -pie -fPIE -o plain-pie "$sources/plain.c"
native gcc -O2 -static -o static "$sources/plain.c"
native gcc -O2 -static-pie -o static-pie "$sources/plain.c"
native gcc -O2 -m32 -o thirty-two "$sources/plain.c"
native gcc -O2 -m32 -static -o thirty-two-static "$sources/plain.c"
native musl-gcc -O2 -o musl-static -static "$sources/plain.c"
native gcc -O2 -s -o stripped "$sources/plain.c"
native gcc -O2 -fcf-protection=full -o cet "$sources/plain.c"
native gcc -nostdlib -static -o bare-static "$sources/bare.S"
native gcc -nostdlib -pie -o bare "$sources/bare.S"
for program in rust go-dynamic go-static plain plain-pie static static-pie musl-static stripped cet bare-static bare; do
  step $program ./$program
done
# The 32-bit loader says in one line that it leaves a 64-bit library out.
for program in thirty-two thirty-two-static; do
  ./$program 2>complaints
  echo "$program $?"
  grep -v 'libzpstack.so.*wrong ELF class' complaints || true
done
