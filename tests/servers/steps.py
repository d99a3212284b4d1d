#!/usr/bin/env python3
"""Members of a family that are killed at every instruction of an operation, or system call of a spawned program's start: the others serve on, and nothing leaks.

  steps.py --build build/release --mode zpstack-veth [--operation close ...] [--samples 12 | --stride 1 [--offset 0]]

Without --stride as many instructions of each operation are tried as --samples says, evenly spread from a random one on. The offset is printed.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import random
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7101
OPERATIONS = ("close", "accept", "connect", "epoll_ctl", "read", "write", "wait", "dup2", "listen", "fork", "born", "exec", "spawn", "exit")
# The first member asleep in its set, with its two listeners, one of them registered.
AT_REST = "family: 1 processes, 1 chunks, 1 sleepers, 1 watched, 2 sockets, 0 datagram sockets, 1 sets, 1 registrations"


def levels(bed):
    """What the server has said last of the stack's and the family's pools."""
    text = bed.output("server")
    return tuple((re.findall(pattern, text) or [None])[-1] for pattern in (r"pools: .* [1-9]\d* listeners, .*", r"family: .*"))


def run(options, traces, operation):
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        control = bed.scratch / "control"
        environment = bed.sut_environment(ZPS_LOG="debug", ZPS_TIME_WAIT_MS=100, ZPS_PATIENCE_MS=0)
        server = bed.spawn_sut([bed.build / "step_member", bed.sut_address, PORT, control], name="server", environment=environment)
        beds.wait_until(lambda: control.exists() or server.poll() is not None, 30, "the family's start")
        beds.wait_until(lambda: None not in levels(bed), 30, "the first word on the pools")
        at_rest = (levels(bed)[0].replace("1 listeners", "2 listeners"), AT_REST)
        begin = time.monotonic()
        stride = [f"-{options.samples}"] if options.stride is None else [options.stride]
        offset = [] if options.offset is None else [options.offset]
        client = bed.spawn_peer([bed.build / "step_killer", bed.sut_address, PORT, control, operation, *stride, *offset], name="killer")
        try:
            code = client.wait(options.timeout)
        except subprocess.TimeoutExpired:
            bed.explain_hang()
            return f"{operation}: over {options.timeout} s"
        said = bed.output("killer").strip()
        if code != 0 or server.poll() is not None:
            return f"{operation}: {said}; the family's first member: {server.poll()}"
        try:
            beds.wait_until(lambda: levels(bed) == at_rest, 30, "")
        except TimeoutError:
            return f"{operation}: {said}; pools at {levels(bed)} instead of {at_rest}"
        print(f"ok   {said} ({time.monotonic() - begin:.1f} s)", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=("zpstack-veth", "zpstack-host", "zpstack-afxdp"), default="zpstack-veth")
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--offset", type=int)
    parser.add_argument("--timeout", type=float, default=3600)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    for operation in options.operation or OPERATIONS:
        traces = options.build / "test-traces" / f"steps-{operation}-{options.mode}"
        if status := beds.conclude(run(options, traces, operation), traces, "*.err"):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
