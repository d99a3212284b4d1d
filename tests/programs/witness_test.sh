#!/bin/sh
# The witness tells of calls that nobody has rewritten, in each thread, and of no others.
# Usage: witness_test.sh libzpstack.so witness-hook.so untabled-test
# SPDX-License-Identifier: BSD-3-Clause
library=$1
hook=$2
program=$3
marks=$(mktemp)
trap 'rm -f "$marks"' EXIT
watched() { env LD_PRELOAD="$library" ZPS_HOOK_LIBRARY="$hook" ZPS_WITNESS="$marks" ZPS_LOG=error "$@"; }
fail() {
  echo "FAILED: $1; the witness says:"
  cat "$marks"
  exit 1
}

watched "$program" --gtest_filter=-*Untabled* || fail "a program of proven calls"
[ "$(wc -l <"$marks")" = 1 ] || fail "more than the program's path"
: >"$marks"
# Nothing is armed but what the witness arms.
watched ZPS_JIT=kernel "$program" --gtest_filter=Untabled.AtStart || fail "unproven calls at start"
grep -q "^escaped .* 39 0x[0-9a-f]* .*/libzpstack-test-untabled-sites-start.so$" "$marks" || fail "no word of getpid"
grep -q "^escaped .* 110 0x[0-9a-f]* .*/libzpstack-test-untabled-sites-start.so$" "$marks" || fail "no word of getppid"
: >"$marks"
watched ZPS_JIT=kernel "$program" --gtest_filter=Untabled.InOtherThreads || fail "unproven calls of another thread"
grep -q "^escaped " "$marks" || fail "no word of another thread"
: >"$marks"
watched ZPS_JIT=kernel "$program" --gtest_filter=Untabled.Late* || fail "unproven calls of a late library"
grep -q "^escaped .*/libzpstack-test-untabled-sites-late.so$" "$marks" || fail "no word of a late library"
