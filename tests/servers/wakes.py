#!/usr/bin/env python3
"""A frame wakes the process that it is for: of those that sleep on other connections of the family's none is woken in vain.

  wakes.py --build build/release --mode zpstack-veth [--requests 2000] [--attempts 8] [--most 0.05]

A process for each of nine connections, all blocked in read(), and one in accept(). One connection is asked, one request at a time; what the scheduler counts as voluntary
switches of the others meanwhile are sleeps that ended and began again. Whoever looks after timers may wake for each of them.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import shutil
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 8093
CONNECTIONS = 9
TIMER_SECONDS = 0.05   # a sleeper's next timer is no nearer
LOOK_AT_TIMERS = 2     # sleepers


def switches(pid):
    for line in pathlib.Path(f"/proc/{pid}/task/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError(f"no count for {pid}")


def connect(bed):
    """A connection, and the pid of the process that serves it."""
    client = socket.create_connection((bed.sut_address, PORT), 30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, int.from_bytes(client.recv(4, socket.MSG_WAITALL), "little")


def ask(client, requests):
    for _ in range(requests):
        client.sendall(b"x" * 100)
        if client.recv(100, socket.MSG_WAITALL) != b"x" * 100:
            raise AssertionError("no echo")


def woken(client, others, requests):
    """Wake-ups of the other processes for each request to this client's, but those that timers may account for."""
    before, began = sum(map(switches, others)), time.monotonic()
    ask(client, requests)
    count, seconds = sum(map(switches, others)) - before, time.monotonic() - began
    return max(0.0, count - LOOK_AT_TIMERS * seconds / TIMER_SECONDS) / requests


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--attempts", type=int, default=8, help="at most; fewer if one was good: a process that waits for a processor is represented by others")
    parser.add_argument("--most", type=float, default=0.05, help="wake-ups of others for each request")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"wakes-{options.mode}"
    with beds.Bed(options.mode, options.build, traces) as bed:
        ready = bed.scratch / "ready"
        server = bed.spawn_sut([bed.build / "echo_server", "fork", PORT, ready], environment=bed.sut_environment())
        beds.wait_until(ready.exists, 30, "the server's start")
        bed.peer_space.enter()
        clients = [connect(bed) for _ in range(CONNECTIONS)]
        for client, _ in clients:
            ask(client, 20)
        for attempt in range(options.attempts):
            client, own = clients[attempt % CONNECTIONS]
            rate = woken(client, [server.pid] + [pid for _, pid in clients if pid != own], options.requests)
            print(f"{rate:.3f} wake-ups of others for each request", flush=True)
            if rate <= options.most:
                break
        else:
            raise AssertionError("others are woken")
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
