#!/usr/bin/env python3
"""Bulk through a device whose offloads are switched off, before the program starts and while it serves: as fast as the kernel's own stack, byte for byte.

  offloads.py --build build/release [--rounds 4] [--least 0.5]

A veth pair joins two namespaces; in one a plain client, in the other the server, first natively, then on the af_packet wire of the same device.
Each state of the device is measured with both, in both directions. On the wires that make a link of their own the host's end of it loses its offloads.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import hashlib
import pathlib
import random
import shutil
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

CLIENT, SERVER, PORT = "198.18.40.1", "198.18.40.2", 7300
BYTES = 8 << 20
MOST_SECONDS = 20  # for BYTES
OFFLOADS = ("tx", "sg", "tso", "gro")
# What is on, one state after the other on the same connections; the server starts in the first.
STATES = (("tx", "sg"), ("tx", "sg", "tso"), ("tx",), (), OFFLOADS)
DATA = random.Random(1).randbytes(BYTES)

SERVE = f"""
import hashlib, random, socket
data = random.Random(1).randbytes({BYTES})
listener = socket.create_server(("{SERVER}", {PORT}))
while True:
    client, _ = listener.accept()
    while (wanted := client.recv(1)) not in (b"", b"q"):
        if wanted == b"d":
            client.sendall(data)
            continue
        digest, left = hashlib.sha256(), {BYTES}
        while left > 0:
            piece = client.recv(min(left, 1 << 18))
            digest.update(piece)
            left -= len(piece)
        client.sendall(digest.digest())
    client.close()
    if wanted == b"q":
        break
"""


def receive(client, count):
    data, end = bytearray(), time.monotonic() + MOST_SECONDS
    while len(data) < count:
        if time.monotonic() > end:
            raise AssertionError(f"only {len(data)} of {count} bytes within {MOST_SECONDS} s")
        piece = client.recv(min(count - len(data), 1 << 18))
        if not piece:
            raise AssertionError(f"the connection ends after {len(data)} of {count} bytes")
        data += piece
    return bytes(data)


class Device:
    """A device of a namespace whose offloads are switched."""

    def __init__(self, space, name):
        self.space, self.name = space, name

    def switch(self, on):
        for offload in OFFLOADS:  # some devices do not have all of them
            self.space.run("sh", "-c", f"ethtool -K {self.name} {offload} {'on' if offload in on else 'off'} 2>/dev/null || true")


class Pair(Device):
    """One end of a veth pair; the other is the client's."""

    def __init__(self, near, far):
        super().__init__(far, "va")
        near.run("ip", "link", "add", "vb", "type", "veth", "peer", "name", "va", "netns", str(far.pid))
        near.run("ip", "address", "add", f"{CLIENT}/24", "dev", "vb")
        near.run("ip", "link", "set", "vb", "up")
        far.run("ip", "link", "set", "va", "up")


def rates(client, device, digest):
    """Megabytes a second of each state, there and back."""
    found = []
    for on in STATES:
        device.switch(on)
        for direction, command in (("from", b"d"), ("to", b"u")):
            start = time.monotonic()
            client.sendall(command)
            if command == b"u":
                client.sendall(DATA)
            got = receive(client, BYTES if command == b"d" else 32)
            took = time.monotonic() - start
            if (hashlib.sha256(got).digest() if command == b"d" else got) != digest:
                raise AssertionError(f"{direction} the server, {on or 'nothing'} on: other bytes than were sent")
            found.append(BYTES / took / 1e6)
    return found


def measure(bed, device, wire, name):
    environment = beds.clean_environment()
    if wire:
        environment = bed.sut_environment(ZPS_WIRE=wire, ZPS_IP=f"{SERVER}/24")
    else:
        device.space.run("ip", "address", "add", f"{SERVER}/24", "dev", "va")
    device.switch(STATES[0])
    server = bed._spawn(["/usr/bin/python3", "-S", "-c", SERVE], name, device.space, environment, {})
    client = beds.wait_until(lambda: connect(server), 30, "the server's start")
    client.settimeout(MOST_SECONDS)
    found = rates(client, device, hashlib.sha256(DATA).digest())
    client.sendall(b"q")
    client.close()
    server.wait(30)
    if not wire:
        device.space.run("ip", "address", "delete", f"{SERVER}/24", "dev", "va")
    return found


def connect(server):
    if server.poll() is not None:
        raise AssertionError(f"the server ended with {server.returncode}")
    try:
        return socket.create_connection((SERVER, PORT), 5)
    except OSError:
        return None


def attempt(bed, number):
    """What share of the kernel's rate each state and direction reaches."""
    device = Pair(bed.peer_space, bed._namespace())
    plain = measure(bed, device, None, f"native{number}")
    hooked = measure(bed, device, "af_packet:va", f"hooked{number}")
    bed.peer_space.run("ip", "link", "delete", "vb")
    shares = {}
    for i, (native, ours) in enumerate(zip(plain, hooked)):
        case = f"{'+'.join(STATES[i // 2]) or 'nothing'} on, {('from', 'to')[i % 2]} the server"
        shares[case] = ours / native
        print(f"{case:34} {native:7.1f} MB/s natively, {ours:7.1f} hooked, {ours / native:.2f}", flush=True)
    return shares


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=4, help="at most; fewer if each case has been quick enough once: others may use the machine")
    parser.add_argument("--least", type=float, default=0.5, help="of the kernel's rate, in each case once")
    options = parser.parse_args()
    traces = options.build / "test-traces" / "offloads"
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        bed.peer_space.enter()
        best = {}
        for number in range(options.rounds):
            for case, share in attempt(bed, number).items():
                best[case] = max(share, best.get(case, 0))
            slow = {case: share for case, share in best.items() if share < options.least}
            if not slow:
                break
        if slow:
            raise AssertionError(f"slower than {options.least} of the kernel: {slow}")
        for wire in ("veth", "tap"):
            found = measure(bed, Device(bed.peer_space, "zps0"), wire, wire)
            print(f"{wire}: {', '.join(f'{rate:.0f}' for rate in found)} MB/s")
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
