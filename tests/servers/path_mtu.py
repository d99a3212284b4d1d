#!/usr/bin/env python3
"""A router of the kernel's between two hosts takes less than their links: what is sent gets there all the same, at once.

  path_mtu.py --build build/release --mode zpstack-veth --family ip4
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

NETWORKS = {"ip4": ("198.18.99.1", "198.18.99.2", 24), "ip6": ("fd99::1", "fd99::2", 64)}
MTU, PORT = 1300, 7150
# Says how much came by a connection, and answers datagrams with their length.
SERVER = f"""
import socket  # serves both families
listener = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
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
import json, socket, sys
far = sys.argv[1]
family, mtu_option = (socket.AF_INET6, (socket.IPPROTO_IPV6, 24)) if ":" in far else (socket.AF_INET, (socket.IPPROTO_IP, 14))
said = {{}}
connection = socket.create_connection((far, {PORT}), 30)
connection.sendall(bytes(i * 7 % 256 for i in range(1_000_000)))
connection.shutdown(socket.SHUT_WR)
said["answer"] = connection.recv(100).decode()
said["mtu"] = connection.getsockopt(*mtu_option)
said["datagrams"] = []
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.connect((far, {PORT}))
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
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    router.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1", "netns", str(far.pid))
    for space, device, side in ((router, "far0", 0), (far, "far1", 1)):
        for *addresses, prefix in NETWORKS.values():
            space.run("ip", "address", "add", f"{addresses[side]}/{prefix}", "dev", device, *(["nodad"] if prefix == 64 else []))
        space.run("ip", "link", "set", device, "up")
    router.run("ip", "route", "change", "198.18.99.0/24", "dev", "far0", "proto", "kernel", "scope", "link", "src", "198.18.99.1", "mtu", str(MTU))
    router.run("ip", "-6", "route", "change", "fd99::/64", "dev", "far0", "proto", "kernel", "metric", "256", "mtu", str(MTU))
    for near, _, _ in NETWORKS.values():
        far.run("ip", "route", "add", "default", "via", near)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--family", choices=NETWORKS, required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"path-mtu-{options.mode}-{options.family}"
    with beds.Bed(options.mode, options.build, traces) as bed, contextlib.closing(beds.Namespace()) as far:
        join(bed.peer_space, far)
        environment = bed.sut_environment()
        if bed.hooked:
            environment.update(ZPS_UDP="stack", ZPS_IP=f"{bed.sut_address}/24,{bed.sut_address6}/64", ZPS_GATEWAY=f"{bed.peer_address},{bed.peer_address6}")
        else:
            for router in (bed.peer_address, bed.peer_address6):
                bed.sut_space.run("ip", "route", "add", "default", "via", router)
        server = subprocess.Popen([sys.executable, "-c", SERVER], preexec_fn=far.enter, stdout=subprocess.PIPE)
        server.stdout.readline()
        client = bed.spawn_sut([sys.executable, "-c", CLIENT, NETWORKS[options.family][1]], name="client", environment=environment)
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
