#!/usr/bin/env python3
"""A server under floods of forged segments: who connects meanwhile is served at once, and who is connected keeps its rate.

  flood.py --build build/release --mode zpstack-veth [--rate 20000] [--seconds 1.5] [--clients 20] [--within 900] [--keep 50] [--rounds 1] [--pin]

--within: milliseconds a new client may take to connect and be answered. --keep: per cent of its 2000 questions a second that a
connection gets answered. --rounds: each flood is repeated until one round was good, so often at most. --pin: the server has a processor of its
own, and everybody else shares the other one.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT, CLOSED_PORT = 7007, 7008
PACE = 2000
# What is sent, to which port, from where: sources that there is no way back to, and neighbours that do not exist.
FLOODS = (("syn", PORT, "198.19.0.0/16"), *((kind, port, "198.18.0.128/25") for kind, port in (
    ("syn", PORT), ("ack", PORT), ("ack", CLOSED_PORT), ("rst", PORT), ("synack", PORT))))


class Established:
    """A connection that asks at a fixed pace, each time after the last answer."""

    def __init__(self, address):
        self.socket = socket.create_connection((address, PORT), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = 0
        self.problem = None
        self.ends = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        try:
            read(self.socket, 4)
            due = time.monotonic()
            while not self.ends:
                self.socket.sendall(b"x")
                read(self.socket, 1)
                self.answers += 1
                due = max(due + 1 / PACE, time.monotonic() - 0.05)
                time.sleep(max(0, due - time.monotonic()))
        except OSError as error:
            self.problem = error

    def rate_while(self, work):
        before, start = self.answers, time.monotonic()
        work()
        return (self.answers - before) / (time.monotonic() - start)

    def close(self):
        self.ends = True
        self.thread.join()
        self.socket.close()


def read(connection, count):
    while count > 0:
        data = connection.recv(count)
        if not data:
            raise ConnectionResetError("the end of the stream")
        count -= len(data)


def visit(address):
    """Connects, is greeted, asks, is answered. Milliseconds."""
    start = time.monotonic()
    with socket.create_connection((address, PORT), 30) as connection:
        read(connection, 4)
        connection.sendall(b"y")
        read(connection, 1)
    return (time.monotonic() - start) * 1000


def run(options, traces):
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        ready = bed.scratch / "ready"
        pin(options, 0)
        environment = bed.sut_environment(ZPS_LOG="debug")
        server = bed.spawn_sut([bed.build / "echo_server", "daemon", PORT, ready], name="server", environment=environment)
        pin(options, 1)
        beds.wait_until(lambda: ready.exists() or server.poll() not in (None, 0), 30, "the server's start")
        bed.peer_space.enter()
        established = Established(bed.sut_address)
        try:
            beds.wait_until(lambda: established.answers > 0, 30, "the first answer")
            floods = [flood for flood in FLOODS if not options.kind or flood[0] in options.kind]
            problems = [problem for flood in floods for problem in rounds_of(options, bed, established, flood)]
        finally:
            established.close()
        if established.problem:
            problems.append(f"the connection broke: {established.problem}")
        return "; ".join(problems) or None


def pin(options, processor):
    """What is started next runs there."""
    if options.pin:
        os.sched_setaffinity(0, {processor})


def rounds_of(options, bed, established, flood):
    """What was wrong in the last round."""
    for _ in range(options.rounds):
        try:
            problems = one_flood(options, bed, established, *flood)
        except FloodError as error:
            problems = [str(error)]
        if not problems:
            break
    return problems


def one_flood(options, bed, established, kind, port, source):
    took, problems = [], []

    def visits():
        end = time.monotonic() + options.seconds - 0.5
        pause = (options.seconds - 0.5) / options.clients / 2
        while len(took) < options.clients and time.monotonic() < end + 30:
            took.append(visit(bed.sut_address))
            time.sleep(pause)

    with flooding(options, bed, bed.sut_address, kind, port, source, options.seconds):
        rate = established.rate_while(visits)
    took.sort()
    what = f"{kind} to {port} from {source}"
    clients = f"{len(took)} clients, median {took[len(took) // 2]:.1f} ms, slowest {took[-1]:.1f} ms"
    print(f"ran  {options.mode} {what}: {clients}; {rate:.0f} answers a second of {PACE}", flush=True)
    if took[-1] > options.within:
        problems.append(f"{what}: a client took {took[-1]:.0f} ms")
    if rate < PACE * options.keep / 100:
        problems.append(f"{what}: {rate:.0f} answers a second, less than {options.keep} % of {PACE}")
    return problems


class FloodError(RuntimeError):
    """The flood was not what was wanted."""


class flooding:
    """A flood while the context lasts; it must reach half of the wanted rate at least."""

    def __init__(self, options, bed, address, kind, port, source, seconds):
        self.rate = options.rate
        command = [bed.build / "flood", address, port, kind, options.rate, seconds, source]
        self.process = bed.spawn_peer(command, name="flood", environment=beds.clean_environment(), stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.process.kill()
        sent = self.process.communicate()[0].decode().strip()
        if kind is None and (self.process.returncode != 0 or float(sent) < self.rate / 2):
            raise FloodError(f"the flood: {sent} a second, exit code {self.process.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--within", type=float, default=900, help="a SYN that got lost is sent again after a second")
    parser.add_argument("--keep", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="at most; fewer if one was good: others may use the machine")
    parser.add_argument("--pin", action="store_true")
    parser.add_argument("--kind", action="append", choices=sorted({kind for kind, _, _ in FLOODS}), help="only floods of this kind")
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"flood-{options.mode}"
    try:
        problem = run(options, traces)
    except (OSError, RuntimeError, TimeoutError) as error:
        problem = f"{type(error).__name__}: {error}"
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
