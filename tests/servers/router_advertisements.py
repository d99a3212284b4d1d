#!/usr/bin/env python3
"""A router of the kernel's advertises itself and a network: a program that has no address of IPv6 gets one, and reaches a host behind it.

  router_advertisements.py --build build/release --mode zpstack-host

Its wire is af_packet, at the interface that is the kernel's in mode kernel.
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

LINK, NEAR, FAR, MTU, PORT = "fd98::1", "fd99::1", "fd99::2", 1400, 7151
# RFC 4861, 4.2: a router for half an hour; the network fd98::/64 for hosts to have addresses in; the link's MTU. Over and over, as long as it runs.
ROUTER = f"""
import socket, struct, time
advertiser = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
advertiser.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
message += struct.pack("!BBBBIII16s", 3, 4, 64, 0xc0, 3600, 1800, 0, socket.inet_pton(socket.AF_INET6, "fd98::"))
message += struct.pack("!BBHI", 5, 1, 0, {MTU})
while True:
    advertiser.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("zps0")))
    time.sleep(0.2)
"""
SERVER = f"""
import socket
listener = socket.create_server(("{FAR}", {PORT}), family=socket.AF_INET6)
print("listens", flush=True)
while True:
    connection, peer = listener.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
CLIENT = f"""
import json, socket, time
end = time.monotonic() + 20
while True:
    try:
        connection = socket.create_connection(("{FAR}", {PORT}), 2)
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.05)
own = connection.getsockname()[0]
print(json.dumps({{"in": own[:6], "mtu": connection.getsockopt(socket.IPPROTO_IPV6, 24), "seen": connection.recv(100).decode() == own}}), flush=True)
"""


def behind(router, far):
    router.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    router.run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "far1", "netns", str(far.pid))
    router.run("ip", "address", "add", f"{LINK}/64", "dev", "zps0", "nodad")
    for space, device, address in ((router, "far0", NEAR), (far, "far1", FAR)):
        space.run("ip", "address", "add", f"{address}/64", "dev", device, "nodad")
        space.run("ip", "link", "set", device, "up")
    far.run("ip", "-6", "route", "add", "default", "via", NEAR)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=("kernel", "zpstack-host"), required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"router-advertisements-{options.mode}"
    with beds.Bed(options.mode, options.build, traces) as bed, contextlib.closing(beds.Namespace()) as far:
        behind(bed.peer_space, far)
        bed.sut_space.run("ip", "-6", "address", "flush", "dev", "zps0p", "scope", "global")
        environment = bed.sut_environment()
        if bed.hooked:
            bed.sut_space.run("sysctl", "-qw", "net.ipv6.conf.zps0p.disable_ipv6=1")
            environment.update(ZPS_WIRE="af_packet:zps0p", ZPS_IP="198.18.0.77/24,auto")
        bed.spawn_peer([sys.executable, "-c", ROUTER], name="router")
        server = subprocess.Popen([sys.executable, "-c", SERVER], preexec_fn=far.enter, stdout=subprocess.PIPE)
        server.stdout.readline()
        bed.spawn_sut([sys.executable, "-c", CLIENT], name="client", environment=environment).wait(60)
        said = json.loads(next((line for line in bed.output("client").splitlines() if line.startswith("{")), "{}"))
        server.kill()
        server.wait()
        expected = {"in": "fd98::", "mtu": MTU, "seen": True}
        if said != expected:
            print(f"{said} in place of {expected}: {bed.output('client')}{bed.output('router')}")
            return 1
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
