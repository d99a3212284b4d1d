#!/usr/bin/env python3
"""Servers whose processes pass sockets on to each other (SCM_RIGHTS): Python's multiprocessing, Node's cluster, haproxy's reload; and who gets none.

  passed.py --build build/release --mode kernel|zpstack-veth [--seconds 3] [--reloads 2] [CASE ...]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 8090

# The first process accepts, its workers answer. By a handle that is sent to a certain process, and by one that is fetched when it is unpickled.
WORKERS = """
import multiprocessing, os, socket, sys
from multiprocessing import reduction

def answer(connection):
    connection.sendall(b"%d %s" % (os.getpid(), connection.recv(100)))
    connection.close()

def work(pipe):
    for _ in range(3):
        answer(socket.socket(fileno=reduction.recv_handle(pipe)))
    for _ in range(3):
        answer(pipe.recv())

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    workers = []
    def start():
        for _ in range(2):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=work, args=(theirs,))
            process.start()
            workers.append((ours, process))
    if sys.argv[3] == "older":
        start()
    listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
    if sys.argv[3] == "younger":
        start()
    print("ready", flush=True)
    for number in range(12):
        connection, _ = listener.accept()
        pipe, process = workers[number % 2]
        if number < 6:
            reduction.send_handle(pipe, connection.fileno(), process.pid)
        else:
            pipe.send(connection)
        connection.close()
    for _, process in workers:
        process.join()
        assert process.exitcode == 0
"""

CLUSTER = """
const cluster = require('cluster'), net = require('net');
cluster.schedulingPolicy = process.argv[2] === 'rr' ? cluster.SCHED_RR : cluster.SCHED_NONE;
if (cluster.isPrimary) {
  let listening = 0;
  cluster.on('listening', () => { if (++listening === 2) console.log('ready'); });
  const start = () => { cluster.fork(); cluster.fork(); };
  if (process.argv[4] === 'older') start(); else net.createServer().listen(Number(process.argv[3]) + 1, '0.0.0.0', start);
} else {
  net.createServer(c => c.on('data', d => c.end(process.pid + ' ' + d))).listen(Number(process.argv[3]), '0.0.0.0');
}
"""

HAPROXY = """
global
  stats socket {scratch}/haproxy.sock mode 600 level admin expose-fd listeners
  maxconn 200
  hard-stop-after 5s
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend all
  bind 0.0.0.0:{port}
  http-request return status 200 content-type text/plain string served
"""

# Its workers are older than the stack, and are passed something in several threads at once. A timer interrupts what their first waits for.
BUSY = """
import os, signal, socket, subprocess, sys, threading

def work(pipe):
    _, fds, _, _ = socket.recv_fds(pipe, 1, 1)
    with socket.socket(fileno=fds[0]) as connection:
        connection.sendall(b"%d %s" % (os.getpid(), connection.recv(100)))

port, workers, threads, period = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
if sys.argv[5:]:
    first, *others = [socket.socket(fileno=int(number)) for number in sys.argv[5:]]
    running = [threading.Thread(target=work, args=(pipe,)) for pipe in others]
    for thread in running:
        thread.start()
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, period, period)
    first.send(b"r")
    work(first)
    for thread in running:
        thread.join()
    os._exit(0)
pairs, processes = [], []
for _ in range(workers):
    new = [socket.socketpair() for _ in range(threads)]
    pairs += new
    numbers = [theirs.fileno() for _, theirs in new]
    processes.append(subprocess.Popen([sys.executable, "-S", *sys.argv[:5], *map(str, numbers)], pass_fds=numbers))
    new[0][0].recv(1)
    for _, theirs in new:
        theirs.close()
listener = socket.create_server(("0.0.0.0", port))
print("ready", flush=True)
taken = [listener.accept()[0] for _ in pairs]
for process in processes:
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
for (ours, _), connection in zip(pairs, taken):
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    connection.close()
for process in processes:
    process.send_signal(signal.SIGCONT)
assert [process.wait() for process in processes] == [0] * workers
"""

# Workers that are older than the stack, each with one connection; every second one is killed while it takes that.
KILLED = """
import os, random, signal, socket, sys, time
workers = []
for _ in range(int(sys.argv[2])):
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        try:
            socket.socket(fileno=fds[0]).sendall(b"answer")
        except ConnectionError:
            pass  # another one was killed inside the lock
        os._exit(0)
    theirs.close()
    workers.append((ours, pid))
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
for number, (ours, pid) in enumerate(workers):
    connection, _ = listener.accept()
    socket.send_fds(ours, [b"x"], [connection.fileno()])
    connection.close()
    end = time.monotonic() + random.random() * 0.02
    while number % 2 and time.monotonic() < end:
        pass
    if number % 2:
        os.kill(pid, signal.SIGKILL)
    ours.close()
    assert os.waitpid(pid, 0)[1] in ((signal.SIGKILL, 0) if number % 2 else (0,))
while True:
    connection, _ = listener.accept()
    try:
        connection.sendall(b"still there")
        connection.recv(1)
        break
    except ConnectionError:
        pass
"""

# Has a listener, and a Unix socket for whoever comes.
DOOR = """
import os, socket, sys, threading
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[2])
door.listen()
print("ready", flush=True)
"""

PASSES_ONE = (
    DOOR
    + """
connection, _ = listener.accept()
visitor, _ = door.accept()
socket.send_fds(visitor, [b"x"], [connection.fileno()])
"""
)

# Passes one connection to whoever comes to its Unix socket.
GIVER = PASSES_ONE + """
connection.close()
visitor.recv(1)
kept, _ = listener.accept()
kept.sendall(b"still there")
kept.recv(1)
"""

TAKER = """
import os, socket, sys, threading, time
SO_PASSPIDFD, SCM_PIDFD = 76, 4
if "threads" in sys.argv:
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
if "stack" in sys.argv:
    own = socket.create_server(("0.0.0.0", int(sys.argv[3])))
early = socket.socket()
visitor = socket.socket(socket.AF_UNIX)
try:
    visitor.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    wanted = 1
except OSError:  # an older kernel
    wanted = 0
visitor.connect(sys.argv[1])
data, parts, flags, _ = visitor.recvmsg(1, 256)
number = lambda kind: [int.from_bytes(data[:4], sys.byteorder) for _, which, data in parts if which == kind]
fds, senders = number(socket.SCM_RIGHTS), number(SCM_PIDFD)
present = [each for each in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + each)]
pidfds = [int(each) for each in present if "pidfd" in os.readlink("/proc/self/fd/" + each)]
assert senders == pidfds and len(pidfds) == wanted, (parts, pidfds)
text = "%s %d %d" % (data.decode(), len(fds), flags == socket.MSG_CTRUNC)
if fds:
    with open(fds[0], "r+b", 0) as file:
        try:
            file.write(b"from the taker")
            text += " written"
        except OSError as error:
            text += " " + type(error).__name__
print(text, flush=True)
visitor.send(b"x")
os._exit(0)
"""

# A service whose next process, started by somebody else, is passed the listener, forks a worker, executes itself, and answers.
SUCCESSOR = """
import os, socket, sys
if sys.argv[1] == "first":
    listener = socket.create_server(("0.0.0.0", int(sys.argv[3])))
elif sys.argv[1] == "next":
    before = socket.socket()  # what it has already goes along
    set_before = __import__("select").epoll()
    visitor = socket.socket(socket.AF_UNIX)
    visitor.connect(sys.argv[2])
    _, fds, _, _ = socket.recv_fds(visitor, 1, 1)
    listener = socket.socket(fileno=fds[0])
    assert listener.getsockname()[1] == int(sys.argv[3])
    set_before.register(listener, 1)
    before.bind(("0.0.0.0", int(sys.argv[3]) + 1))
    before.listen()
    visitor.send(b"x")
    if os.fork() == 0:
        connection, _ = listener.accept()
        connection.sendall(b"worker")
        os._exit(0)
    os.wait()
    assert set_before.poll() == [(listener.fileno(), 1)]  # the next one has come
    os.set_inheritable(listener.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-S", "-c", sys.orig_argv[3], "executed", sys.argv[2], sys.argv[3], str(listener.fileno())])
else:
    listener = socket.socket(fileno=int(sys.argv[4]))
    connection, _ = listener.accept()
    connection.sendall(b"executed")
    connection.close()
if sys.argv[1] != "next":
    if os.path.exists(sys.argv[2]):
        os.unlink(sys.argv[2])
    door = socket.socket(socket.AF_UNIX)
    door.bind(sys.argv[2])
    door.listen()
    print("ready", flush=True)
    visitor, _ = door.accept()
    socket.send_fds(visitor, [b"x"], [listener.fileno()])
    assert visitor.recv(1) == b"x"
"""

# Passes one connection to whoever comes, has another in flight to itself, and takes what it is passed in return.
TRUSTING = DOOR + """
connections = [listener.accept()[0] for _ in range(2)]
visitor, _ = door.accept()
ours, theirs = socket.socketpair()
for over, connection in zip((visitor, ours), connections):
    socket.send_fds(over, [b"x"], [connection.fileno()])
_, fds, _, _ = socket.recv_fds(visitor, 1, 1)
for fd in fds:
    os.write(fd, b"forged")
print("took", len(fds), flush=True)
"""

# Puts what it has been passed, which it cannot use, into a socket of its own, with a label that says that it is what was passed next.
FORGER = """
import socket, struct, sys
visitor = socket.socket(socket.AF_UNIX)
visitor.connect(sys.argv[1])
_, fds, _, _ = socket.recv_fds(visitor, 1, 1)
envelope = socket.socket(fileno=fds[0])
label, contents, _, _ = socket.recv_fds(envelope, 100, 3)
record, = struct.unpack("=I", label[-4:])
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(theirs, [label[:-4] + struct.pack("=I", record + 1)], contents)
theirs.close()
socket.send_fds(visitor, [b"x"], [ours.fileno()])
"""

# Likewise passes one on and takes what it is passed in return, by a thread, and meets whoever comes meanwhile.
GREETING = PASSES_ONE + """
def take():
    visitor.recv(1, socket.MSG_PEEK)
    print("taking", flush=True)
    print("took", len(socket.recv_fds(visitor, 1, 1)[1]), flush=True)
threading.Thread(target=take).start()
while True:
    listener.accept()[0].sendall(b"welcome")
"""

# Returns what it has been passed, with a socket in the same queue whose close waits for a peer that does not read (SO_LINGER).
LINGERER = """
import socket, struct, sys
visitor = socket.socket(socket.AF_UNIX)
visitor.connect(sys.argv[1])
_, fds, _, _ = socket.recv_fds(visitor, 1, 1)
envelope = socket.socket(fileno=fds[0])
label, contents, _, _ = socket.recv_fds(envelope, 100, 3)
listener = socket.create_server(("127.0.0.1", 0))
full = socket.create_connection(listener.getsockname())
deaf, _ = listener.accept()
full.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
full.setblocking(False)
try:
    while full.send(bytes(100000)):
        pass
except BlockingIOError:
    pass
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
socket.send_fds(theirs, [label], contents)
socket.send_fds(theirs, [b"x"], [full.fileno()])
for each in (full, theirs, envelope):
    each.close()
socket.send_fds(visitor, [b"x"], [ours.fileno()])
ours.close()
visitor.recv(1)
"""


def connect(bed):
    connection = socket.create_connection((bed.sut_address, PORT), 60)
    return connection


def ask(bed):
    """The answer to one request, whole."""
    with connect(bed) as connection:
        connection.sendall(b"request")
        answer = b""
        while piece := connection.recv(100):
            answer += piece
        return answer


def start(bed, argv, **options):
    sut = bed.spawn_sut(argv, **options)
    beds.wait_until(lambda: "ready\n" in bed.output("sut") or sut.poll() is not None, 30, "the start")
    assert sut.poll() is None, bed.output("sut")
    return sut


def silent(bed):
    assert "SCM_RIGHTS" not in bed.output("sut"), bed.output("sut")


def workers(bed, _, method, age):
    script = bed.scratch / "workers.py"
    script.write_text(WORKERS)
    sut = start(bed, ["/usr/bin/python3", script, str(PORT), method, age])
    answers = [ask(bed).split() for _ in range(12)]
    assert all(words[1:] == [b"request"] for words in answers), answers
    assert len({words[0] for words in answers}) == 2, answers
    assert sut.wait(30) == 0
    silent(bed)


def cluster(bed, _, policy, age):
    script = bed.scratch / "cluster.js"
    script.write_text(CLUSTER)
    sut = start(bed, [shutil.which("node"), script, policy, str(PORT), age])
    answers = [ask(bed).split() for _ in range(20)]
    assert all(words[1:] == [b"request"] for words in answers), answers
    if policy == "rr":
        assert len({words[0] for words in answers}) == 2, answers
    sut.terminate()
    silent(bed)


def is_waiting(pid):
    """Whether a signal to reload would be heeded: haproxy says that it is ready somewhat earlier."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    caught, blocked = (int(re.search(rf"{name}:\s*(\w+)", status)[1], 16) >> (signal.SIGUSR2 - 1) & 1 for name in ("SigCgt", "SigBlk"))
    return caught and not blocked and "State:\tS" in status


def loads_of(bed, options):
    return [
        bed.spawn_peer([shutil.which("wrk"), "-t1", "-c10", f"-d{options.seconds}", *more, f"http://{bed.sut_address}:{PORT}/"], name=name)
        for name, more in (("load", []), ("load-close", ["-H", "Connection: close"]))
    ]


def check_loads(bed, options, loads):
    for load in loads:
        assert load.wait(options.seconds + 30) == 0
        text = bed.output(load.name)
        assert not re.search(r"connect [1-9]|timeout [1-9]|Non-2xx", text), text
        assert int(re.search(r"(\d+) requests in", text)[1]) > 100, text


def haproxy(bed, options):
    """Reloads under load: the new worker has the listeners from the old one, and nobody is refused."""
    configuration = bed.scratch / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(scratch=bed.scratch, port=PORT))
    sut = bed.spawn_sut([shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-W", "-db", "-f", configuration])
    serving = lambda: [child for child in beds.children(sut.pid) if pathlib.Path(f"/proc/{child}/comm").read_text() == "haproxy\n"]  # noqa: E731
    beds.wait_until(lambda: "Loading success" in bed.output("sut") and is_waiting(sut.pid), 30, "haproxy's start")
    loads = loads_of(bed, options)
    for number in range(options.reloads):
        old = serving()
        sut.send_signal(signal.SIGUSR2)
        beds.wait_until(lambda: bed.output("sut").count("Loading success") == number + 2, 30, "the new worker")
        beds.wait_until(lambda: not set(old) & set(serving()) and is_waiting(sut.pid), 30, "the end of the old worker")
    check_loads(bed, options, loads)
    sut.terminate()
    sut.wait(30)
    silent(bed)


def haproxy_anew(bed, options):
    """Each reload is another program, started from elsewhere, that asks the one before it for its listeners (-x) and then ends it (-sf)."""
    configuration = bed.scratch / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(scratch=bed.scratch, port=PORT))
    count = 0

    def start_one(*more):
        nonlocal count
        count += 1
        name = f"haproxy{count}"
        started = bed.spawn_sut([shutil.which("haproxy", path="/usr/sbin:/usr/bin"), "-db", "-f", configuration, *more], name=name)
        beds.wait_until(lambda: started.poll() is not None or answers() == started.pid, 20, f"the start of {name}")
        assert started.poll() is None, bed.output(name)
        return started

    def answers():
        """The process that serves the socket by which the next one asks."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(5)
            asking.connect(str(bed.scratch / "haproxy.sock"))
            asking.sendall(b"show info\n")
            return int(re.search(r"Pid: (\d+)", asking.makefile().read())[1])

    serving = start_one()
    loads = loads_of(bed, options)
    for _ in range(options.reloads):
        old, serving = serving, start_one("-x", bed.scratch / "haproxy.sock", "-sf", str(serving.pid))
        assert old.wait(20) == 0
    check_loads(bed, options, loads)
    serving.send_signal(signal.SIGTERM)
    serving.wait(20)
    for number in range(1, count + 1):
        assert "SCM_RIGHTS" not in bed.output(f"haproxy{number}"), bed.output(f"haproxy{number}")


def successors(bed, _):
    """Five processes that do not descend from each other; each is passed the listener by the one before it, which ends."""
    path = bed.scratch / "door"
    command = ["/usr/bin/python3", "-S", "-c", SUCCESSOR]
    last = bed.spawn_sut([*command, "first", path, str(PORT)])
    beds.wait_until(lambda: "ready" in bed.output("sut") or last.poll() is not None, 20, "the first one")
    for number in range(5):
        name = f"next{number}"
        following = bed.spawn_sut([*command, "next", path, str(PORT)], name=name)
        for word in (b"worker", b"executed"):
            with connect(bed) as connection:
                assert connection.recv(100) == word, bed.output(name)
        assert last.wait(20) == 0
        beds.wait_until(lambda: "ready" in bed.output(name) or following.poll() is not None, 20, name)
        last = following
        assert "SCM_RIGHTS" not in bed.output(name), bed.output(name)


def busy(bed, _, workers, threads, period):
    """What comes while a worker joins, a signal or another socket, does not keep it from that."""
    script = bed.scratch / "busy.py"
    script.write_text(BUSY)
    sut = start(bed, ["/usr/bin/python3", "-S", script, str(PORT), str(workers), str(threads), str(period)])
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(bed)) for _ in range(workers * threads)]
        for connection in connections:
            connection.sendall(b"request")
        for connection in connections:
            assert connection.recv(100).endswith(b" request"), bed.output("sut")
    assert sut.wait(30) == 0
    silent(bed)


def killed(bed, _):
    """Whoever is killed while it joins leaves nothing behind, and its peer is told. Inside the lock it takes all connections along (killed-inside)."""
    count = 24
    sut = start(bed, ["/usr/bin/python3", "-S", "-c", KILLED, str(PORT), str(count)], environment=bed.sut_environment(ZPS_LOG="debug"))
    alone = lambda: not bed.hooked or (re.findall(r"family: (\d+) processes", bed.output("sut")) or ["0"])[-1] == "1"  # noqa: E731
    answers = 0
    for _ in range(3 * count):
        with contextlib.suppress(ConnectionError), connect(bed) as connection:
            said = connection.recv(100)
            answers += said == b"answer"
            if said == b"still there":
                beds.wait_until(alone, 30, "the end of what the dead had")
                break
    else:
        raise AssertionError("the server does not go on")
    assert answers >= count // 2 or "a process died inside the stack" in bed.output("sut"), answers
    assert sut.wait(30) == 0


def stranger(bed, _, prefixed, *has):
    """One that has no part in the stack gets it if it can; else it is told so, and so are the peer and the reader of the log; what the giver has left is not touched."""
    path = bed.scratch / "door"
    start(bed, ["/usr/bin/python3", "-S", "-c", GIVER, str(PORT), path])
    environment = bed.sut_environment() if prefixed else beds.clean_environment()
    gets = not bed.hooked or (prefixed and not has)
    with connect(bed) as passed:
        taker = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", TAKER, path, *has, str(PORT + 1)], name="taker", environment=environment)
        assert taker.wait(20) == 0
        said = bed.output("taker").splitlines()
        if gets:
            assert said == ["x 1 0 written"], said
            assert passed.recv(100) == b"from the taker"
        elif prefixed:
            assert "x 0 1" in said and any("SCM_RIGHTS" in line for line in said), said
        else:
            assert said == ["x 1 0 BrokenPipeError"], said
        assert passed.recv(100) == b"", "the peer of what nobody has"
    if not gets:
        beds.wait_until(lambda: "no process of this family has received them" in bed.output("sut"), 20, "the line")
    with connect(bed) as kept:
        assert kept.recv(100) == b"still there"


def forger(bed, _):
    """Who is no member, and was passed one socket, makes nothing of another that is in flight."""
    path = bed.scratch / "door"
    sut = start(bed, ["/usr/bin/python3", "-S", "-c", TRUSTING, str(PORT), path])
    with connect(bed) as one, connect(bed) as other:
        taker = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", FORGER, path], name="taker", environment=beds.clean_environment())
        assert taker.wait(30) == 0, bed.output("taker")
        assert sut.wait(30) == 0
        assert "took 0" in bed.output("sut"), bed.output("sut")
        for connection in (one, other):
            assert connection.recv(100) == b""


def given(case, *more):
    return lambda bed, options: case(bed, options, *more)


def lingerer(bed, _):
    """Whoever takes what such a one passes may wait for it: nobody else does."""
    path = bed.scratch / "door"
    start(bed, ["/usr/bin/python3", "-S", "-c", GREETING, str(PORT), path])
    with connect(bed) as passed:
        bed.spawn_sut(["/usr/bin/python3", "-S", "-c", LINGERER, path], name="lingerer", environment=beds.clean_environment())
        beds.wait_until(lambda: "taking" in bed.output("sut"), 20, "what is passed")
        for _ in range(20):
            with connect(bed) as other:
                assert other.recv(100) == b"welcome"
        passed.sendall(b"x")


# The workers are older or younger than the stack.
CASES = {
    f"{program}-{way}-{age}": given(case, way, age)
    for program, case, ways in (("python", workers, ("fork", "spawn", "forkserver")), ("node", cluster, ("rr", "none")))
    for way in ways
    for age in ("older", "younger")
}
CASES.update({
    "haproxy": haproxy,
    "haproxy-anew": haproxy_anew,
    "successors": successors,
    "killed": killed,
    "interrupted": given(busy, 1, 1, 0.001),
    "together": given(busy, 4, 6, 0),
    "unrelated": given(stranger, True),
    "threads": given(stranger, True, "threads"),
    "own-stack": given(stranger, True, "stack"),
    "native-stranger": given(stranger, False),
    "forger": forger,
    "lingerer": lingerer,
})
HOOKED_ONLY = {"forger", "lingerer"}  # natively there is no label to write


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--seconds", type=int, default=3, help="how long the load on haproxy lasts")
    parser.add_argument("--reloads", type=int, default=2)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="which; all without one")
    options = parser.parse_args()
    for name in options.cases or [case for case in CASES if options.mode != "kernel" or case not in HOOKED_ONLY]:
        begin = time.monotonic()
        traces = options.build / "test-traces" / f"passed-{name}-{options.mode}"
        if os.fork() == 0:  # who has entered a namespace does not come back
            problem = None
            with beds.Bed(options.mode, options.build, traces) as bed:
                bed.peer_space.enter()
                try:
                    CASES[name](bed, options)
                except (AssertionError, OSError, TimeoutError, ValueError) as error:
                    problem = f"{name}: {type(error).__name__} {error}"
                    with contextlib.suppress(OSError):
                        bed.explain_hang()
            os._exit(beds.conclude(problem, traces, "*.*"))
        if os.waitstatus_to_exitcode(os.wait()[1]) != 0:
            return 1
        print(f"ok   {name} {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
