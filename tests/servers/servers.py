#!/usr/bin/env python3
"""Runs one shape of the echo server in one mode: 1000 connections byte-exact, children killed, the listener still serving after.

  servers.py --build build/release --mode zpstack-veth fork|prefork|daemon [--connections 1000] [--step serve|kill|die-locked] [--loss 10]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7007
SKIPPED = 77  # CTest's SKIP_RETURN_CODE


def run(options, traces):
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        ready, trigger = bed.scratch / "ready", bed.scratch / "die"
        environment = bed.sut_environment(ZPS_TEST_DIE_LOCKED=trigger, ZPS_LOG="debug", ZPS_TIME_WAIT_MS=100)
        server = bed.spawn_sut([bed.build / "echo_server", options.shape, PORT, ready], name="server", environment=environment)
        beds.wait_until(lambda: ready.exists() or server.poll() not in (None, 0), 30, "the server's start")
        pid = int(ready.read_text())
        if options.shape == "daemon" and server.wait(30) != 0:
            return "the process that started the daemon failed"
        at_start = pools(bed)
        if options.loss:
            try:
                bed.lose(options.loss)
            except OSError as error:
                print(f"SKIP this kernel cannot lose frames on demand: {error}")
                shutil.rmtree(traces)
                sys.exit(SKIPPED)
        for step in options.step or steps_of(options):
            start = time.monotonic()
            extra = {"serve": [options.connections, 8 if options.shape != "prefork" else 4], "kill": ["strict"] if options.mode == "kernel" else [], "die-locked": [trigger]}[step]
            client = bed.spawn_peer([bed.build / "echo_client", step, bed.sut_address, PORT, *extra], name=f"client-{step}")
            try:
                code = client.wait(options.timeout)
            except subprocess.TimeoutExpired:
                bed.explain_hang()
                return f"{step}: over {options.timeout} s"
            if code != 0:
                bed.explain_hang()
                return f"{step}: exit code {code}: {bed.output(client.name)}"
            print(f"ok   {options.shape} {options.mode} {bed.output(client.name).strip()} ({time.monotonic() - start:.2f} s)", flush=True)
            if not os.path.exists(f"/proc/{pid}"):
                return f"{step}: the server is gone"
            # A peer that was killed, or ended before it acknowledged a FIN, is given up after a minute.
            beds.wait_until(lambda: pools(bed) == at_start, 100, f"{step}: the pools to be back at {at_start}, now {pools(bed)}")
    return None


def pools(bed):
    """The last line of the server's that says what the stack's pools hold; waits for the first with a listener (one may come before). Empty without a stack."""
    if not bed.hooked:
        return ""
    lines = re.compile(r"pools: .* [1-9]\d* listeners, .*")
    beds.wait_until(lambda: lines.search(bed.output("server")), 30, "the server's first word on its pools")
    return lines.findall(bed.output("server"))[-1]


def steps_of(options):
    # A daemon has no children to kill; the death inside the lock needs the stack.
    if options.shape == "daemon":
        return ["serve"]
    if options.shape == "prefork":
        return ["serve", "die-locked"] if options.mode != "kernel" else ["serve"]
    return ["serve", "kill", "die-locked"] if options.mode != "kernel" else ["serve", "kill"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=("fork", "prefork", "daemon"))
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--step", action="append", choices=("serve", "kill", "die-locked"))
    parser.add_argument("--timeout", type=float, default=180)
    parser.add_argument("--loss", type=int, default=0, help="so many frames of a thousand, in each direction")
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"servers-{options.shape}-{options.mode}"
    problem = run(options, traces)
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
