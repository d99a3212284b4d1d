#!/usr/bin/env python3
"""Static programs serve by `zpstack run`: a server with threads built with musl and with glibc, busybox's nc and httpd, a Go server without cgo.

  static_servers.py --build build/release --mode kernel|zpstack-veth [--clients 8] [--turns 10] [musl glibc pie nc httpd go]

Each gets what it is asked by many clients at once, answers with the same bytes as natively, and its peer is told when it is killed. What this machine
cannot build or has not got is left out.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import concurrent.futures
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
PORT = 8097
PAGE = random.Random(3).randbytes(200000)


def start(bed, *command):
    """By the tool where there is a stack."""
    environment = bed.sut_environment()
    if bed.hooked:
        environment.pop("LD_PRELOAD")
        command = (bed.build / "zpstack", "run", "--", *command)
    server = bed.spawn_sut(command, environment=environment, cwd=bed.scratch)
    bed.peer_space.enter()
    return server


def connect(bed):
    connection = socket.create_connection((bed.sut_address, PORT), 30)
    connection.settimeout(30)
    return connection


def accepts(bed, server):
    assert server.poll() is None, f"it ends with {server.returncode}: {bed.output('sut')}"
    try:
        connect(bed).close()
    except OSError:
        return False
    return True


def receive_all(connection):
    data = b""
    while piece := connection.recv(1 << 16):
        data += piece
    return data


def echo(bed, number, turns):
    """One connection after the other, each with other bytes, a piece and its echo in turns."""
    random_bytes = random.Random(number)
    for _ in range(turns):
        with connect(bed) as connection:
            for _ in range(4):
                piece = random_bytes.randbytes(random_bytes.choice((1, 100, 3000, 100000)))
                connection.sendall(piece)
                got = b""
                while len(got) < len(piece):
                    more = connection.recv(len(piece) - len(got))
                    assert more, f"the connection ends after {len(got)} of {len(piece)} bytes"
                    got += more
                assert got == piece, "other bytes came back"


def everybody(options, act):
    with concurrent.futures.ThreadPoolExecutor(options.clients) as clients:
        list(clients.map(act, range(options.clients)))


def sleeps(server):
    """All its threads: who is killed in the midst of a turn in the stack resets its connections."""
    return all(stat.read_text().rpartition(")")[2].split()[0] == "S" for stat in pathlib.Path(f"/proc/{server.pid}/task").glob("*/stat"))


def told_when_killed(bed, server):
    with connect(bed) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        beds.wait_until(lambda: sleeps(server), 30, "the server's sleep")
        begin = time.monotonic()
        server.kill()
        assert connection.recv(1) == b""
        assert time.monotonic() - begin < 5, "the peer of a killed server is told late"


def threads(bed, options, compiler, *flags):
    program = bed.scratch / "server"
    subprocess.run([compiler, "-O2", *flags, "-pthread", "-o", program, HERE / "static_server.c"], check=True)
    server = start(bed, program, str(PORT))
    beds.wait_until(lambda: accepts(bed, server), 30, "the server's start")
    everybody(options, lambda number: echo(bed, number, options.turns))
    told_when_killed(bed, server)


def nc(bed, _):
    """One connection, both ways, then the end."""
    server = start(bed, "/bin/busybox", "nc", "-l", "-p", str(PORT), "-e", "/bin/busybox", "cat")
    begin = time.monotonic()
    while True:
        try:
            connection = connect(bed)
            break
        except OSError:
            assert time.monotonic() - begin < 20 and server.poll() is None, bed.output("sut")
            time.sleep(0.01)
    with connection:
        connection.sendall(PAGE[:50000])
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == PAGE[:50000]
    assert server.wait(30) == 0


def fetch(bed, path, body=None):
    with urllib.request.urlopen(f"http://{bed.sut_address}:{PORT}/{path}", body, timeout=30) as answer:
        return answer.read()


def httpd(bed, options):
    """A child for each connection."""
    (bed.scratch / "page").write_bytes(PAGE)
    server = start(bed, "/bin/busybox", "httpd", "-f", "-p", str(PORT), "-h", bed.scratch)
    beds.wait_until(lambda: accepts(bed, server), 30, "the server's start")

    def ask(_):
        for _ in range(options.turns):
            assert fetch(bed, "page") == PAGE

    everybody(options, ask)


def go(bed, options):
    program = bed.scratch / "server"
    environment = {**beds.clean_environment(), "GOCACHE": str(options.build.resolve() / "go-cache"), "GO111MODULE": "off", "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", program, HERE / "go_server.go"], env=environment, check=True)
    server = start(bed, program, str(PORT))
    beds.wait_until(lambda: accepts(bed, server), 30, "the server's start")

    def converse(number):
        sizes = random.Random(number)
        for _ in range(options.turns):
            body = sizes.randbytes(sizes.choice((1, 1000, 100000)))
            assert fetch(bed, "echo", body) == body
        assert fetch(bed, "child") == b"of a child\n"

    everybody(options, converse)
    assert server.poll() is None


def is_static(path):
    return pathlib.Path(path).exists() and b"/ld-linux" not in pathlib.Path(path).read_bytes()[:4096]


# What each takes, and whether that is here.
CASES = {
    "musl": (lambda bed, options: threads(bed, options, "musl-gcc", "-static"), lambda: shutil.which("musl-gcc")),
    "glibc": (lambda bed, options: threads(bed, options, "gcc", "-static"), lambda: True),
    "pie": (lambda bed, options: threads(bed, options, "gcc", "-static-pie"), lambda: True),
    "nc": (nc, lambda: is_static("/bin/busybox")),
    "httpd": (httpd, lambda: is_static("/bin/busybox")),
    "go": (go, lambda: shutil.which("go")),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES])
    options = parser.parse_args()
    for name in options.cases or CASES:
        case, is_here = CASES[name]
        if not is_here():
            print(f"     {name} is left out: not here")
            continue
        traces = options.build / "test-traces" / f"static-{name}-{options.mode}"
        begin = time.monotonic()
        if os.fork() == 0:  # who has entered a namespace does not come back
            problem = None
            with beds.Bed(options.mode, options.build, traces) as bed:
                try:
                    case(bed, options)
                except (AssertionError, OSError, TimeoutError, subprocess.SubprocessError) as error:
                    problem = f"{name}: {type(error).__name__} {error}"
                    bed.explain_hang()
            os._exit(beds.conclude(problem, traces, "*.*"))
        if os.waitstatus_to_exitcode(os.wait()[1]) != 0:
            return 1
        print(f"ok   {name} {options.mode} {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
