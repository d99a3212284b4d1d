#!/usr/bin/env python3
"""A router of the kernel's between two hosts takes less than their links: what is sent over IPv6 gets there all the same, at once.

  path_mtu.py --build build/release --mode zpstack-veth
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

NEAR, FAR, MTU, PORT = "fd99::1", "fd99::2", 1300, 7150
# Says how much came by a connection, and answers datagrams with their length.
SERVER = f"""
import socket
listener = socket.create_server(("::", {PORT}), family=socket.AF_INET6)
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("::", {PORT}))
print("listens", flush=True)
connection, _ = listener.accept()
received = bytearray()
while part := connection.recv(65536):
    received += part
connection.sendall(b"right" if received == bytes(i * 7 % 256 for i in range(1_000_000)) else b"wrong")
connection.close()
while True:
    text, peer = datagrams.recvfrom(65536)
    datagrams.sendto(str(len(text)).encode(), peer)
"""
CLIENT = f"""
import json, socket
IPV6_MTU = 24
said = {{}}
connection = socket.create_connection(("{FAR}", {PORT}), 30)
connection.sendall(bytes(i * 7 % 256 for i in range(1_000_000)))
connection.shutdown(socket.SHUT_WR)
said["answer"] = connection.recv(100).decode()
said["mtu"] = connection.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)
said["datagrams"] = []
sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sender.connect(("{FAR}", {PORT}))
sender.settimeout(1)
for size in (1250, 1400, 30_000):
    for _ in range(20):  # what is on its way when the router speaks is lost
        try:
            sender.send(bytes(size))
            said["datagrams"].append(int(sender.recv(100)))
            break
        except OSError:
            pass
print(json.dumps(said), flush=True)
"""


def join(router, far):
    """A host behind the router, over a path that takes MTU bytes."""
    router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    router.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1", "netns", str(far.pid))
    for space, device, address in ((router, "far0", NEAR), (far, "far1", FAR)):
        space.run("ip", "address", "add", f"{address}/64", "dev", device, "nodad")
        space.run("ip", "link", "set", device, "up")
    router.run("ip", "-6", "route", "change", "fd99::/64", "dev", "far0", "proto", "kernel", "metric", "256", "mtu", str(MTU))
    far.run("ip", "-6", "route", "add", "default", "via", NEAR)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"path-mtu-{options.mode}"
    with beds.Bed(options.mode, options.build, traces) as bed, contextlib.closing(beds.Namespace()) as far:
        join(bed.peer_space, far)
        environment = bed.sut_environment()
        if bed.hooked:
            environment.update(ZPS_UDP="stack", ZPS_IP=f"{bed.sut_address}/24,{bed.sut_address6}/64", ZPS_GATEWAY=f"{bed.peer_address},{bed.peer_address6}")
        else:
            bed.sut_space.run("ip", "-6", "route", "add", "default", "via", bed.peer_address6)
        server = subprocess.Popen([sys.executable, "-c", SERVER], preexec_fn=far.enter, stdout=subprocess.PIPE)
        server.stdout.readline()
        client = bed.spawn_sut([sys.executable, "-c", CLIENT], name="client", environment=environment)
        client.wait(90)
        said = json.loads(next((line for line in bed.output("client").splitlines() if line.startswith("{")), "{}"))
        server.kill()
        server.wait()
        expected = {"answer": "right", "mtu": MTU, "datagrams": [1250, 1400, 30_000]}
        if said != expected:
            print(f"{said} in place of {expected}: {bed.output('client')}")
            return 1
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
