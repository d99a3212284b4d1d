#!/usr/bin/env python3
"""Bursts that reach the bound of a stack's memory, one after the other against one redis-server: while they last and after they have gone small
requests are answered, and in the end the pools are as at the start.

  burst_test.py --build build/release --mode zpstack-veth [--memory 16 48] [--rounds 1] [--burst readers ...]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import bed as beds  # noqa: E402

PORT = 6398
BURSTS = ("readers", "writers", "pipelines", "both_ways")
POOLS_BACK = 20  # seconds
POOLS = re.compile(r"pools: (\d+) streams, ([1-9]\d*) listeners, (.*)")


def pools(bed):
    """The last line of the server's that says what its pools hold; empty without a stack."""
    if not bed.hooked:
        return ""
    beds.wait_until(lambda: POOLS.search(bed.output("server")), 30, "the server's first word on its pools")
    return [found.group() for found in POOLS.finditer(bed.output("server"))][-1]


def run(options, memory, traces):
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        log = bed.traces / "redis.log"
        argv = ["redis-server", "--port", PORT, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--enable-debug-command", "yes", "--dir",
                bed.scratch, "--logfile", log]
        environment = bed.sut_environment(ZPS_MEMORY_MB=memory, ZPS_LOG="debug", ZPS_TIME_WAIT_MS=100)
        server = bed.spawn_sut(argv, name="server", environment=environment)
        beds.wait_until(lambda: log.exists() and "eady to accept connections" in log.read_text(), 30, "redis-server's start")
        at_start = pools(bed)
        for turn in range(options.rounds):
            for burst in options.burst or BURSTS:
                name = f"client-{burst}-{turn}"
                client = bed.spawn_peer([sys.executable, HERE / "burst_client.py", bed.sut_address, PORT, burst], name=name,
                                        environment=bed.peer_environment(ZPS_MEMORY_MB=memory))
                try:
                    code = client.wait(options.timeout)
                except subprocess.TimeoutExpired:
                    code = f"over {options.timeout} s"
                if code != 0 or server.poll() is not None:
                    bed.explain_hang()
                    return f"{memory} MB, {burst}: exit code {code}: {bed.output(name)[-2000:]}"
                start = time.monotonic()
                try:  # sooner than a connection is given up whose FIN nobody acknowledges
                    beds.wait_until(lambda: pools(bed) == at_start, POOLS_BACK, "the pools to be back")
                except TimeoutError:
                    return f"{memory} MB, {burst}: the pools stay at {pools(bed)}, at the start {at_start}"
                print(f"ok   {options.mode} {memory} MB {bed.output(name).strip()}, pools back after {time.monotonic() - start:.1f} s", flush=True)
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--memory", type=int, nargs="+", default=[16, 48], help="megabytes, for each side that has a stack")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--burst", action="append", choices=BURSTS)
    parser.add_argument("--timeout", type=float, default=100)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    for memory in options.memory[:1] if options.mode == "kernel" else options.memory:
        traces = options.build / "test-traces" / f"burst-{options.mode}-{memory}"
        code = beds.conclude(run(options, memory, traces), traces, "*.err")
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
