#!/usr/bin/env python3
"""Several prefixed programs on one host: each gets the next free pair and network, all are reachable at once, each may be replaced.

Ports of wildcard listeners differ: they listen on the host's loopback as well, and two programs cannot share a port there. At its own
address a program has all ports, whatever the host and other programs listen at.

  several_programs.py --build build/release
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import re
import shutil
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7107
LISTENER = """
import socket, sys
listener = socket.socket()
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print("listens", flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.sendall(sys.argv[1].encode())
    accepted.close()
"""


def start(bed, number):
    ready = bed.scratch / f"ready{number}"
    server = bed.spawn_sut([bed.build / "echo_server", "daemon", PORT + number, ready], name=f"server{number}", environment=bed.sut_environment(ZPS_LOG="info"))
    beds.wait_until(lambda: ready.exists() or server.poll() not in (None, 0), 30, f"server {number}'s start")
    found = re.search(r"veth (zps\d+) .*?: (198\.18\.\d+\.2)", bed.output(f"server{number}"))
    if not found:
        raise AssertionError(f"server {number} does not say where it can be reached: {bed.output(f'server{number}')!r}")
    return int(ready.read_text()), found.group(1), found.group(2), PORT + number


def talk(pid, address, port):
    """One exchange; the server's greeting tells who serves."""
    with socket.create_connection((address, port), 30) as client:
        file = client.makefile("rb")
        served_by = int.from_bytes(file.read(4), "little")
        if served_by != pid:
            raise AssertionError(f"{address} is served by {served_by}, not by {pid}")
        client.sendall(b"x" * 10000)
        if file.read(10000) != b"x" * 10000:
            raise AssertionError(f"{address} echoes something else")


def share_a_port(bed, port):
    """Two programs listen at their addresses, the host at all of its own, at one port."""
    host = socket.create_server(("", port))
    addresses = [f"198.18.{number}.2" for number in (3, 4)]
    for address in addresses:
        name = f"at-{address}"
        server = bed.spawn_sut([sys.executable, "-c", LISTENER, address, port], name=name, environment=bed.sut_environment())
        beds.wait_until(lambda: "listens" in bed.output(name) or server.poll() is not None, 30, f"a listener at {address}")
    for address in addresses:
        with socket.create_connection((address, port), 30) as client:
            if client.makefile().read() != address:
                raise AssertionError(f"{address} is not served by its own program")
    host.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / "two-programs"
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        bed.sut_space.enter()
        servers = [start(bed, number) for number in range(3)]
        if len({device for _, device, _, _ in servers}) != 3 or len({address for _, _, address, _ in servers}) != 3:
            raise AssertionError(f"not three places: {servers}")
        for pid, device, address, port in servers:
            print(f"process {pid} on {device} at {address}:{port}")
            talk(pid, address, port)
        # One dies without a word and is started again at once, while the kernel may still be busy with its old pair: it gets its place back.
        for number in range(3, 13):
            pid, device, address, port = servers[1]
            beds.os.kill(pid, beds.signal.SIGKILL)
            beds.wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 30, "the death of a server")
            servers[1] = start(bed, number)
            if servers[1][1:3] != (device, address):
                raise AssertionError(f"the place of the dead one is not used again: {servers[1]}")
            talk(*(servers[1][i] for i in (0, 2, 3)))
        print(f"after ten kills: process {servers[1][0]} on {servers[1][1]} at {servers[1][2]}")
        for pid, device, address, port in servers:
            talk(pid, address, port)
        share_a_port(bed, PORT + 100)
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
