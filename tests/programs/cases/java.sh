#!/bin/bash
# java: the machine and its compiler; threads, sockets, ProcessBuilder, null checks by SIGSEGV, collectors.
# hooked: java javac dash sort
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
cd "$TMPDIR" || exit 1
step javac javac -d . "$PROGRAMS_SOURCE/sources/Program.java"
step java java -Xmx256m -cp . Program
step serial java -Xmx256m -XX:+UseSerialGC -Xint -version 2>/dev/null
step parallel java -Xmx256m -XX:+UseParallelGC -XX:TieredStopAtLevel=1 -cp . Program
