#!/usr/bin/env python3
"""A server answers and ends, by itself or by a signal, with or without a child that has just died: all that it has written arrives, and its end.

  last_process.py --build build/release --mode kernel|zpstack-veth|zpstack-memif [--rounds 3]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = "7014"
BYTES = "200000"
# How the child ends, and then the server.
CHILDREN = ("none", "exit", "kill", "exec")
SERVERS = ("exit", "exec", "KILL", "TERM", "SEGV", "ABRT")

SERVER = """
import os, signal, socket, sys
port, count, child_ends, server_ends = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
listener = socket.create_server((sys.argv[5] if len(sys.argv) > 5 else "0.0.0.0", port))
print("ready", flush=True)
client, _ = listener.accept()
assert client.recv(16) == b"hello"
child = os.fork() if child_ends != "none" else -1
if child == 0:
    if child_ends == "exec":
        os.execv("/bin/true", ["true"])
    if child_ends == "kill":
        signal.pause()
    os._exit(0)
if child_ends == "kill":
    os.kill(child, signal.SIGKILL)
if child > 0:
    os.waitpid(child, 0)
client.sendall(bytes(count))
if server_ends.isupper():
    os.kill(os.getpid(), getattr(signal, "SIG" + server_ends))
client.close()
if server_ends == "exec":
    os.execv("/bin/true", ["true"])
os._exit(0)
"""

CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as client:
    client.settimeout(30)
    client.sendall(b"hello")
    got = 0
    while piece := client.recv(1 << 16):
        got += len(piece)
    assert got == int(sys.argv[3]), got
"""

# Has written as much as it can to somebody who does not read.
FULL_SERVER = """
import signal, socket, sys
listener = socket.create_server((sys.argv[2], int(sys.argv[1])))
print("ready", flush=True)
client, _ = listener.accept()
client.setblocking(False)
sent = 0
try:
    while True:
        sent += client.send(bytes(65536))
except BlockingIOError:
    print("full", sent, flush=True)
signal.pause()
"""

LATE_CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as client:
    client.settimeout(30)
    sys.stdin.read()
    got = 0
    while piece := client.recv(1 << 16):
        got += len(piece)
    print("got", got)
"""


def run_succession(bed):
    """A server is killed that has much left to send, and the next one is started in its place at once: that one is not told that somebody serves, and
    the peer of the first gets all."""
    server = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", FULL_SERVER, PORT, bed.sut_address], name="full")
    beds.wait_until(lambda: "ready" in bed.output("full"), 30, "the server's start")
    client = bed.spawn_peer(["/usr/bin/python3", "-S", "-c", LATE_CLIENT, bed.sut_address, PORT], name="late", stdin=subprocess.PIPE)
    sent = int(beds.wait_until(lambda: re.search(r"full (\d+)\n", bed.output("full")), 30, "a full socket")[1])
    server.kill()
    server.wait()
    following = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", FULL_SERVER, PORT, bed.sut_address], name="next")
    beds.wait_until(lambda: "ready" in bed.output("next") or following.poll() is not None, 30, "the next server's start")
    client.stdin.close()
    client.wait(30)
    if following.poll() is not None:
        return f"the next server: {bed.output('next').strip()}"
    over_memory = "memif" in bed.mode  # a link goes with the one whose name it has
    if (over_memory or not bed.hooked) and f"got {sent}\n" not in bed.output("late"):
        return f"{sent} bytes were taken, {bed.output('late').strip()}"
    return None


def run_round(bed, *ends):
    """`ends`: how the child ends, how the server does, and at which address it listens if not at all of them."""
    name = f"{'-'.join(ends)}-{len(bed.processes)}"
    server = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", SERVER, PORT, BYTES, *ends], name=name)
    beds.wait_until(lambda: "ready" in bed.output(name) or server.poll() is not None, 30, "the server's start")
    problem = keeper_of(server) if bed.hooked else None
    client = bed.spawn_peer(["/usr/bin/python3", "-S", "-c", CLIENT, bed.sut_address, PORT, BYTES], name=f"{name}-client")
    try:
        client.wait(30)
        server.wait(30)
    except subprocess.TimeoutExpired as error:
        return f"{name}: {error}"
    expected = -getattr(signal, f"SIG{ends[1]}") if ends[1].isupper() else 0
    if client.returncode != 0 or server.returncode != expected:
        return f"{name}: {bed.output(f'{name}-client').strip()} {bed.output(name).strip()}"
    return f"{name}: {problem}" if problem else None


def run_without_keeper(bed):
    """The process that stays is killed: one line says so, and the server goes on and ends as ever."""
    server = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", SERVER, PORT, BYTES, "none", "exit"], name="alone")
    beds.wait_until(lambda: "ready" in bed.output("alone"), 30, "the server's start")
    for keeper in pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        os.kill(int(keeper), signal.SIGKILL)
    if bed.hooked:
        beds.wait_until(lambda: "the process that tells the peers is gone" in bed.output("alone"), 30, "a line about it")
    client = bed.spawn_peer(["/usr/bin/python3", "-S", "-c", CLIENT, bed.sut_address, PORT, BYTES], name="alone-client")
    codes = client.wait(30), server.wait(30)
    if codes != (0, 0) or bed.output("alone").count("the process that tells") != int(bed.hooked):
        return f"without a keeper: {codes} {bed.output('alone-client').strip()} {bed.output('alone').strip()}"
    return None


def keeper_of(server):
    """What is wrong with the process that stays behind `server`: it has a name of its own, and nothing else that is the program's."""
    children = pathlib.Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    if len(children) != 1:
        return f"not one child but {children}"
    there = pathlib.Path(f"/proc/{children[0]}")
    # The last that it does before it sleeps is to give up its rights.
    beds.wait_until(lambda: re.search(r"^NoNewPrivs:\s+1$", (there / "status").read_text(), re.MULTILINE), 30, "the keeper's rest")
    command, status = (there / "cmdline").read_bytes().strip(b"\0"), (there / "status").read_text()
    if command != b"zpstack-keeper":
        return f"its command is {command}"
    if os.getsid(int(children[0])) != int(children[0]) or not re.search(r"^SigBlk:\s+fffffffffffbfeff$", status, re.MULTILINE):
        return f"it can be reached by signals: {status}"
    beds.wait_until(lambda: re.search(r"^CapPrm:\s+0+$", (there / "status").read_text(), re.MULTILINE), 30, "the end of its rights")
    lowest = min(int(fd.name) for fd in (there / "fd").iterdir())
    return None if lowest >= 512 else f"it has descriptor {lowest}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    problems = []
    for ends in ((child, server) for child in CHILDREN for server in SERVERS):
        for _ in range(options.rounds):
            with beds.Bed(options.mode, options.build, options.build / "test-traces" / f"last-process-{options.mode}") as bed:
                problem = run_round(bed, *ends)
            problems += [problem] if problem else []
            if problem:
                print(f"FAIL {problem}", flush=True)
    # In a dead one's place the next is started at once, and has its address.
    with beds.Bed(options.mode, options.build, options.build / "test-traces" / f"last-process-{options.mode}") as bed:
        for _ in range(5):
            problem = run_round(bed, "none", "KILL", bed.sut_address)
            problems += [f"again: {problem}"] if problem else []
            if problem:
                print(f"FAIL again: {problem}", flush=True)
    for run in (run_succession, run_without_keeper):
        with beds.Bed(options.mode, options.build, options.build / "test-traces" / f"last-process-{options.mode}") as bed:
            problem = run(bed)
            problems += [problem] if problem else []
            if problem:
                print(f"FAIL {problem}", flush=True)
    print(f"{len(problems)} of {options.rounds * len(CHILDREN) * len(SERVERS) + 7} went wrong")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
