#!/usr/bin/env python3
"""haproxy in TCP mode that splices, between clients on the wire and two backends: one on the wire, one on the kernel's loopback.

Every byte is compared in both directions, and haproxy must say that it has spliced.

  splice_proxy.py --build build/release --mode zpstack-veth
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import random
import re
import shutil
import socket
import struct
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

FAR, NEAR, WIRE, LOOPBACK = 7200, 7201, 7300, 7301
SKIPPED = 77
CONNECTIONS, TURNS = 12, 6

CONFIGURATION = """
global
  nbthread 2
  maxpipes 64
  stats socket {scratch}/stats
defaults
  mode tcp
  option splice-request
  option splice-response
  timeout connect 30s
  timeout client 60s
  timeout server 60s
listen far
  bind {own}:{far}
  server wire {peer}:{wire}
listen near
  bind {own}:{near}
  server loopback 127.0.0.1:{loopback}
"""


def body(seed, size):
    return random.Random(seed).randbytes(size)


def read_exactly(connection, size):
    got = bytearray()
    while len(got) < size:
        part = connection.recv(min(1 << 18, size - len(got)))
        if not part:
            raise AssertionError(f"ended after {len(got)} of {size} bytes")
        got += part
    return bytes(got)


def serve(port, ready):
    """A backend: for each request (sizes and seeds of two bodies) it takes the first body, compares it, and answers with the second."""
    def converse(connection):
        with connection:
            while True:
                head = connection.recv(24, socket.MSG_WAITALL)
                if len(head) < 24:
                    return
                up, down, seed = struct.unpack("<QQQ", head)
                right = read_exactly(connection, up) == body(seed, up)
                connection.sendall(body(seed + 1, down) if right else b"!" * down)

    listener = socket.create_server(("", int(port)), backlog=64)  # the address comes with the wire
    pathlib.Path(ready).touch()
    while True:
        threading.Thread(target=converse, args=(listener.accept()[0],), daemon=True).start()


def talk(address, port, number, problems):
    try:
        sizes = random.Random(number)
        with socket.create_connection((address, port), 60) as client:
            for turn in range(TURNS):
                up, down, seed = (sizes.choice((1, 1000, 70000, 1 << 20)) + sizes.randrange(5000) for _ in range(3))
                client.sendall(struct.pack("<QQQ", up, down, seed) + body(seed, up))
                if read_exactly(client, down) != body(seed + 1, down):
                    raise AssertionError(f"turn {turn}: {up} up, {down} down: not what was sent")
            client.shutdown(socket.SHUT_WR)
            if client.recv(1):
                raise AssertionError("more than was sent")
    except (AssertionError, OSError) as error:
        problems.append(f"connection {number} to port {port}: {error!r}")


def spliced_bytes(scratch):
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(f"{scratch}/stats")
        control.sendall(b"show info\n")
        text = b"".join(iter(lambda: control.recv(65536), b"")).decode()
    return int(re.search(r"TotalSplic\w+BytesOut: (\d+)", text).group(1))


def answers(address, port):
    try:
        socket.create_connection((address, port), 5).close()
        return True
    except OSError:
        return False


def run(bed):
    here = pathlib.Path(__file__).resolve()
    for name, spawn, port in (("wire", bed.spawn_peer, WIRE), ("loopback", bed.spawn_sut, LOOPBACK)):
        ready = bed.scratch / f"ready-{name}"
        spawn([sys.executable, here, "--backend", port, ready], name=name, environment=beds.clean_environment())
        beds.wait_until(ready.exists, 30, f"backend {name}")
    file = bed.scratch / "haproxy.cfg"
    places = {"far": FAR, "near": NEAR, "wire": WIRE, "loopback": LOOPBACK}
    file.write_text(CONFIGURATION.format(scratch=bed.scratch, own=bed.sut_address, peer=bed.peer_address, **places))
    proxy = bed.spawn_sut(["haproxy", "-db", "-f", file], name="haproxy")
    bed.peer_space.enter()
    for port in (FAR, NEAR):
        beds.wait_until(lambda: answers(bed.sut_address, port) or proxy.poll() is not None, 30, "haproxy's start")
    problems = []
    pairs = [(port, number) for number in range(CONNECTIONS) for port in (FAR, NEAR)]
    clients = [threading.Thread(target=talk, args=(bed.sut_address, port, number, problems)) for port, number in pairs]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if problems:
        raise AssertionError("; ".join(problems))
    spliced = spliced_bytes(bed.scratch)
    print(f"{len(clients)} connections, {TURNS} exchanges each, {spliced} bytes spliced")
    if spliced < 1 << 20:
        raise AssertionError(f"haproxy has spliced {spliced} bytes only")
    if proxy.poll() is not None:
        raise AssertionError(f"haproxy ended with {proxy.returncode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path)
    parser.add_argument("--mode", choices=beds.MODES)
    parser.add_argument("--pcap", action="store_true")
    parser.add_argument("--backend", nargs=2, metavar=("PORT", "READY"))
    options = parser.parse_args()
    if options.backend:
        serve(*options.backend)
    if not shutil.which("haproxy"):
        print("skipped: no haproxy here")
        return SKIPPED
    traces = options.build / "test-traces" / f"splice-proxy-{options.mode}"
    problem = None
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        try:
            run(bed)
        except (AssertionError, TimeoutError) as error:
            problem = error
            bed.explain_hang()
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
