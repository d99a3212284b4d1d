#!/bin/bash
# node: child processes, worker threads, http on loopback, files, JIT-compiled code.
# hooked: node cat echo
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
step node node "$PROGRAMS_SOURCE/sources/node.js"
step eval node -p 'process.argv.length + [1,2,3].map((x) => x * 2).join()'
step stdin node - <<<'console.log(require("os").availableParallelism() > 0)'
step uncaught sh -c 'node -e "throw new TypeError(\"thrown\")" 2>&1 | grep -c "TypeError: thrown"'
step abort sh -c 'ulimit -c 0; node --abort-on-uncaught-exception -e "process.abort()" 2>/dev/null'
rm -f file*
