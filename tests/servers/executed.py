#!/usr/bin/env python3
"""Servers whose sockets come from another program by exec: socket activation, shells, many programs in a row, nginx's upgrade; and who gets none.

  executed.py --build build/release --mode kernel|zpstack-veth [--seconds 3] [--upgrades 2] [--kills 10] [CASE ...]
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

# Listens as the service manager does: LISTEN_FDS descriptors from 3 on.
ACTIVATED = """
import os, socket
assert os.environ["LISTEN_FDS"] == "1" and int(os.environ["LISTEN_PID"]) == os.getpid()
listener = socket.socket(fileno=3)
for _ in range(3):
    connection, peer = listener.accept()
    connection.sendall(b"from " + peer[0].encode() + b" " + connection.recv(100))
    connection.close()
connection, _ = listener.accept()
connection.sendall(b"waits")
while True:
    connection.recv(100)
"""

# Executes itself again and again with the connection it has; counts what it has open and mapped.
HOPS = """
import os, socket, sys
left, fd = int(sys.argv[1]), int(sys.argv[2])
if fd < 0:
    listener = socket.create_server(("0.0.0.0", int(sys.argv[3])))
    print("ready", flush=True)
    connection, _ = listener.accept()
else:
    connection = socket.socket(fileno=fd)
connection.sendall(b"%d %d %d\\n" % (left, len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines())))
assert connection.recv(10) == b"next"
if left > 0:
    connection.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-S", "-c", sys.orig_argv[3], str(left - 1), str(connection.fileno())])
"""

# Accepts a connection and executes what it is told to.
HOLDER = """
import os, socket, sys
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
connection, _ = listener.accept()
connection.set_inheritable(True)
environment = dict(os.environ, **dict(word.split("=", 1) for word in sys.argv[3:]))
os.execve(sys.argv[2], [sys.argv[2], str(connection.fileno())], environment)
"""

# A child for each connection, spawned with all other descriptors closed, as inetd has it; the next ones are killed as soon as they begin.
SPAWNER = """
import random, socket, subprocess, sys, time
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
for number in range(2 * int(sys.argv[2])):
    connection, _ = listener.accept()
    child = subprocess.Popen(["/bin/cat"], stdin=connection, stdout=connection)
    connection.close()
    if number % 2:
        time.sleep(random.uniform(0, 0.03))
        child.kill()
    child.wait()
"""

NGINX = """
daemon on;
worker_processes 2;
pid {scratch}/nginx.pid;
error_log stderr error;
user root;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
  server {{ listen {port}; location / {{ return 200 "served\\n"; }} }}
}}
"""


def connect(bed):
    connection = socket.create_connection((bed.sut_address, PORT), 30)
    connection.settimeout(30)
    return connection


def receive_all(connection):
    """All until the end, and whether that was an orderly one."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            data += piece
        return data, True
    return data, False


def start(bed, source, *arguments):
    sut = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", source, *arguments])
    beds.wait_until(lambda: "ready" in bed.output("sut") or sut.poll() is not None, 30, "the start")
    return sut


def activation(bed, _):
    """The activator takes the first connection's arrival as the sign to execute; what it listened at goes on, and dies with the server."""
    activator = shutil.which("systemd-socket-activate")
    sut = bed.spawn_sut([activator, "-l", f"0.0.0.0:{PORT}", "/usr/bin/python3", "-S", "-c", ACTIVATED])
    beds.wait_until(lambda: "Listening" in bed.output("sut"), 30, "the activator")
    for number in range(3):
        with connect(bed) as connection:
            connection.sendall(b"request %d" % number)
            assert receive_all(connection)[0] == b"from %s request %d" % (bed.peer_address.encode(), number), number
    with connect(bed) as connection:
        assert connection.recv(5) == b"waits"
        begin = time.monotonic()
        sut.kill()
        assert receive_all(connection)[0] == b""
        assert time.monotonic() - begin < 2, "the peer of a killed server was told late"


def shell(bed, _):
    """A shell opens a connection and executes a program on it."""
    with socket.create_server(("0.0.0.0", PORT)) as listener:
        listener.settimeout(30)
        sut = bed.spawn_sut(["/bin/bash", "-c", f"exec 3<>/dev/tcp/{bed.peer_address}/{PORT}; echo hello >&3; exec /bin/cat <&3 >&3"])
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(30)
            assert connection.recv(6) == b"hello\n"
            for size in (1, 10000, 100000):
                connection.sendall(bytes(size))
                left = size
                while left > 0:
                    piece = connection.recv(left)
                    assert piece, "the connection has ended"
                    left -= len(piece)
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == (b"", True)
        assert sut.wait(30) == 0


def spawned(bed, options):
    """Children that serve, and children that are killed while they begin: their peers are told."""
    sut = start(bed, SPAWNER, str(PORT), str(options.kills))
    for number in range(options.kills):
        with connect(bed) as connection:
            connection.sendall(b"hello %d" % number)
            assert connection.recv(100) == b"hello %d" % number, bed.output("sut")
            connection.shutdown(socket.SHUT_WR)
            assert receive_all(connection) == (b"", True)
        with connect(bed) as connection:
            begin = time.monotonic()
            connection.sendall(b"hello")
            receive_all(connection)
            assert time.monotonic() - begin < 5, f"kill {number}: the peer is told late"
    assert sut.wait(30) == 0


def hops(bed, _):
    """Fifty programs one after another: nothing more is open or mapped in the last one than in the second."""
    sut = start(bed, HOPS, "50", "-1", str(PORT))
    seen = []
    with connect(bed) as connection:
        for _ in range(51):
            line = connection.makefile("rb").readline()
            seen.append([int(word) for word in line.split()])
            connection.sendall(b"next")
        assert receive_all(connection) == (b"", True)
    assert sut.wait(30) == 0
    assert [row[0] for row in seen] == list(range(50, -1, -1))
    assert {tuple(row[1:]) for row in seen[2:]} and seen[-1][1] == seen[1][1], seen
    assert abs(seen[-1][2] - seen[1][2]) <= 3, seen


def other_build(bed):
    """A copy of the libraries whose core says that it is of another build."""
    folder = bed.scratch / "other"
    folder.mkdir()
    for name in ("libzpstack.so", "libzpstack-core.so", "libzpstack-stack.so"):
        shutil.copy(bed.library.parent / name, folder / name)
    core = folder / "libzpstack-core.so"
    data = bytearray(core.read_bytes())
    note = data.index(b"GNU\0", 0, 4096) + 4
    data[note] ^= 0xFF
    core.write_bytes(data)
    return folder / "libzpstack.so"


def refused(bed, options):
    """Programs that cannot have the sockets: one line, and the peer is told at once."""
    if not bed.hooked:
        return print("     natively they have them: skipped")
    static = options.build / "zpoline_static_program"
    for number, (program, environment, why) in enumerate((
        (static, [], "static"),
        ("/bin/cat", ["ZPS_HOOK=off"], "environment"),
        ("/bin/sleep", [f"LD_PRELOAD={other_build(bed)}"], "another build"),
    )):
        begin_at = len(bed.output("sut"))
        sut = bed.spawn_sut(["/usr/bin/python3", "-S", "-c", HOLDER, str(PORT), program, *environment])
        beds.wait_until(lambda: "ready" in bed.output("sut")[begin_at:] or bed.output("sut").count("ready") > number, 30, "the start")
        with connect(bed) as connection:
            assert receive_all(connection)[0] == b"", program
        beds.wait_until(lambda: why in bed.output("sut"), 30, f"a line about {program}")
        sut.kill()
        sut.wait()


def parent_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def upgrade(bed, options):
    """nginx's USR2, WINCH and QUIT under load: nobody is refused, nothing but idle connections ends."""
    nginx, wrk = shutil.which("nginx", path="/usr/sbin:/usr/bin"), shutil.which("wrk")
    configuration = bed.scratch / "nginx.conf"
    configuration.write_text(NGINX.format(scratch=bed.scratch, port=PORT))
    pid_file, old_file = bed.scratch / "nginx.pid", bed.scratch / "nginx.pid.oldbin"
    bed.spawn_sut([nginx, "-c", configuration]).wait(30)
    beds.wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), 30, "nginx's start")
    loads = [
        bed.spawn_peer([wrk, "-t1", "-c10", f"-d{options.seconds}", *more, f"http://{bed.sut_address}:{PORT}/"], name=name)
        for name, more in (("load", []), ("load-close", ["-H", "Connection: close"]))
    ]
    for _ in range(options.upgrades):
        old = int(pid_file.read_text())
        os.kill(old, signal.SIGUSR2)
        beds.wait_until(lambda: old_file.exists() and pid_file.exists() and pid_file.read_text().strip(), 30, "the new master")
        new = int(pid_file.read_text())
        beds.wait_until(lambda: len(beds.children(new)) == 2, 30, "the new workers")
        os.kill(old, signal.SIGWINCH)
        beds.wait_until(lambda: beds.children(old) == [new], 30, "the end of the old workers")
        os.kill(old, signal.SIGQUIT)
        # A master whose parent is still there ignores the next such signal.
        beds.wait_until(lambda: not old_file.exists() and parent_of(new) != old, 30, "the end of the old master")
    for load in loads:
        assert load.wait(options.seconds + 30) == 0
        text = bed.output(load.name)
        assert not re.search(r"connect [1-9]|timeout [1-9]|Non-2xx", text), text
        assert int(re.search(r"(\d+) requests in", text)[1]) > 100, text
    os.kill(int(pid_file.read_text()), signal.SIGQUIT)
    beds.wait_until(lambda: not pid_file.exists(), 30, "nginx's end")


CASES = {"activation": activation, "shell": shell, "spawned": spawned, "hops": hops, "refused": refused, "upgrade": upgrade}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--seconds", type=int, default=3, help="how long the load on nginx lasts")
    parser.add_argument("--upgrades", type=int, default=2)
    parser.add_argument("--kills", type=int, default=10, help="how many children are killed while they begin")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="which; all without one")
    options = parser.parse_args()
    for name in options.cases or CASES:
        traces = options.build / "test-traces" / f"executed-{name}-{options.mode}"
        if os.fork() == 0:  # who has entered a namespace does not come back
            problem = None
            with beds.Bed(options.mode, options.build, traces) as bed:
                bed.peer_space.enter()
                try:
                    CASES[name](bed, options)
                except (AssertionError, OSError, TimeoutError, ValueError) as error:
                    problem = f"{name}: {type(error).__name__} {error}"
                    bed.explain_hang()
            os._exit(beds.conclude(problem, traces, "*.*"))
        if os.waitstatus_to_exitcode(os.wait()[1]) != 0:
            return 1
        print(f"ok   {name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
