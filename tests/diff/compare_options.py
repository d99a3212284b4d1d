#!/usr/bin/env python3
"""Compares what socket options say natively and hooked, line by line; differences must stand in docs/differences.md.

  compare_options.py --build build/release --mode zpstack-veth [--show]

A documented difference is a line of docs/differences.md of the form  - option `<socket> <NAME>`: why  (the socket may be *).
An entry of that list that no longer differs is reported too, so that the list stays true.
"""
import argparse
import fnmatch
import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests" / "lib"))
import bed as beds  # noqa: E402


def probe(mode, build):
    """{'accepted SO_TYPE': 'get=1/4 ; ...'} of one run."""
    traces = build / "test-traces" / f"options-{mode}"
    with beds.Bed(mode, build, traces) as bed:
        control = bed.scratch / "control"
        bed.spawn_peer([bed.build / "diff_peer", control])
        beds.wait_until(control.exists, 30, "the peer's control socket")
        sut = bed.spawn_sut([bed.build / "diff_options_probe"], environment=bed.sut_environment(ZPS_TEST_CONTROL=control, ZPS_MTU=1500))
        code = sut.wait(60)
        text = bed.output("sut")
    if code != 0 or "BEGIN\n" not in text or "END\n" not in text:
        raise SystemExit(f"probe in mode {mode}: exit code {code}\n{text}")
    lines = text.split("BEGIN\n")[1].split("END\n")[0].splitlines()
    return {" ".join(line.split(" ")[:2]) + (" (unknown)" if "set-unknown" in line else ""): line for line in lines}


def documented():
    path = SOURCE / "docs" / "differences.md"
    return re.findall(r"^- option `([^`]+)`", path.read_text(), re.MULTILINE) if path.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--show", action="store_true", help="print the documented differences as well")
    options = parser.parse_args()
    native, here = probe("kernel", options.build), probe(options.mode, options.build)
    if len(native) < 150:
        raise SystemExit(f"only {len(native)} lines: the probe did not ask for everything")
    # Two native runs may differ too, in what Linux measures on the way (the CPU, the window).
    known, used, bad = documented(), set(), 0
    for key in sorted(native.keys() | here.keys()):
        if native.get(key) == here.get(key):
            continue
        patterns = [pattern for pattern in known if fnmatch.fnmatch(key, pattern)]
        used.update(patterns)
        if not patterns:
            bad += 1
        if not patterns or options.show:
            print(f"{'known' if patterns else 'DIFFERS'}\n  kernel: {native.get(key)}\n  here:   {here.get(key)}")
    for pattern in set(known) - used if options.mode != "kernel" else ():
        print(f"docs/differences.md says that `{pattern}` differs, but it does not in mode {options.mode}")
    print(f"{len(native)} lines, {bad} undocumented differences, {len(used)} documented ones skipped: {', '.join(sorted(used))}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
