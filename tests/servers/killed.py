#!/usr/bin/env python3
"""A single process that serves is killed: every peer is told as natively, and has what was written.

  killed.py --build build/release --mode kernel|zpstack-veth|zpstack-memif|zpstack-host [--rounds 1] [--within 1.0] [END ...]

END is how it ends: KILL, SEGV (its stack has overflown), ABRT, OOM (in a memory control group of its own, where one can be made). Its peers: idle
ones, one that has written what nobody reads, one that has closed its half, some that the server has written to, some in the queue of the listener,
with data and without, and, if the peer is the kernel's, some whose handshake is not complete.

What is seen is checked in every round; how late it was counts only where the machine did not stand still meanwhile (tests/lib/heartbeat.py) and the peers' process
did not wait for a processor. Other rounds are repeated, twice as many at most.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import collections
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402
from heartbeat import Heartbeat  # noqa: E402

PORT = "7024"
ENDS = {"KILL": signal.SIGKILL, "SEGV": signal.SIGSEGV, "ABRT": signal.SIGABRT, "OOM": signal.SIGKILL}
ACCEPTED = "idle idle unread closed full full short".split()
QUEUED = "queue queue queued_data queued_data".split()
HALF_OPEN = ["half"] * 3
STILL = 0.02  # seconds for which somebody had no processor, after which a round says nothing about time
# What each of them sees at the end. A handshake that is completed meanwhile is one in the queue.
EXPECTED = {"idle": "end", "unread": "reset", "closed": "end", "full": "end", "short": "end", "queue": "reset", "queued_data": "reset", "half": "reset"}

PATTERN = """
import random
pattern = random.Random(7).randbytes(1 << 20)
"""

SERVER = PATTERN + """
import faulthandler, os, signal, socket, sys, time
address, port, accepted, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
listener = socket.create_server((address, port), backlog=64)
print("ready", flush=True)
held, sent = [], {}
for number in range(accepted):
    client, _ = listener.accept()
    kind = client.recv(32).decode().strip()
    held.append(client)
    if kind == "unread":
        client.recv(1, socket.MSG_PEEK)
    if kind == "closed":
        assert client.recv(1) == b""
    if kind in ("closed", "short"):
        client.sendall(pattern[:1000])
        sent[number] = 1000
    if kind == "full":
        client.setblocking(False)
        sent[number] = 0
        try:
            while sent[number] < len(pattern):
                sent[number] += client.send(pattern[sent[number]:][:65536])
        except BlockingIOError:
            pass
    print("accepted", number, sent.get(number, 0), flush=True)
sys.stdin.readline()
os.write(1, b"dies %.6f\\n" % time.monotonic())
if end == "KILL":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "SEGV":
    faulthandler._stack_overflow()
if end == "ABRT":
    os.abort()
while True:
    held.append(bytearray(b"x" * (1 << 20)))
"""

CLIENT = PATTERN + """
import fcntl, json, select, socket, struct, sys, termios, time
address, port = sys.argv[1], int(sys.argv[2])
accepted, queued, half = (list(filter(None, words.split(","))) for words in sys.argv[3:6])
peers = []
def connect():
    peers.append(socket.create_connection((address, port), 30))
    return peers[-1]
for number, kind in enumerate(accepted):
    client = connect()
    client.sendall(kind.encode().ljust(32))
    if kind == "unread":
        client.sendall(b"nobody reads this")
    if kind == "closed":
        client.shutdown(socket.SHUT_WR)
    print("connected", number, flush=True)
    sys.stdin.readline()
# A filter of its own keeps the answer from who asks.
nothing = struct.pack("HBBI", 6, 0, 0, 0)
for _ in half:
    import ctypes
    code = ctypes.create_string_buffer(nothing)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(code)))
    client.setblocking(False)
    client.connect_ex((address, port))
    peers.append(client)
for kind in queued:
    client = connect()
    if kind == "queued_data":
        client.sendall(b"nobody accepts this")
        while struct.unpack("i", fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)))[0] != 0:
            time.sleep(0.001)
kinds = accepted + half + queued
for kind, client in zip(kinds, peers):
    client.setblocking(False)
    if kind == "half":
        client.setsockopt(socket.SOL_SOCKET, 27, 0)
print("set", flush=True)
poll, by_fd = select.poll(), {}
for number, client in enumerate(peers):
    by_fd[client.fileno()] = number
got = {number: 0 for number in range(len(peers))}
results = {}
def look(number):
    client, kind = peers[number], kinds[number]
    try:
        if kind == "half" and client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return "reset"
        while piece := client.recv(1 << 16):
            assert piece == pattern[got[number]:][:len(piece)], "other bytes"
            got[number] += len(piece)
        return "end"
    except BlockingIOError:
        return None
    except (ConnectionResetError, ConnectionRefusedError):
        return "reset"
    except OSError as error:
        return str(error)
def waited():
    with open("/proc/self/schedstat") as file:
        return int(file.read().split()[1]) / 1e9
before = waited()
# Who is full begins to read when the server is dead.
sys.stdin.readline()
for fd in by_fd:
    poll.register(fd, select.POLLIN)
deadline = time.monotonic() + 10
while len(results) < len(peers) and time.monotonic() < deadline:
    for fd, _ in poll.poll(100):
        number = by_fd[fd]
        seen = look(number)
        if seen is not None:
            results[number] = (seen, time.monotonic())
            poll.unregister(fd)
for number in range(len(kinds)):
    seen, when = results.get(number, ("nothing", 0))
    print("told", json.dumps([seen, got[number], when]), flush=True)
print("waited", waited() - before, flush=True)
"""


class MemoryGroup:
    """A memory control group for the server, which is ended when it takes more than `limit`; None where the kernel lets us make none."""

    def __init__(self, limit=200 << 20):
        name = f"zpstest-{os.getpid()}"
        self.folder = None
        for root, file in ((pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (pathlib.Path("/sys/fs/cgroup"), "memory.max")):
            with contextlib.suppress(OSError):
                (root / name).mkdir()
                self.folder = root / name
                (self.folder / file).write_text(str(limit))
                return
            self.close()

    def take(self, pid):
        (self.folder / "cgroup.procs").write_text(str(pid))

    def close(self):
        if self.folder is None:
            return
        # A keeper is in it for a while.
        with contextlib.suppress(TimeoutError):
            beds.wait_until(lambda: not (self.folder / "cgroup.procs").read_text().strip(), 30, "an empty group")
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        self.folder = None


class Talk:
    """A process and the lines that it says."""

    def __init__(self, process):
        self.process = process

    def hear(self, word):
        while line := self.process.stdout.readline():
            if line.startswith(word):
                return line[len(word) :].strip()
        raise EOFError(f"{self.process.name} ends without '{word}'")

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def spawn(start, name, source, *arguments):
    command = ["/usr/bin/python3", "-S", "-c", source, *arguments]
    return Talk(start(command, name=name, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def run_round(bed, end, group):
    """What went wrong, when it died, how long after that each kind of peer was told, and how long the peers waited for a processor meanwhile."""
    half = [] if bed.mode == "zpstack-memif" else HALF_OPEN
    server = spawn(bed.spawn_sut, "server", SERVER, bed.sut_address, PORT, str(len(ACCEPTED)), end)
    server.hear("ready")
    if end == "OOM":
        group.take(server.process.pid)
    client = spawn(bed.spawn_peer, "client", CLIENT, bed.sut_address, PORT, *map(",".join, (ACCEPTED, QUEUED, half)))
    sent = []
    for _ in ACCEPTED:
        client.hear("connected")
        sent.append(int(server.hear("accepted").split()[1]))
        client.go_on()
    client.hear("set")
    server.go_on()
    died = float(server.hear("dies"))
    if (code := server.process.wait(60)) != -ENDS[end]:
        return f"the server ends with {code}", died, {}, 0
    if end == "OOM":
        died = time.monotonic()
    client.go_on()
    told, wrong = {}, []
    for number, kind in enumerate(ACCEPTED + half + QUEUED):
        seen, got, when = json.loads(client.hear("told"))
        told[kind] = max(told.get(kind, 0.0), when - died)
        if seen != EXPECTED[kind]:
            wrong.append(f"peer {number} ({kind}) sees '{seen}' after {got} bytes")
        if number < len(sent) and got != sent[number]:
            wrong.append(f"peer {number} ({kind}) has {got} of {sent[number]} bytes")
    waited = float(client.hear("waited"))
    client.process.wait(60)
    return "; ".join(wrong) or None, died, told, waited


def report(end, told, within):
    """How late each kind of peer was told, over all rounds; how many were told later than `within`."""
    late = 0
    for kind, times in told.items():
        times.sort()
        late += sum(1 for seconds in times if seconds > within)
        print(f"     {end:4} {kind:12} told after {times[len(times) // 2] * 1000:6.1f} ms (median), {times[-1] * 1000:6.1f} (longest) of {len(times)}", flush=True)
    return late


def run_rounds(options, end, bed, group, heart):
    """As many as are to be counted: what went wrong first, how late each kind of peer was told in each of those, and how many were not counted."""
    told, uncounted, counted = collections.defaultdict(list), 0, 0
    while counted < options.rounds and uncounted <= 2 * options.rounds:
        try:
            problem, died, one, waited = run_round(bed, end, group)
        except (EOFError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            problem = f"{type(error).__name__} {error}"
        if problem:
            return f"{end}, round {counted + uncounted}: {problem}", told, uncounted
        if waited > STILL or heart.longest_gap(died, died + max(late for kind, late in one.items() if kind != "half")) > STILL:
            uncounted += 1
            continue
        counted += 1
        for kind, seconds in one.items():
            told[kind].append(seconds)
    return None, told, uncounted


def run_end(options, end):
    """All rounds of one way to end; the exit code."""
    group = MemoryGroup() if end == "OOM" else None
    if group and group.folder is None:
        print("     OOM is left out: no memory control group can be made here")
        return 0
    traces = options.build / "test-traces" / f"killed-{end}-{options.mode}"
    try:
        with beds.Bed(options.mode, options.build, traces) as bed, Heartbeat() as heart:
            problem, told, uncounted = run_rounds(options, end, bed, group, heart)
    finally:
        if group:
            group.close()
    if uncounted:
        print(f"     {end:4} {uncounted} rounds in which the machine stood still, or the peers waited for it, for more than {STILL * 1000:.0f} ms are not counted", flush=True)
    # Natively a handshake's peer is told when it asks again.
    half = told.pop("half", []) if options.mode in ("kernel", "zpstack-host") else []
    late = report(end, told, options.within)
    report(end, {"half": half} if half else {}, 0)
    if problem is None and late > options.rounds * options.late:
        problem = f"{end}: {late} peers were told later than {options.within * 1000:.0f} ms"
    return beds.conclude(problem, traces, "*.err")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--within", type=float, default=1.0, help="seconds in which a peer is told")
    parser.add_argument("--late", type=float, default=0.0, help="how many peers may be told later, as a part of the rounds")
    parser.add_argument("ends", nargs="*", choices=[[], *ENDS], help="how it ends; every way without one")
    options = parser.parse_args()
    failed = 0
    for end in options.ends or ENDS:
        begin = time.monotonic()
        code = run_end(options, end)
        failed += bool(code)
        print(f"{'FAIL' if code else 'ok  '} {end} {options.mode} {options.rounds} times, {time.monotonic() - begin:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
