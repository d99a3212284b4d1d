#!/usr/bin/env python3
"""An interface and its address shared with the kernel by sockets of AF_XDP: whose frames are whose, where they are sent, and that nothing is left of it.

  af_xdp.py --build build/release [--kills 3] [part ...]

Each part has two namespaces of its own, joined by a veth pair: in one the host with a prefixed server and native ones at the same address, in the other a plain client.
What the stack got is seen from the device's count of frames that its XDP program redirected.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import ctypes
import ipaddress
import mmap
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402
from host_wire import DEVICE, SERVER, UDP_SERVER, Host, ask, check, kill_members, loses_its_interface, nginx, ping, redis, refuses, says, under_load  # noqa: E402

PEER_DEVICE = "zps0"
AF_XDP, SOL_XDP, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_COPY = 44, 283, 4, 5, 6, 2, 2


class XdpHost(Host):
    wire = f"af_xdp:{DEVICE}"

    def start(self, argv, prefixed, said="listens", **extra):
        return super().start(argv, prefixed, said, **{"ZPS_WIRE": self.wire, **extra} if prefixed else extra)

    def output_of(self, *argv):
        return self.inside(lambda: subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    def steered(self):
        """Frames that have been the stack's, by queue."""
        lines = self.output_of("ethtool", "-S", DEVICE).splitlines()
        return [int(line.split(":")[1]) for line in lines if "rx_queue" in line and line.split(":")[0].endswith("_xdp_redirect")]

    def has_program(self):
        return "prog/xdp" in self.output_of("ip", "link", "show", DEVICE)

    def kill_all(self):
        kill_members(self)
        beds.wait_until(lambda: not self.has_program(), 30, "the end of the program")


def is_the_stacks(host, work, least=2):
    before = sum(host.steered())
    result = work()
    check(sum(host.steered()) - before >= least, "the stack has not got it")
    return result


def is_redirected(host, work):
    before = sum(host.steered())
    work()
    return sum(host.steered()) > before


def is_the_kernels(host, work):
    """The stack may be busy with the end of something before."""
    for _ in range(20):
        before = sum(host.steered())
        work()
        if sum(host.steered()) == before:
            return
    raise AssertionError("the stack gets some of it each time")


def shares(host):
    """One address, a stack's server and the kernel's."""
    host.serve(7001, "stack", True)
    host.serve(7003, "native", False)
    said = host.bed.output("server1")
    check(f"af_xdp {DEVICE} (native, copy, 1 queue): {host.address}" in said, f"the start line is another: {said}")
    check(is_the_stacks(host, lambda: ask(host.address, 7001)) == "stack", "port 7001 is another's")

    def kernels():
        ping(host.address)
        check(ask(host.address, 7003) == "native", "port 7003 is another's")
        with contextlib.suppress(ConnectionRefusedError):
            ask(host.address, 7004)
            raise AssertionError("somebody answers at port 7004")

    is_the_kernels(host, kernels)
    for port, name in ((7001, "stack"), (7003, "native")):
        check(host.inside(lambda: ask(host.address, port)) == name, f"port {port} is another's for the host's own client")
        refuses(host, port, False)
    host.serve(7007, "six", False, "::")
    check(ask(host.bed.sut_address6, 7007) == "six", "port 7007 is another's")


def over_ip6(host):
    host.serve(7001, "six", True, "::")
    for address in (host.bed.sut_address6, host.address):
        check(is_the_stacks(host, lambda: ask(address, 7001)) == "six", f"another serves {address}")
    with answering(host.bed.peer_address6, 7008) as peer:
        answer = is_the_stacks(host, lambda: ask(host.address, 7001, f"connect {host.bed.peer_address6} {peer}".encode()), 5)
        check(ipaddress.ip_address(answer.split()[0]) == ipaddress.ip_address(host.bed.sut_address6), f"the peer sees {answer}")


@contextlib.contextmanager
def answering(address, port):
    """A server of the peer's that says whom it sees."""
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client, who = listener.accept()
                    with client:
                        client.recv(100)
                        client.sendall(who[0].encode())

        threading.Thread(target=serve, daemon=True).start()
        yield port
        listener.shutdown(socket.SHUT_RDWR)


def finds_neighbours(host):
    """Stations that the kernel does not know yet, behind a router, that have moved, and that are not there."""
    run, peer_run = host.bed.sut_space.run, host.bed.peer_space.run
    host.serve(7001, "stack", True)
    peer_run("ip", "address", "add", "198.18.50.1/32", "dev", "lo")
    peer_run("ip", "address", "add", "198.18.0.7/24", "dev", PEER_DEVICE)
    run("ip", "route", "add", "198.18.50.0/24", "via", "198.18.0.7")
    with socket.create_connection((host.address, 7001), 30) as client:
        def connect(to, port=7005):
            client.sendall(f"connect {to} {port}".encode())
            return client.recv(100).decode().split()[0]

        for to in (host.peer, "198.18.50.1"):
            with answering(to, 7005):
                check(is_the_stacks(host, lambda: connect(to), 3) == host.address, f"{to} is not reached")
        run("ip", "address", "flush", "dev", "lo", "to", "198.18.50.0/24")
        other = "02:00:00:00:00:77"
        peer_run("ip", "link", "set", PEER_DEVICE, "address", other)
        for each in (host.peer, "198.18.0.7"):
            run("ip", "neighbour", "replace", each, "lladdr", other, "dev", DEVICE, "nud", "reachable")
        client.sendall(b"who")
        client.settimeout(30)
        check(client.recv(100) == b"stack", "the connection has not followed its station")
        with answering(host.peer, 7006):
            check(connect(host.peer, 7006) == host.address, "the station's new place is not found")


def finds_neighbours_without_rights(host):
    """A server that became another user when it listened reaches a station that nobody has asked for."""
    become = "import os\nsocket.getaddrinfo('127.0.0.1', 1)\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
    host.start([sys.executable, "-c", SERVER.replace("print(", become + "print(", 1), "0.0.0.0", 7001, "nobody"], True)
    host.bed.peer_space.run("ip", "address", "add", "198.18.0.8/24", "dev", PEER_DEVICE)
    with answering("198.18.0.8", 7005):
        answer = ask(host.address, 7001, b"connect 198.18.0.8 7005")
        check(answer.split()[0] == host.address, f"198.18.0.8 is not reached: {answer}")


def follows_its_station(host):
    """The interface's hardware address becomes another one."""
    host.serve(7001, "stack", True)
    with socket.create_connection((host.address, 7001), 10) as client:
        client.settimeout(20)
        for station in ("02:00:00:00:00:88", "f2:ff:ff:ff:80:99"):
            host.bed.sut_space.run("ip", "link", "set", DEVICE, "address", station)
            host.bed.peer_space.run("ip", "neighbour", "replace", host.address, "lladdr", station, "dev", PEER_DEVICE, "nud", "reachable")

            def exchange():
                client.sendall(b"who")
                check(client.recv(100) == b"stack", f"the connection is another's at {station}")

            beds.wait_until(lambda: is_redirected(host, exchange), 20, f"frames to {station}")
            check(is_the_stacks(host, lambda: ask(host.address, 7001)) == "stack", f"port 7001 is another's at {station}")
    with answering(host.peer, 7005):
        answer = ask(host.address, 7001, f"connect {host.peer} 7005".encode())
        check(answer.split()[0] == host.address, f"the peer is not reached: {answer}")


def udp(host):
    for address, port in (("0.0.0.0", 7010), (host.address, 7011)):
        server = host.start([sys.executable, "-c", UDP_SERVER, address, port], True, ZPS_UDP="stack")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(30)
            client.connect((host.address, port))
            for size, least in ((1, 1), (1400, 1), (5000, 0)):  # the last in fragments, which the kernel puts together

                def exchange():
                    client.send(b"u" * size)
                    check(client.recv(65536) == b"u" * size, f"{size} bytes come back as others")

                is_the_stacks(host, exchange, least)
        server.kill()
        server.wait()


def serves_programs(host):
    redis(host)
    host.kill_all()
    nginx(host)


def has_several_queues(host):
    for space, device, which in ((host.bed.peer_space, PEER_DEVICE, "tx"), (host.bed.sut_space, DEVICE, "rx")):
        space.run("ethtool", "-L", device, which, "2")
    host.serve(7001, "stack", True)
    check(f"{DEVICE} (native, copy, 2 queues)" in host.bed.output("server1"), "it does not say that there are two queues")
    before = host.steered()
    for _ in range(200):
        check(ask(host.address, 7001) == "stack", "port 7001 is another's")
        if all(now > then for now, then in zip(host.steered(), before)):
            return
    raise AssertionError(f"all goes by one queue: {host.steered()}")


def works_behind_the_driver(host):
    """Generic mode; frames as long as a segment gets."""
    host.wire = f"af_xdp:{DEVICE},mode=generic"
    redis(host)
    said = host.bed.output("server1")
    check(f"{DEVICE} (generic, copy, 1 queue)" in said, f"the start line is another: {said}")


def takes_long_frames(host):
    for space, device in ((host.bed.peer_space, PEER_DEVICE), (host.bed.sut_space, DEVICE)):
        space.run("ip", "link", "set", device, "mtu", "9000")
    redis(host)
    host.start([sys.executable, "-c", UDP_SERVER, "0.0.0.0", 7010], False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(30)
        client.sendto(b"u" * 8000, (host.address, 7010))
        check(client.recv(65536) == b"u" * 8000, "the kernel's long frames get lost")


def occupy_queue():
    """A socket of AF_XDP at the first queue, as another program has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    holder = socket.socket(AF_XDP, socket.SOCK_RAW)
    memory = mmap.mmap(-1, 65536)
    region = struct.pack("QQIIII", ctypes.addressof(ctypes.c_char.from_buffer(memory)), 65536, 4096, 0, 0, 0)
    holder.setsockopt(SOL_XDP, XDP_UMEM_REG, region)
    for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
        holder.setsockopt(SOL_XDP, ring, 16)
    address = struct.pack("HHIII", AF_XDP, XDP_COPY, socket.if_nametoindex(DEVICE), 0, 0)
    check(libc.bind(holder.fileno(), address, len(address)) == 0, f"bind: {os.strerror(ctypes.get_errno())}")
    return holder, memory


def refuses_others(host):
    wire = host.wire
    says(host, "af_xdp:nothere", 'no network device "nothere"')
    says(host, "af_xdp:lo", "loopback")
    says(host, "af_xdp", "no default route")
    says(host, f"{wire},fast", 'unknown option "fast"')
    says(host, wire, "ZPS_IP names", ZPS_IP="198.18.0.99/24")
    for rights in ("-net_raw", "-all,+net_raw"):
        says(host, wire, "CAP_BPF", ["setpriv", "--inh-caps", "-all", "--bounding-set", rights])
    host.bed.sut_space.run("ip", "link", "add", "bare", "type", "veth", "peer", "name", "bare1")
    says(host, "af_xdp:bare", "no IPv4 address")
    holder, memory = host.inside(occupy_queue)
    says(host, wire, "another program has a socket of AF_XDP at queue 0")
    threading.Timer(0.3, holder.close).start()
    host.serve(7001, "first", True)
    says(host, wire, 'an XDP program already, "zpstack"')
    check(ask(host.address, 7001) == "first", "the first one has lost its frames")


def leaves_nothing(host, kills=3):
    for _ in range(kills):
        host.serve(7001, "mortal", True)
        with under_load(host.address, 7001):
            check(sum(host.steered()) > 100, "the stack has not got it")
            host.kill_all()
    host.serve(7001, "heir", False)
    check(ask(host.address, 7001) == "heir", "the kernel has not got its port back")


PARTS = (shares, over_ip6, finds_neighbours, finds_neighbours_without_rights, follows_its_station, udp, serves_programs, has_several_queues, works_behind_the_driver, takes_long_frames, refuses_others, leaves_nothing, loses_its_interface)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("parts", nargs="*", default=[part.__name__ for part in PARTS])
    options = parser.parse_args()
    traces = options.build / "test-traces" / "af-xdp"
    for part in PARTS:
        if part.__name__ not in options.parts:
            continue
        with beds.Bed("zpstack-host", options.build, traces) as bed:
            bed.peer_space.enter()
            host = XdpHost(bed)
            if part is leaves_nothing:
                part(host, options.kills)
            else:
                part(host)
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
