#!/usr/bin/env python3
"""A program on a VLAN of a tap: it serves who is on that VLAN, of either family, hears nothing of others, and says how much that was.

And two prefixed programs on one of a wire between them.

  vlan.py --build build/release
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import pathlib
import random
import re
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402
import vlan as vlans  # noqa: E402

OURS, OTHERS, PORT = 5, 6, 7161
OWN, PEER, OWN6, PEER6 = "198.18.7.2", "198.18.7.1", "fd97::2", "fd97::1"
SERVER = """
import socket, sys
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("listens", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        data = connection.makefile("rb").read()
        if data == b"end":
            sys.exit(0)
        connection.sendall(data)
"""
CLIENT = """
import random, socket, sys
data = random.Random(1).randbytes(1_000_000)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as client:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)
    print("same" if client.makefile("rb").read() == data else "other", flush=True)
"""


def exchange(address, data):
    with socket.create_connection((address, PORT), 30) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read()


def is_dead(address):
    """Nobody answers there, not even a question for its station."""
    with contextlib.suppress(OSError), socket.create_connection((address, PORT), 0.3):
        return False
    return True


def sent_by(device):
    """Packets that this kernel, or who sends in its place, has given to the device."""
    for line in pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == device:
            return int(numbers.split()[9])
    raise AssertionError(f"there is no {device}")


def run(bed):
    environment = bed.sut_environment(ZPS_WIRE="tap", ZPS_IP=f"{OWN}/24,{OWN6}/64", ZPS_VLAN=OURS, ZPS_LEDGER=1)
    server = bed.spawn_sut([sys.executable, "-c", SERVER, PORT], name="server", environment=environment)
    beds.wait_until(lambda: "listens" in bed.output("server") or server.poll() is not None, 30, "the server's start")
    space = bed.sut_space
    with contextlib.closing(vlans.Vlan(space, "zps0", OTHERS, "other", f"{PEER}/24")):
        space.enter()
        before = sent_by("zps0")
        if not is_dead(OWN):
            raise AssertionError(f"a server on VLAN {OURS} answers on VLAN {OTHERS}")
        beds.wait_until(lambda: sent_by("zps0") > before, 30, "a frame of the other VLAN")
        space.run("ip", "address", "flush", "dev", "other")
    with contextlib.closing(vlans.Vlan(space, "zps0", OURS, "ours", f"{PEER}/24")):
        space.run("ip", "address", "add", f"{PEER6}/64", "dev", "ours", "nodad")
        for size in (1, 1447, 1448, 1449, 70_000, 1_000_000):
            data = random.Random(size).randbytes(size)
            for address in (OWN, OWN6):
                if exchange(address, data) != data:
                    raise AssertionError(f"{address} gives other {size} bytes back")
        exchange(OWN, b"end")
    server.wait(30)
    dropped = re.search(r"ledger: (\d+) frames of other VLANs", bed.output("server"))
    if not dropped or int(dropped.group(1)) < 1:
        raise AssertionError("what came on the other VLAN is not counted")


def between(bed, ours, theirs):
    """A server on wire `ours`, a client on wire `theirs`."""
    name = ours.partition(":")[0]
    path = f"{bed.scratch}/{name}.sock"

    def start(role, wire, address, program, argv):
        environment = bed.sut_environment(ZPS_WIRE=wire.format(path), ZPS_IP=f"{address}/24", ZPS_VLAN=OURS)
        return bed.spawn_sut([sys.executable, "-c", program, *argv], name=f"{name}-{role}", environment=environment)

    server = start("server", ours, OWN, SERVER, [PORT])
    beds.wait_until(lambda: "listens" in bed.output(f"{name}-server") or server.poll() is not None, 30, "the server's start")
    start("client", theirs, PEER, CLIENT, [OWN, PORT]).wait(60)
    server.kill()
    server.wait()
    if "same" not in bed.output(f"{name}-client"):
        raise AssertionError(f"{ours}: {bed.output(f'{name}-client')}")


def refuses(bed):
    """A wire whose interface is the kernel's: so are its VLANs."""
    environment = bed.sut_environment(ZPS_WIRE="af_packet:zps0", ZPS_IP=f"{OWN}/24", ZPS_VLAN=OURS)
    server = bed.spawn_sut([sys.executable, "-c", SERVER, PORT], name="refused", environment=environment)
    if server.wait(30) != 127 or "af_packet:eth0.5" not in bed.output("refused"):
        raise AssertionError(f"no line about the kernel's VLANs: {bed.output('refused')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / "vlan"
    problem = None
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        try:
            run(bed)
            between(bed, "memif:{},role=server", "memif:{},role=client")
            between(bed, "vhost:{},role=server", "virtio-user:{},role=client")
            refuses(bed)
        except (OSError, AssertionError, TimeoutError, subprocess.TimeoutExpired) as error:
            problem = f"{type(error).__name__}: {error}"
    return beds.conclude(problem, traces, "*.???")


if __name__ == "__main__":
    sys.exit(main())
