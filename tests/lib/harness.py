#!/usr/bin/env python3
"""Runs a differential test program case by case, each in network namespaces of its own with a fresh peer, in one mode.

  harness.py --build build/release --mode zpstack-veth build/release/diff_stream [--case 'Stream.*'] [--together] [--pcap]

A case that fails keeps its directory under <build>/test-traces/ and the command that repeats it is printed. Exit code 0: every
case passed or was skipped for a documented difference (each is named), 1 otherwise.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import fnmatch
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import bed as beds  # noqa: E402


def list_cases(program):
    """Full names of the GoogleTest cases of a program."""
    text = subprocess.run([program, "--gtest_list_tests"], check=True, capture_output=True, text=True, env=beds.clean_environment()).stdout
    cases, suite = [], ""
    for line in text.splitlines():
        name = line.split("#")[0].rstrip()
        if name and not name.startswith(" "):
            suite = name
        elif name:
            cases.append(suite + name.strip())
    return cases


def under_tool(options, bed, environment):
    """strace or gdb in front of the program; neither is hooked itself."""
    preload = environment.get("LD_PRELOAD", "")
    if options.strace:
        return environment, ["strace", "-f", "-o", bed.traces / "strace"]
    if options.gdb:
        commands = [f"set exec-wrapper env LD_PRELOAD={preload}", "handle SIGUSR1 SIGUSR2 SIGALRM SIGPIPE nostop noprint pass", "run", "thread apply all bt", "info registers", "x/16gx $rsp", "info symbol *(long*)$rsp"]
        bare = {k: v for k, v in environment.items() if k != "LD_PRELOAD"}
        return bare, ["gdb", "-q", "-batch", *[word for command in commands for word in ("-ex", command)], "--args"]
    return environment, []


def run_case(options, case, traces):
    """One process for `case` (a gtest filter). Returns (ok, note)."""
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        control = bed.scratch / "control"
        peer = bed.spawn_peer([bed.build / "diff_peer", control])
        beds.wait_until(lambda: control.exists() or peer.poll() is not None, 30, "the peer's control socket")
        environment = bed.sut_environment(ZPS_TEST_CONTROL=control)
        environment, prefix = under_tool(options, bed, environment)
        if options.run and bed.hooked:
            environment.pop("LD_PRELOAD")
            prefix = [bed.build / "zpstack", "run", "--"]
        sut = bed.spawn_sut([*prefix, options.program, f"--gtest_filter={case}", "--gtest_color=no"], environment=environment)
        try:
            code = sut.wait(options.timeout)
        except subprocess.TimeoutExpired:
            bed.explain_hang()
            return False, f"hangs (over {options.timeout} s)"
        output = bed.output("sut")
        if peer.poll() is not None:
            return False, f"the peer ended with {peer.returncode}"
        if code != 0:
            return False, f"exit code {code}"
        if "[  PASSED  ]" not in output:
            return False, "ended without a verdict"
        skipped = sorted({line.split("known difference ")[1] for line in output.splitlines() if "known difference " in line})
        return True, "skipped in part or whole: " + "; ".join(skipped) if skipped else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--case", default="*")
    parser.add_argument("--family", choices=("ip4", "ip6", "mapped"), default="ip4", help="of the connections that the library makes (tests/lib/family.h)")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--together", action="store_true", help="all cases in one process")
    parser.add_argument("--pcap", action="store_true")
    parser.add_argument("--run", action="store_true", help="by `zpstack run`, as static programs have to be")
    parser.add_argument("--strace", action="store_true")
    parser.add_argument("--gdb", action="store_true", help="backtraces of a crash, in sut.out")
    options = parser.parse_args()
    options.program = options.program.resolve()
    os.environ["ZPS_TEST_FAMILY"] = options.family

    cases = [case for case in list_cases(options.program) if fnmatch.fnmatch(case, options.case)]
    if not cases:
        raise SystemExit(f"no case matches {options.case}")
    if options.together:
        cases = [":".join(cases)]
    failed = 0
    for case in cases:
        label = "together" if options.together else case.replace("/", ".")
        traces = options.build / "test-traces" / f"{options.program.name}-{options.mode}-{options.family}" / label
        start = time.monotonic()
        ok, note = run_case(options, case, traces)
        print(f"{'ok  ' if ok else 'FAIL'} {label} {time.monotonic() - start:.2f} s{'  ' + note if note else ''}", flush=True)
        if ok:
            shutil.rmtree(traces, ignore_errors=True)
            continue
        failed += 1
        report(traces)
        again = f"{sys.argv[0]} --build {options.build} --mode {options.mode} --family {options.family} {options.program} --case '{options.case if options.together else case}'"
        print(f"  traces: {traces}\n  repeat: {again}{' --together' if options.together else ''} --pcap", flush=True)
    print(f"{len(cases) - failed} of {len(cases)} passed in mode {options.mode}")
    return 1 if failed else 0


def report(traces):
    for path in sorted(traces.glob("*.out")) + sorted(traces.glob("*.err")):
        lines = path.read_text(errors="replace").splitlines()
        for line in lines[:4] + ["..."] + lines[-36:] if len(lines) > 40 else lines:
            print(f"  {path.name}: {line}")


if __name__ == "__main__":
    sys.exit(main())
