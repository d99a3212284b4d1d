#!/bin/bash
# python3's own tests of one module (or some parts of it) on the stack's address in place of loopback's. UDP-Lite is left out, row udp-lite of
# docs/differences.md.
# modes: stack
# together: yes
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
. "$PROGRAMS_SOURCE/cases/wire_lib.sh"
export ZPS_UDP=stack
module=$1
shift
arguments=(-u network -i '*UDPLITE*')
for part; do arguments+=(-m "*$part*"); done
cd /usr/lib/python3.11/test || exit 1
mkdir -p "$TMPDIR/tests/test"
native cp -r libregrtest support __init__.py __main__.py "$module"* _test_multiprocessing.py *.pem "$TMPDIR/tests/test"
cd "$TMPDIR/tests/test" || exit 1
native find . -name '*.py' -exec sed -i "s/127\\.0\\.0\\.1/$address/g; s/\([\"'[]\)::1\([]\"'%]\)/\\1$address6\\2/g; s/^HOST = \"localhost\"/HOST = \"$address\"/" {} +
cd "$TMPDIR" || exit 1
PYTHONPATH=$TMPDIR/tests /usr/bin/python3 -m test --junit-xml=results.xml "${arguments[@]}" "$module" >log 2>&1
native python3 - <<'END'
import xml.etree.ElementTree as tree
lines = sorted(f"{case.get('name')} {case.get('result')} {' '.join(child.tag for child in case)}" for case in tree.parse("results.xml").iter("testcase"))
print(*lines, sep="\n")
END
grep -E -A25 '^(ERROR|FAIL):' log >&2
exit 0
