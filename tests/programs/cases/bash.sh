#!/bin/bash
# bash: pipes, job control, traps, subshells, here-documents, coprocesses, process substitution.
# hooked: bash cat sort tr seq
# SPDX-License-Identifier: BSD-3-Clause
. "$PROGRAMS_SOURCE/cases/lib.sh"

echo "-- pipes"
seq 1 20000 | tr 1 2 | sort -u | sha256sum
seq 1 100000 | head -1
echo "${PIPESTATUS[@]}"
yes | head -c 1000000 | wc -c
printf '%s\n' a b c | while read -r word; do echo "<$word>"; done | cat
set -o pipefail
false | true
echo "pipefail $?"

echo "-- subshells"
value=outer
(value=inner; echo "$value"; exit 3)
echo "$value $?"
result=$(echo one; (echo two; (echo three)); exit 4)
echo "$result $?"
{ echo to stderr >&2; } 2>&1 | tr a-z A-Z

echo "-- here-documents"
cat <<END | tr a b
banana $((6 * 7))
END
cat <<'END'
$not expanded
END
cat <<<"here string"

echo "-- process substitution"
diff <(seq 1 5) <(seq 2 6)
seq 1 10 | tee >(cat >tee.copy) >/dev/null
await test -s tee.copy
while read -r line; do total=$((${total:-0} + line)); done < <(seq 1 100)
echo "$total"

echo "-- coprocess"
coproc UPPER { while read -r line; do echo "${line^^}"; done; }
upper=$UPPER_PID
for word in alpha beta gamma; do
  echo "$word" >&"${UPPER[1]}"
  read -r answer <&"${UPPER[0]}"
  echo "$answer"
done
exec {UPPER[1]}>&-
wait "$upper"
echo "coproc $?"

echo "-- traps"
trap 'echo "got USR1"' USR1
kill -USR1 $$
trap 'children=$((${children:-0} + 1))' CHLD
(exit 5)
wait
trap - CHLD
echo "child trap $((children > 0))"
( trap 'echo leaving' EXIT; trap 'echo terminated; exit 9' TERM; kill -TERM $BASHPID; echo unreachable )
echo "trapped $?"
trap 'echo "error at $?"' ERR
false
trap - ERR
bash -c 'kill -SEGV $$' 2>/dev/null
echo "killed $?"
bash -c 'trap "" TERM; kill -TERM $$; echo survived'
(sleep 60) & sleeper=$!
kill $sleeper
wait $sleeper
echo "waited $?"

echo "-- jobs"
set -m
{
  sleep 60 & sleeper=$!
  jobs | tr -s ' '
  kill -STOP %1
  until [[ $(jobs) == *Stopped* ]]; do :; done
  jobs | tr -s ' '
  kill -CONT %1
  kill %1
  wait $sleeper 2>/dev/null
  echo "job $?"
} 2>/dev/null  # when a job is reported as ended is a matter of chance
for i in 1 2 3 4 5 6 7 8; do (exit "$i") & pids[i]=$!; done
for i in 1 2 3 4 5 6 7 8; do wait "${pids[i]}"; printf '%s ' $?; done
echo
set +m
for i in 1 2 3; do (exit $((i + 10))) & done
wait -n
case $? in 11 | 12 | 13) echo "one of them" ;; *) echo "none of them: $?" ;; esac
wait

echo "-- redirections and descriptors"
exec 7>seven.txt
echo seven >&7
exec 7>&-
echo more >>seven.txt
{ cat; } <seven.txt
exec 8<>both.txt
echo both >&8
exec 8>&-
(echo x >&9) 2>/dev/null || echo "9 is closed"
mkfifo silent
read -r -t 0.05 nothing <>silent
echo "read $?"

echo "-- many children"
count=0
for i in $(seq 1 200); do [ "$(echo "$i")" = "$i" ] && count=$((count + 1)); done
echo "$count"
(ulimit -n 20; cat /dev/null && echo "few descriptors")
(ulimit -u unlimited; ulimit -c 0; ulimit -t 1; while :; do :; done) 2>/dev/null
echo "cpu limit $?"
