#!/usr/bin/env python3
"""Programs that share a stack because they name it (ZPS_NETWORK): they are to each other what programs of one host are natively.

  networks.py --build build/release --mode kernel|zpstack-veth|zpstack-host [CASE ...]

What is refused, and what the second program says, has no native counterpart: those cases are for the hooked modes alone.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import ast
import contextlib
import errno
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7301
NETWORK = f"test-{os.getpid()}"
NOBODY = 65534

# Does what it is told, a line at a time, and answers with a line. Whoever connects is told who serves and whom that sees, and gets back
# what it sends.
PROGRAM = """
import os, socket, sys, threading
address, held, kept = sys.argv[1], [], []

def serve(connection, peer):
    connection.sendall(repr((os.getpid(), peer[0], peer[1])).encode() + b"\\n")
    while piece := connection.recv(4096):
        connection.sendall(piece)
    connection.close()

def accept(listener):
    while True:
        threading.Thread(target=serve, args=listener.accept(), daemon=True).start()

def listen(port, shared="0"):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    try:
        listener.bind((address, int(port)))
        listener.listen(100)
    except OSError as error:
        return error.errno
    kept.append(listener)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    return 0

def hold(port):
    connection = socket.create_connection((address, int(port)), 20)
    file = connection.makefile("rb")
    held.append((connection, file))
    return (file.readline(), connection.getsockname())

def talk(index):
    connection, file = held[int(index)]
    connection.sendall(b"x" * 9999 + b"\\n")
    return file.readline() == b"x" * 9999 + b"\\n"

def fork():
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, repr(hold(sys.argv[2])).encode())
        os._exit(0)
    os.wait()
    return eval(os.read(read, 1000))

print("ready", flush=True)
for line in sys.stdin:
    name, *arguments = line.split()
    print(repr(globals()[name](*arguments)), flush=True)
"""

# Its threads are there before its first socket.
THREADED = """
import threading, time
lock = threading.Lock()
lock.acquire()
for _ in range(4):
    threading.Thread(target=lock.acquire, daemon=True).start()
""" + PROGRAM


class Program:
    """One of the network's; `wrapper` is a command before it."""

    count = 0

    def __init__(self, bed, text=PROGRAM, wrapper=(), address=None, **settings):
        Program.count += 1
        self.bed, self.name = bed, f"program{Program.count}"
        environment = bed.sut_environment(**({"ZPS_NETWORK": NETWORK, **settings} if bed.hooked else {}))
        argv = [*wrapper, sys.executable, "-c", text, address or bed.sut_address, PORT]
        self.process = bed.spawn_sut(argv, name=self.name, environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begun(self):
        if self.process.stdout.readline() != b"ready\n":
            raise AssertionError(f"{self.name} does not start: {self.bed.output(self.name)}")
        return self

    def told(self, *words):
        """The answer to what is asked now; `say` and `heard` are its halves."""
        self.say(*words)
        return self.heard()

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()

    def heard(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.name} is gone, {self.process.wait()}: {self.bed.output(self.name)}")
        return ast.literal_eval(line.decode())

    def end(self, with_signal=signal.SIGKILL):
        self.process.send_signal(with_signal)
        self.process.wait()

    def held(self, port, by):
        """A connection to `by`, which must see where it comes from."""
        greeting, own = self.told("hold", port)
        pid, address, own_port = ast.literal_eval(greeting.decode())
        assert pid == by.process.pid, f"port {port} is served by {pid}, not by {by.process.pid}"
        assert (address, own_port) == own and address == self.bed.sut_address, f"{by.name} sees {address}:{own_port}, which is {own}"


def started(bed, **settings):
    return Program(bed, **settings).begun()


def served_by(bed, port):
    """Who answers the peer, which is another host."""
    with socket.create_connection((bed.sut_address, port), 20) as connection:
        return ast.literal_eval(connection.makefile("rb").readline().decode())[0]


def is_ended(bed, port, program):
    """Whether a listener of a program that was killed is none any more; until that is noticed what comes to it is reset."""
    try:
        return {served_by(bed, port) for _ in range(10)}.isdisjoint({program.process.pid})
    except ConnectionError:
        return False


def same_port(bed):
    """EADDRINUSE is between programs; SO_REUSEPORT is as well; a port comes back with its program."""
    first, second, third = (started(bed) for _ in range(3))
    assert first.told("listen", PORT) == 0
    assert second.told("listen", PORT) == errno.EADDRINUSE
    assert second.told("listen", PORT + 1, 1) == 0
    assert third.told("listen", PORT + 1) == errno.EADDRINUSE
    assert third.told("listen", PORT + 1, 1) == 0
    assert {served_by(bed, PORT + 1) for _ in range(60)} == {second.process.pid, third.process.pid}
    second.end()
    beds.wait_until(lambda: is_ended(bed, PORT + 1, second), 20, "the end of its listener")
    assert {served_by(bed, PORT + 1) for _ in range(20)} == {third.process.pid}
    first.end(signal.SIGTERM)
    beds.wait_until(lambda: third.told("listen", PORT) == 0, 20, "the port of one that has ended")
    assert served_by(bed, PORT) == third.process.pid


def reach(bed):
    """Each reaches each other at the one address and sees the true one; so does a child that is forked."""
    programs = [started(bed) for _ in range(3)]
    for number, program in enumerate(programs):
        assert program.told("listen", PORT + number) == 0
    for program in programs:
        for number, other in enumerate(programs):
            program.held(PORT + number, other)
    for program in programs:
        assert all(program.told("talk", index) for index in range(3))
    greeting, own = programs[1].told("fork")
    assert ast.literal_eval(greeting.decode()) == (programs[0].process.pid, *own)
    if bed.mode == "zpstack-veth":
        links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
        assert len(re.findall(r"^zps\d", links, re.M)) == 1, links


def first_killed(bed):
    """What the others have goes on, the killed one's connections end, and one that is started in its place is let in."""
    first, second, third = (started(bed) for _ in range(3))
    for number, program in enumerate((first, second, third)):
        assert program.told("listen", PORT + number) == 0
    second.held(PORT + 2, third)
    second.held(PORT, first)
    first.end()
    assert second.told("talk", 0)
    second.say("talk", 1)
    assert second.process.stdout.readline() in (b"", b"False\n")  # the end, or a reset, which is more than it can bear
    fourth = started(bed)
    assert fourth.told("listen", PORT) == 0
    third.held(PORT, fourth)
    assert third.told("talk", 0)
    assert served_by(bed, PORT) == fourth.process.pid


def any_killed(bed):
    """Whichever is killed, and started again at once: the others serve."""
    programs = [started(bed) for _ in range(3)]
    for number, program in enumerate(programs):
        assert program.told("listen", PORT + number) == 0
    for _ in range(8):
        victim = random.randrange(3)
        programs[victim].end()
        programs[victim] = started(bed)
        beds.wait_until(lambda: programs[victim].told("listen", PORT + victim) == 0, 20, "the port of one that was killed")
        for number, program in enumerate(programs):
            assert served_by(bed, PORT + number) == program.process.pid
    for program in programs:
        program.process.kill()
    again = started(bed)
    assert again.told("listen", PORT) == 0
    assert served_by(bed, PORT) == again.process.pid


def together(bed):
    """Started at one moment, be they the first or not, with threads or without; and again as soon as all have ended."""
    for _ in range(3):
        programs = [Program(bed, text=(PROGRAM, THREADED)[number % 2]) for number in range(6)]
        for number, program in enumerate(programs):
            program.begun()
        for number, program in enumerate(programs):
            program.say("listen", PORT + number)
        assert [program.heard() for program in programs] == [0] * 6
        for number, program in enumerate(programs):
            program.held(PORT + (number + 1) % 6, programs[(number + 1) % 6])
        for program in programs:
            program.process.stdin.close()  # it ends
        for program in programs:
            program.process.wait()


def settings(bed):
    """What the first was told holds, and the second says what it was told otherwise."""
    first = started(bed, ZPS_MEMORY_MB=64)
    assert first.told("listen", PORT) == 0
    second, third = started(bed, ZPS_MEMORY_MB=32, ZPS_MTU=1400), started(bed, ZPS_MEMORY_MB=64)
    for number, program in enumerate((second, third)):
        assert program.told("listen", PORT + 1 + number) == 0
    said = f"the stack of the network {NETWORK} is as its first program has made it, not with this one's mtu, memory_mb"
    assert said in bed.output(second.name), bed.output(second.name)
    assert "as its first" not in bed.output(third.name), bed.output(third.name)


def other_names(bed):
    """Programs of another name, and of none, have stacks of their own."""
    programs = [started(bed, address="0.0.0.0", ZPS_NETWORK=name) for name in (NETWORK, NETWORK + ".b", "")]
    for number, program in enumerate(programs):
        assert program.told("listen", PORT + number) == 0
    addresses = {re.search(r": (198\.18\.\d+\.2) ", bed.output(program.name)).group(1) for program in programs}
    assert len(addresses) == 3, addresses


def refused(bed, why, text=PROGRAM, **options):
    """It does not start, or goes on with the kernel if it is to, and says why."""
    other = Program(bed, text=text, **options).begun()
    other.say("listen", PORT + 1)
    assert other.process.wait(30) == 127
    assert why in bed.output(other.name), bed.output(other.name)
    other = Program(bed, text=text, ZPS_FALLBACK="kernel", **options).begun()
    other.say("listen", PORT + 1)
    assert other.heard() == errno.EADDRNOTAVAIL  # an address that is the stack's alone
    assert why in bed.output(other.name), bed.output(other.name)


def strangers(bed):
    """Nobody is let in with fewer rights, or in a user namespace where its user is the same in name."""
    first = started(bed)
    assert first.told("listen", PORT) == 0
    refused(bed, "fewer rights", wrapper=("setpriv", "--bounding-set=-net_admin"))
    refused(bed, "another pid namespace", wrapper=("unshare", "--pid", "--fork", "--kill-child"))
    refused(bed, "another user namespace", wrapper=("unshare", "--user", "--map-root-user"))
    assert served_by(bed, PORT) == first.process.pid


SQUATTER = """
import os, socket, sys
os.setresuid(*[int(sys.argv[1])] * 3)
name = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
name.bind("\\0zpstack/0/" + sys.argv[2])
if sys.argv[3] == "listens":
    name.listen()
print("ready", flush=True)
sys.stdin.read()
"""


def squatters(bed):
    """Another user's program that has the name gets no visitor, and keeps nobody waiting for ever."""
    for listens, why in (("listens", "another user's program has its name"), ("deaf", "its name is taken, and nobody is there")):
        argv = [sys.executable, "-c", SQUATTER, NOBODY, NETWORK, listens]
        squatter = bed.spawn_sut(argv, name="squatter", environment=beds.clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert squatter.stdout.readline() == b"ready\n"
        refused(bed, why)
        squatter.stdin.close()
        squatter.wait()


def names(bed):
    """What is no name, and a file that is somebody else's."""
    for name in ("a/b", "..", "x" * 33):
        program = Program(bed, ZPS_NETWORK=name)
        assert program.process.wait(30) == 127
        assert "is no name of a network" in bed.output(program.name), bed.output(program.name)
    path = pathlib.Path(f"/dev/shm/zpstack-0-{NETWORK}-x")
    path.write_bytes(b"12345678")
    try:
        os.chmod(path, 0o600)
        os.chown(path, NOBODY, NOBODY)
        program = Program(bed, ZPS_NETWORK=NETWORK + "-x")
        assert program.process.wait(30) == 127
        assert re.search("somebody else's|needs the file", bed.output(program.name)), bed.output(program.name)
    finally:
        path.unlink()


CASES = {case.__name__: case for case in (same_port, reach, first_killed, any_killed, together, settings, other_names, strangers, squatters, names)}
NATIVE = {"same_port", "reach", "first_killed", "any_killed", "together"}
OF_DEFAULT_WIRE = {"other_names", "strangers", "squatters"}  # where an address is a stack's alone


def is_for(mode, name):
    return name in NATIVE or (mode != "kernel" and (mode == "zpstack-veth" or name not in OF_DEFAULT_WIRE))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=("kernel", "zpstack-veth", "zpstack-host"), required=True)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all, if none is named")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"networks-{options.mode}"
    problem = None
    try:
        for name in options.cases or [name for name in CASES if is_for(options.mode, name)]:
            with beds.Bed(options.mode, options.build, traces) as bed:
                bed.peer_space.enter()
                CASES[name](bed)
            print(name, flush=True)
    except Exception as error:
        problem = f"{name}: {type(error).__name__}: {error}"
    finally:
        for file in pathlib.Path("/dev/shm").glob(f"zpstack-*-{NETWORK}*"):
            with contextlib.suppress(OSError):
                file.unlink()
    return beds.conclude(problem, traces, "program*.err")


if __name__ == "__main__":
    sys.exit(main())
