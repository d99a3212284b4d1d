#!/usr/bin/env python3
"""A program whose address a server of DHCP gives (dnsmasq), on the wire af_packet: it is reached there, and reaches others through the router that it was told.

  dhcp.py --build build/release [--renew]     --renew: waits for a minute, until the lease is renewed under a connection
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import random
import re
import socket
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT, MTU, ROUTER, FAR = 7171, 1400, "198.18.0.1", "198.19.0.1"
LEASE_S = 120  # the shortest that dnsmasq gives
# Reaches a host behind the router; then serves.
SERVER = f"""
import socket, sys
with socket.create_connection(("{FAR}", {PORT}), 30) as far:
    print("far", far.makefile().read(), flush=True)
listener = socket.create_server(("", {PORT}))
print("listens", flush=True)
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""
WIRE = {"ZPS_WIRE": "af_packet:zps0p", "ZPS_IP": "dhcp"}


def serve_addresses(bed):
    argv = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--port=0", "--interface=zps0", "--bind-interfaces", "--user=root",
            "--no-ping", "--dhcp-authoritative", "--log-dhcp", f"--dhcp-leasefile={bed.scratch}/leases",
            f"--dhcp-range=198.18.0.50,198.18.0.60,255.255.255.0,{LEASE_S}", f"--dhcp-option=option:mtu,{MTU}", f"--dhcp-option=option:router,{ROUTER}"]
    server = bed.spawn_peer(argv, name="dnsmasq", environment=beds.clean_environment())
    beds.wait_until(lambda: "sockets bound" in bed.output("dnsmasq") or server.poll() is not None, 20, "dnsmasq")


def echo(connection, size):
    data = random.Random(size).randbytes(size)
    got = b""
    for at in range(0, size, 50_000):
        connection.sendall(data[at:at + 50_000])
        while len(got) < min(at + 50_000, size) and (piece := connection.recv(65536)):
            got += piece
    if got != data:
        raise AssertionError("other bytes come back")


def run(bed, renew):
    space = bed.peer_space
    space.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    serve_addresses(bed)
    space.enter()
    with socket.create_server((FAR, PORT)) as far:
        server = bed.spawn_sut([sys.executable, "-c", SERVER], name="server", environment=bed.sut_environment(**WIRE))
        far.settimeout(60)
        visitor, (address, _) = far.accept()
        visitor.sendall(address.encode())
        visitor.close()
    beds.wait_until(lambda: "listens" in bed.output("server") or server.poll() is not None, 30, "the server's start")
    said = re.search(r"DHCP: address (\S+)/24, gateway (\S+), from \S+ for (\d+) s", bed.output("server"))
    if not said or said.groups() != (address, ROUTER, str(LEASE_S)) or f"far {address}" not in bed.output("server"):
        raise AssertionError(f"the address that others see is {address}: {bed.output('server')}")
    with socket.create_connection((address, PORT), 30) as client:
        if (segment := client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)) > MTU - 40:
            raise AssertionError(f"segments of {segment} bytes, where the server of DHCP says {MTU}")
        echo(client, 300_000)
        if renew:
            beds.wait_until(lambda: bed.output("dnsmasq").count("DHCPACK") >= 2, LEASE_S, "the renewal", 1)
            echo(client, 300_000)
    server.wait(30)
    if "has ended" in bed.output("server"):
        raise AssertionError("the lease was lost")


def refuses(bed):
    server = bed.spawn_sut([sys.executable, "-c", SERVER], name="refused", environment=bed.sut_environment(ZPS_WIRE="tap", ZPS_IP="dhcp"))
    if server.wait(30) != 127 or "ZPS_IP=dhcp is for" not in bed.output("refused"):
        raise AssertionError(f"no line about wires without DHCP: {bed.output('refused')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--renew", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / "dhcp"
    problem = None
    with beds.Bed("zpstack-host", options.build, traces) as bed:
        try:
            run(bed, options.renew)
            refuses(bed)
        except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
            problem = f"{type(error).__name__}: {error}"
    return beds.conclude(problem, traces, "*.???")


if __name__ == "__main__":
    sys.exit(main())
