#!/usr/bin/env python3
"""Compares what socket options say natively and hooked, line by line; differences must stand in docs/differences.md.

  compare_options.py --build build/release --mode zpstack-veth [--show]

A documented difference is a line of docs/differences.md of the form  - option `<socket> <NAME>`: why  (the socket may be *).
An entry of that list that no longer differs is reported too, so that the list stays true.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import fnmatch
import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "lib"))
import bed as beds  # noqa: E402


# Every number up to these is asked for, also those that no header has a name for.
LEVELS = {"SO": (1, 100), "IP": (0, 64), "MCAST": (0, 64), "TCP": (6, 64), "IPV6": (41, 84)}


def option_list():
    """Lines '<level> <number> <name>' for the probe, with the names that the kernel's headers give."""
    headers = "".join(f"#include <{name}>\n" for name in ("asm/socket.h", "linux/tcp.h", "linux/in.h", "linux/in6.h"))
    macros = subprocess.run(["cc", "-E", "-dM", "-"], input=headers, capture_output=True, text=True, check=True).stdout
    names = {}
    for name, value in sorted(re.findall(r"^#define ((?:SO|IP|IPV6|MCAST|TCP)_\w+) (\d+)$", macros, re.MULTILINE)):
        level = LEVELS[name.split("_")[0]][0]
        if not re.search(r"PMTUDISC|_FL_|TLV|MCAST_(IN|EX)CLUDE|DEFAULT|REPAIR_O|MAXKEYLEN|PREFER_SRC|PRIORITY_", name):
            names.setdefault((level, int(value)), name.removesuffix("_OLD"))
    numbers = sorted({(level, number) for level, last in LEVELS.values() for number in range(last + 1)})
    prefixes = {level: prefix for prefix, (level, _) in reversed(LEVELS.items())}
    return "".join(f"{level} {number} {names.get((level, number), f'{prefixes[level]}_{number}')}\n" for level, number in numbers)


def probe(mode, build):
    """{'accepted SO_TYPE': 'accepted SO_TYPE ; get 4:01000000 ; ...'} of one run."""
    traces = build / "test-traces" / f"options-{mode}"
    with beds.Bed(mode, build, traces) as bed:
        control = bed.scratch / "control"
        bed.spawn_peer([bed.build / "diff_peer", control])
        beds.wait_until(control.exists, 30, "the peer's control socket")
        names = bed.scratch / "options"
        names.write_text(option_list())
        names.chmod(0o644)
        environment = bed.sut_environment(ZPS_TEST_CONTROL=control, ZPS_MTU=1500, ZPS_TEST_OPTIONS=names)
        code = bed.spawn_sut([bed.build / "diff_options_probe"], environment=environment).wait(60)
        text = bed.output("sut")
    if code != 0 or "\nBEGIN\n" not in text or "\nEND\n" not in text:
        raise SystemExit(f"probe in mode {mode}: exit code {code}\n{text}")
    said = re.findall(r"socket option (\w+) \(level \d+\) is not supported", text)
    if len(said) != len(set(said)) or (mode != "kernel" and not {"SO_ZEROCOPY", "TCP_REPAIR"} <= set(said)):
        raise SystemExit(f"what is refused is not said once per option: {said}")
    lines = text.split("\nBEGIN\n")[1].split("\nEND\n")[0].splitlines()
    return {line.split(" ; ")[0]: line for line in lines}


def documented():
    path = SOURCE / "docs" / "differences.md"
    return re.findall(r"^- option `([^`]+)`", path.read_text(), re.MULTILINE) if path.exists() else []


def difference(native, here):
    """The answers that differ, one below the other."""
    left, right = (line.split(" ; ")[1:] if line else [] for line in (native, here))
    pairs = [(a, b) for a, b in zip(left, right) if a != b] if len(left) == len(right) else [(native, here)]
    return "".join(f"    kernel: {a}\n    here:   {b}\n" for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--show", action="store_true", help="print the documented differences as well")
    options = parser.parse_args()
    native, here = probe("kernel", options.build), probe(options.mode, options.build)
    if len(native) < 4000:
        raise SystemExit(f"only {len(native)} lines: the probe did not ask for everything")
    known, used, bad = documented(), set(), 0
    for key in sorted(native.keys() | here.keys()):
        if native.get(key) == here.get(key):
            continue
        patterns = [pattern for pattern in known if fnmatch.fnmatch(key, pattern)]
        used.update(patterns)
        if not patterns:
            bad += 1
        if not patterns or options.show:
            print(f"{'known' if patterns else 'DIFFERS'} {key}\n{difference(native.get(key), here.get(key))}", end="")
    for pattern in set(known) - used if options.mode != "kernel" else ():
        print(f"docs/differences.md says that `{pattern}` differs, but it does not in mode {options.mode}")
    print(f"{len(native)} lines, {bad} undocumented differences, {len(used)} documented ones skipped: {', '.join(sorted(used))}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
