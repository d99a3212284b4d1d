#!/usr/bin/env python3
"""Processes that share a stack are stopped, continued, killed, forked and given other priorities at any moment, while each answers its client.

  storm.py --build build/release --mode zpstack-veth prefork|fork [--rounds 20000] [--seed N]

A round is a message that comes back. Every message does, however the lock and whoever polls the wire were hit; a connection ends before its
client ends it only if somebody was killed. `fork`: a process for each connection. Default of --rounds: ZPS_TEST_ROUNDS.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import collections
import contextlib
import os
import pathlib
import random
import re
import selectors
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 8090
LATEST = 20.0  # the machine may be busy
LOOK = 0.1     # a pause between two looks counts for no more: who was frozen himself has not waited
CLIENTS = 3    # one less than children that accept: one may be stopped
POLICIES = ((os.SCHED_OTHER, 0), (os.SCHED_BATCH, 0), (os.SCHED_IDLE, 0), (os.SCHED_FIFO, 1))


class Broken(Exception):
    pass


def state(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


class Client:
    """One connection: greeted with the server's pid first, then a message at a time, now and then a new connection."""

    def __init__(self, storm):
        self.storm = storm
        self.rounds = 0
        self.connect()

    def connect(self):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex((self.storm.bed.sut_address, PORT))
        self.ends_before = self.storm.note_ends()
        self.wait_for(None)
        self.storm.selector.register(self.socket, selectors.EVENT_READ, self)

    def wait_for(self, answer):
        """None: the greeting."""
        self.answer, self.got, self.since = answer, b"", self.storm.waited

    def end(self):
        self.storm.selector.unregister(self.socket)
        self.socket.close()

    def reconnect(self):
        self.end()
        self.connect()

    def send(self):
        message = random.randbytes(random.randrange(1, 600))
        self.wait_for(message)
        self.socket.sendall(message)

    def on_readable(self):
        try:
            piece = self.socket.recv(4096)
            if not piece:
                raise ConnectionResetError("its end")
            self.got += piece
            if self.answer is None and len(self.got) == 4:
                self.send()
            elif self.answer is not None and len(self.got) >= len(self.answer):
                self.on_answer()
        except ConnectionError as error:
            if self.storm.note_ends() == self.ends_before and not self.storm.dying:
                raise Broken(f"a connection came to {error!r} though nobody was killed") from error
            self.reconnect()

    def on_answer(self):
        if self.got != self.answer:
            raise Broken(f"{self.answer} came back as {self.got}")
        self.rounds += 1
        if random.randrange(100) == 0:
            self.reconnect()
        else:
            self.send()

    def check(self):
        if self.storm.waited - self.since > LATEST:
            what = "greeting" if self.answer is None else "answer"
            raise Broken(f"no {what} within {LATEST} s, to {self.socket.getsockname()}")


class Storm:
    def __init__(self, bed, shape):
        self.bed = bed
        self.counts = collections.Counter()
        self.selector = selectors.DefaultSelector()
        self.stopped = None
        self.dying = set()  # killed, and perhaps not dead yet: an accept() that has slept takes a connection with it
        self.ends = 0
        self.waited = 0.0
        ready = bed.scratch / "ready"
        environment = bed.sut_environment(ZPS_LOG="debug", ZPS_TIME_WAIT_MS=100)
        self.server = bed.spawn_sut([bed.build / "echo_server", shape, PORT, ready], name="server", environment=environment)
        beds.wait_until(ready.exists, 30, "the server")
        bed.peer_space.enter()
        self.at_start = beds.wait_until(lambda: not bed.hooked or self.pools(), 30, "the pools' levels at the start")

    def pools(self):
        lines = re.findall(r"pools: .* [1-9]\d* listeners, .*", self.bed.output("server"))
        return lines[-1] if lines else ""

    def children(self):
        return beds.children(self.server.pid)

    def note_ends(self):
        gone = {pid for pid in self.dying if state(pid) in "ZX"}
        self.dying -= gone
        self.ends += len(gone)
        return self.ends

    def act(self):
        """Something happens to somebody; seconds until the next time."""
        if self.stopped is not None:
            self.go_on()
        elif children := self.children():
            what = random.choice(("stop", "stop", "kill", "priority"))
            victim = random.choice(children if what == "kill" else [*children, self.server.pid])
            self.counts[what] += 1
            with contextlib.suppress(ProcessLookupError):  # its client has just ended it
                if what == "kill":
                    os.kill(victim, signal.SIGKILL)
                    self.dying.add(victim)
                elif what == "stop":
                    os.kill(victim, signal.SIGSTOP)
                    self.stopped = victim
                else:
                    self.give_priority(victim)
        return random.uniform(0, 0.01)

    def go_on(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.stopped, signal.SIGCONT)
        self.stopped = None

    @staticmethod
    def give_priority(victim):
        policy, priority = random.choice(POLICIES)
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(victim, policy, os.sched_param(priority))
        os.setpriority(os.PRIO_PROCESS, victim, random.randrange(20))

    def blow(self, rounds):
        clients = [Client(self) for _ in range(CLIENTS)]
        next_act = last = time.monotonic()
        while sum(client.rounds for client in clients) < rounds or min(self.counts[what] for what in ("stop", "kill", "priority")) == 0:
            for key, _ in self.selector.select(max(0, next_act - time.monotonic())):
                key.data.on_readable()
            now = time.monotonic()
            self.waited += min(now - last, LOOK)
            last = now
            for client in clients:
                client.check()
            if time.monotonic() >= next_act:
                if self.server.poll() is not None:
                    raise Broken(f"the server has ended with {self.server.returncode}")
                next_act = time.monotonic() + self.act()
        if self.stopped is not None:
            self.go_on()
        for client in clients:
            client.end()
        return sum(client.rounds for client in clients)


def run(options, traces):
    random.seed(options.seed)
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        storm = Storm(bed, options.shape)
        try:
            rounds = storm.blow(options.rounds)
            print(f"ok   {options.shape} {options.mode}: {rounds} rounds, {dict(storm.counts)}", flush=True)
            if bed.hooked:
                beds.wait_until(lambda: storm.pools() == storm.at_start, 60, f"the pools to be back at {storm.at_start}")
        except (Broken, TimeoutError) as error:
            bed.explain_hang()
            return f"{error}; {dict(storm.counts)}; the pools now: {storm.pools()}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=("prefork", "fork"))
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ZPS_TEST_ROUNDS", 20000)))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    traces = options.build / "test-traces" / f"storm-{options.shape}-{options.mode}"
    return beds.conclude(run(options, traces), traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
