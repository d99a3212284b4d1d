#!/bin/bash
# python3's own tests of one module (or some parts of it), as `python3 -m test` runs them; what each of them says is compared.
# hooked: python3.11
# together: yes
# Left out always: test_stress_modifying_handlers, which asserts that fewer signals are received than were sent while their handler is switched to
# SIG_IGN and back; how many fall into which half is chance, and none need.
# Left out unless PROGRAMS_FULL=1: tests that spend seconds in waiting for a timeout, and vsock, whose ports all namespaces share.
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"
module=$1
shift  # what is left: the parts of the module to run
declare -A slow=(
  [test_signal]='test_siginterrupt_off test_itimer_virtual test_itimer_prof'
  [test_subprocess]='test_check_output_timeout test_umask ProcessTestCaseNoPoll'
  [test_socket]='*VSOCK* NetworkConnectionBehaviourTest test_sendall_interrupted_with_timeout testInterruptedTimeout'
)
arguments=(-i test_stress_modifying_handlers)
for part; do arguments+=(-m "*$part*"); done
if [ "${PROGRAMS_FULL:-0}" = 0 ]; then
  set -f
  for name in ${slow[$module]:-}; do arguments+=(-i "$name"); done
  set +f
fi
cd "$TMPDIR" || exit 1
/usr/bin/python3 -m test --junit-xml=results.xml "${arguments[@]}" "$module" >log 2>&1
echo "status $?"
native python3 - <<'END'
import xml.etree.ElementTree as tree
lines = sorted(f"{case.get('name')} {case.get('status')} {case.get('result')} {' '.join(child.tag for child in case)}" for case in tree.parse("results.xml").iter("testcase"))
print(*lines, sep="\n")
END
grep -E -A25 '^(ERROR|FAIL):' log >&2
exit 0
