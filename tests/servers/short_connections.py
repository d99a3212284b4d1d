#!/usr/bin/env python3
"""A client that makes a connection for each request: as many as natively over loopback, and the client's kernel is not left with the connections' TIME-WAITs.

  short_connections.py --build build/release [--seconds 2] [--rounds 4] [--least 1.0]

nginx with one worker, prefixed on the default wire and natively over loopback, asked by one client with `Connection: close`. A kernel has some 14 000 ports
of each parity for an address and port; with those in TIME-WAIT (a minute each) it looks for a free one among the others at 200 a second.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import shutil
import sys

import many_clients as nginx

beds = nginx.beds
MOST_WAITING = 0.005  # of the connections; 200 a second stay below the ports there are


def waiting(bed):
    """Connections of the client's kernel in TIME-WAIT that lead to the stack."""
    out = nginx.subprocess.run(["ss", "-Htn", "state", "time-wait", "dst", bed.sut_address], check=True, capture_output=True, text=True, preexec_fn=bed.peer_space.enter)
    return len(out.stdout.splitlines())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4, help="at most; fewer if one was good: others may use the machine")
    parser.add_argument("--least", type=float, default=1.0, help="of the kernel's rate over loopback, in one round")
    options = parser.parse_args()
    traces = options.build / "test-traces" / "short-connections"
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        nginx.start_both(bed, 16)
        for _ in range(options.rounds):
            before = waiting(bed)
            hooked, errors = nginx.ask(bed, nginx.HOOKED, 1, options.seconds, "Connection: close")
            left = waiting(bed) - before
            native, _ = nginx.ask(bed, nginx.NATIVE, 1, options.seconds, "Connection: close")
            print(f"{hooked:.0f} connections a second, {native:.0f} natively over loopback, {hooked / native:.2f}; {left} in TIME-WAIT at the client; errors: {errors}", flush=True)
            if hooked >= options.least * native and errors is None and left < MOST_WAITING * hooked * options.seconds:
                break
        else:
            raise AssertionError("slower than the kernel, or the client keeps TIME-WAIT, in each round")
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
