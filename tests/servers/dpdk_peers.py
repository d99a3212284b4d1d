#!/usr/bin/env python3
"""A prefixed server whose wire leads to DPDK's own driver: dpdk-testpmd passes frames on between that and a tap, where the kernel verifies and fills checksums.

Of each wire both roles, the program or testpmd first: echoes of streams and datagrams over IPv4 and IPv6, redis, testpmd's death and return. With checksums turned off the kernel must find fault, or this shows nothing.

  dpdk_peers.py --build build/release [--wire memif]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT, TAP = 7210, "dtap0"
OWN, OWN6, KERNEL, KERNEL6 = "198.18.9.1", "fdc6:1200:0:ff::77", "198.18.9.2", "fdc6:1200:0:ff::78"
# Our wires, and testpmd's device at the other end of each.
WIRES = {
    "memif": (
        ("memif:{path},role=server", "net_memif0,role=client,socket={path},socket-abstract=no"),
        ("memif:{path},role=client", "net_memif0,role=server,socket={path},socket-abstract=no"),
    ),
    "virtio-user": (
        ("virtio-user:{path},role=server", "net_vhost0,iface={path},client=1"),
        ("virtio-user:{path},role=client", "net_vhost0,iface={path}"),
    ),
    # DPDK does not seal its memory.
    "vhost": (
        ("vhost:{path},role=server,memory=any", "net_virtio_user0,path={path}"),
        ("vhost:{path},role=client,memory=any", "net_virtio_user0,path={path},server=1"),
    ),
}
ECHO = """
import select, socket, sys
port = int(sys.argv[1])
poll, connections, streams, datagrams = select.epoll(), {}, [], []
for family in socket.AF_INET, socket.AF_INET6:
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(family, kind)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", port))
        if kind == socket.SOCK_STREAM: s.listen()
        (streams if kind == socket.SOCK_STREAM else datagrams).append(s)
        poll.register(s, select.EPOLLIN)
print("serves", flush=True)
while True:
    for fd, _ in poll.poll():
        listener = next((s for s in streams if s.fileno() == fd), None)
        receiver = next((s for s in datagrams if s.fileno() == fd), None)
        if listener:
            new, _ = listener.accept()
            connections[new.fileno()] = new
            poll.register(new, select.EPOLLIN)
        elif receiver:
            data, source = receiver.recvfrom(65536)
            receiver.sendto(data, source)
        else:
            try:
                data = connections[fd].recv(65536)
                if data: connections[fd].sendall(data)
            except OSError:
                data = b""
            if not data: connections.pop(fd).close()
"""


class Switch:
    """testpmd, and the tap at its far end."""

    def __init__(self, bed, device, serial):
        self.bed = bed
        self.name = f"testpmd{serial}"
        argv = ["dpdk-testpmd", "--no-huge", "--no-shconf", "-m", "96", "--no-pci", "--no-telemetry", f"--file-prefix={self.name}-{os.getpid()}", "-l", "0,1"]
        argv += [f"--vdev={device}", f"--vdev=net_tap0,iface={TAP}", "--", "--total-num-mbufs=4096", "--forward-mode=io", "--auto-start", "-i"]
        self.process = bed.spawn_peer(argv, name=self.name, stdin=subprocess.PIPE, environment=beds.clean_environment())
        beds.wait_until(lambda: "testpmd>" in bed.output(self.name) or self.process.poll() is not None, 40, "testpmd's start")
        if self.process.poll() is not None:
            raise AssertionError(f"testpmd does not start: {bed.output(self.name)[-600:]}")
        for command in (["address", "add", f"{KERNEL}/24", "dev", TAP], ["address", "add", f"{KERNEL6}/64", "dev", TAP, "nodad"], ["link", "set", TAP, "up"]):
            bed.peer_space.run("ip", *command)

    def connect_again(self):
        self.process.stdin.write(b"stop\nport stop 0\nport start 0\nstart\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


def read_exactly(connection, count):
    got = bytearray()
    while len(got) < count:
        piece = connection.recv(count - len(got))
        if not piece:
            raise ConnectionResetError(f"the end after {len(got)} bytes")
        got += piece
    return bytes(got)


def connect(address):
    """testpmd's link may not be up yet, and its driver drops what comes until then."""

    def attempt():
        with contextlib.suppress(OSError):
            return socket.create_connection((address, PORT), 2)

    return beds.wait_until(attempt, 40, f"a connection to {address}")


def echo_stream(address, count):
    payload = random.Random(count).randbytes(count)
    with connect(address) as connection:
        connection.settimeout(30)
        for at in range(0, count, 50_000):
            piece = payload[at : at + 50_000]
            connection.sendall(piece)
            if read_exactly(connection, len(piece)) != piece:
                raise AssertionError(f"{address} echoes something else")


def echo_datagrams(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        for size in (0, 1, 33, 1400, 1401):
            payload = bytes(i & 255 for i in range(size))

            def exchanged():
                client.sendto(payload, (address, PORT))
                with contextlib.suppress(TimeoutError):
                    return client.recv(65536) == payload

            beds.wait_until(exchanged, 20, f"the echo of {size} bytes from {address}")


def bad_checksums():
    """What the kernel has found wrong: datagrams and segments."""
    rows = [line.split() for line in pathlib.Path("/proc/thread-self/net/snmp").read_text().splitlines()]
    found = {}
    for names, values in zip(rows[::2], rows[1::2]):
        found.update((f"{names[0]}{name}", int(value)) for name, value in zip(names[1:], values[1:]) if name == "InCsumErrors")
    for line in pathlib.Path("/proc/thread-self/net/snmp6").read_text().splitlines():
        name, value = line.split()
        if name.endswith("InCsumErrors"):
            found[name] = int(value)
    return sum(found.values())


def exchange():
    before = bad_checksums()
    for address in (OWN, OWN6):
        echo_stream(address, 300_000)
        echo_datagrams(address)
    if bad_checksums() != before:
        raise AssertionError(f"the kernel found {bad_checksums() - before} bad checksums")


def serve(bed, wire, name, argv=None):
    environment = bed.sut_environment(ZPS_WIRE=wire, ZPS_UDP="stack", ZPS_IP=f"{OWN}/24,{OWN6}/64")
    server = bed.spawn_sut(argv or [sys.executable, "-u", "-c", ECHO, PORT], name=name, environment=environment)
    if not argv:
        beds.wait_until(lambda: "serves" in bed.output(name) or server.poll() is not None, 30, "the server's start")
        if server.poll() is not None:
            raise AssertionError(f"the server does not start: {bed.output(name)}")
    return server


def look_again(bed, switch, device, serial):
    """DPDK's memif client looks for a server when its port is started, its virtio-user client when it is made; the others do by themselves."""
    if "role=client" in device:
        switch.connect_again()
    elif "virtio_user" in device and "server=1" not in device:
        switch.end()
        return Switch(bed, device, serial)
    return switch


def both_orders(bed, wire, device, serial):
    """The server first, testpmd dies and returns, the server dies and another one comes."""
    path = f"{bed.scratch}/{serial}.sock"
    wire, device = wire.format(path=path), device.format(path=path)
    server = serve(bed, wire, f"server{serial}")
    switch = Switch(bed, device, f"{serial}a")
    exchange()
    switch.end()
    if "role=client" in wire:  # DPDK's servers do not remove what a dead one left
        pathlib.Path(path).unlink()
    switch = Switch(bed, device, f"{serial}b")
    exchange()
    server.kill()
    server.wait()
    again = serve(bed, wire, f"server{serial}again")
    switch = look_again(bed, switch, device, f"{serial}c")
    exchange()
    again.kill()
    again.wait()
    redis = serve(bed, wire, f"redis{serial}", ["redis-server", "--port", PORT, "--protected-mode", "no", "--save", "", "--bind", OWN])
    beds.wait_until(lambda: "Ready to accept" in bed.output(f"redis{serial}") or redis.poll() is not None, 30, "redis' start")
    switch = look_again(bed, switch, device, f"{serial}d")
    connect(OWN).close()
    benchmark = subprocess.run(["redis-benchmark", "-h", OWN, "-p", str(PORT), "-t", "set,get", "-n", "2000", "-c", "8", "-d", "3000", "-q"],
                               capture_output=True, text=True, timeout=60)
    if benchmark.returncode != 0 or benchmark.stdout.count("requests per second") != 2:
        raise AssertionError(f"redis-benchmark: {benchmark.stdout} {benchmark.stderr}")
    redis.kill()
    redis.wait()
    switch.end()


def shows_something(bed):
    """Without checksums nothing comes through, and the kernel says why."""
    path = f"{bed.scratch}/off.sock"
    server = serve(bed, f"memif:{path},role=server,checksum=off", "off")
    switch = Switch(bed, f"net_memif0,role=client,socket={path},socket-abstract=no", "off")
    before = bad_checksums()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)

        def found_fault():
            client.sendto(b"?", (OWN6, PORT))
            with contextlib.suppress(TimeoutError):
                raise AssertionError(f"the kernel takes {client.recv(100)} without a checksum")
            return bad_checksums() > before or None

        # Solicitations of neighbours are ICMPv6 and have bad sums too: nothing else may come.
        beds.wait_until(found_fault, 20, "a bad checksum")
    switch.end()
    server.kill()
    server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--wire", choices=WIRES, default="memif")
    options = parser.parse_args()
    if not shutil.which("dpdk-testpmd"):
        raise SystemExit("dpdk-testpmd is missing: scripts/install-deps")
    traces = options.build / "test-traces" / f"dpdk-peers-{options.wire}"
    problem = None
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        bed.peer_space.enter()
        try:
            if options.wire == "memif":
                shows_something(bed)
            for serial, (wire, device) in enumerate(WIRES[options.wire]):
                both_orders(bed, wire, device, serial)
        except (OSError, AssertionError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
    return beds.conclude(problem, traces, "*.???")


if __name__ == "__main__":
    sys.exit(main())
