#!/usr/bin/env python3
"""An interface and its address shared with the kernel: whose frames are whose, and that nothing is left of it.

  host_wire.py --build build/release [--kills 3]

Prefixed servers and native ones at one address serve a plain client in another namespace and clients of their own host; pings are the kernel's. What the stacks did is seen from the
frames that their pairs have carried.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import ctypes
import errno
import ipaddress
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

DEVICE = "zps0p"  # of the host; its pairs with stacks are zps0, zps1 ...
SYS_BPF, BPF_PROG_QUERY, BPF_TCX_INGRESS = 321, 16, 46
ROUNDS = 200

# Answers each request with its name; connects where it is told to ("address port"), and passes on what it hears; keeps its connections when it stops listening.
SERVER = """
import socket, sys, threading
address, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
def serve(client):
    while request := client.recv(100):
        answer = name
        if request == b"stop listening":
            listener.shutdown(socket.SHUT_RDWR)
        if request.startswith(b"connect "):
            _, there, at = request.split()
            try:
                with socket.create_connection((there.decode(), int(at)), 30) as other:
                    other.sendall(b"hello")
                    answer = other.recv(100) + b" " + str(other.getsockname()[1]).encode()
            except OSError as error:
                answer = str(error.errno).encode()
        client.sendall(answer)
    client.close()
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(64)
print("listens", flush=True)
try:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
except OSError:
    listener.close()
threading.Event().wait()
"""
UDP_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], int(sys.argv[2])))
print("listens", flush=True)
while True:
    data, who = server.recvfrom(65536)
    server.sendto(data, who)
"""


def check(is_true, what):
    if not is_true:
        raise AssertionError(what)


class Host:
    """The host whose interface is shared, as seen from its bed."""

    def __init__(self, bed):
        self.bed, self.address, self.peer = bed, bed.sut_address, bed.peer_address
        self.servers = 0

    def inside(self, work):
        """What work() returns in the host's namespace."""
        found = []

        def run():
            self.bed.sut_space.enter()
            try:
                found.append((work(), None))
            except Exception as error:  # it is the caller's
                found.append((None, error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if found[0][1] is not None:
            raise found[0][1]
        return found[0][0]

    def start(self, argv, prefixed, said="listens", **extra):
        self.servers += 1
        name = f"server{self.servers}"
        environment = self.bed.sut_environment(ZPS_LOG="info", **extra) if prefixed else beds.clean_environment()
        server = self.bed.spawn_sut(argv, name=name, environment=environment)
        beds.wait_until(lambda: said in self.bed.output(name) or server.poll() is not None, 30, f"the start of {argv}")
        check(server.poll() is None, f"{argv} ended: {self.bed.output(name)}")
        return server

    def serve(self, port, name, prefixed, address="0.0.0.0"):
        return self.start([sys.executable, "-c", SERVER, address, port, name], prefixed)

    def frames(self, pair):
        """Those that the stack on this pair has sent."""
        return self.inside(lambda: int(subprocess.run(["ip", "-s", "-o", "link", "show", pair], check=True, capture_output=True, text=True).stdout.split("RX:")[1].split("\\")[1].split()[1]))

    def links(self):
        text = self.inside(lambda: subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout)
        return [line.split()[1].rstrip(":").split("@")[0] for line in text.splitlines()]

    def programs(self):
        """How many programs are linked to the interface."""
        def query():
            attributes = (ctypes.c_uint32 * 32)()
            attributes[0], attributes[1] = socket.if_nametoindex(DEVICE), BPF_TCX_INGRESS
            result = ctypes.CDLL(None, use_errno=True).syscall(SYS_BPF, BPF_PROG_QUERY, attributes, ctypes.sizeof(attributes))
            check(result == 0, f"BPF_PROG_QUERY: {os.strerror(ctypes.get_errno())}")
            return attributes[6]
        return self.inside(query)


def ask(address, port, request=b"who"):
    with socket.create_connection((address, port), 30) as client:
        client.sendall(request)
        return client.recv(100).decode()


def ping(address):
    """One echo, from here."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(30)
        body = struct.pack("!HH", os.getpid() & 0xffff, 1) + b"zps?"
        total = sum(struct.unpack("!4H", body)) + 0x0800
        checksum = ~((total & 0xffff) + (total >> 16)) & 0xffff
        raw.sendto(struct.pack("!BBH", 8, 0, checksum) + body, (address, 0))
        while raw.recv(1000)[20:] != b"\0\0" + raw_sum(body) + body:
            pass


def raw_sum(body):
    total = sum(struct.unpack("!4H", body))
    return struct.pack("!H", ~((total & 0xffff) + (total >> 16)) & 0xffff)


def carries(host, pair, work, least):
    """work() makes the stack on `pair` send so many frames."""
    before = host.frames(pair)
    result = work()
    sent = host.frames(pair) - before
    check(sent >= least, f"{pair}: {sent} frames, not {least}")
    return result


def carries_nothing(host, pair, work):
    """work() is no business of the stack's on `pair`, which may be busy with the end of something before."""
    for _ in range(20):
        before = host.frames(pair)
        work()
        if host.frames(pair) == before:
            return
    raise AssertionError(f"{pair} sends frames each time")


def refuses(host, port, prefixed, address="0.0.0.0"):
    """A server cannot have this port."""
    environment = host.bed.sut_environment() if prefixed else beds.clean_environment()
    argv = [sys.executable, "-c", SERVER, address, str(port), "second"]
    ended = subprocess.run(argv, env=environment, preexec_fn=host.bed.sut_space.enter, capture_output=True, text=True, timeout=30)
    check(f"[Errno {errno.EADDRINUSE}]" in ended.stderr, f"port {port} was given twice: {ended.stderr}")


def shares_ports(host):
    """One address, three servers: two stacks' and the kernel's."""
    host.serve(7001, "first", True)
    host.serve(7002, "second", True, host.address)
    host.serve(7003, "native", False)
    check(carries(host, "zps0", lambda: ask(host.address, 7001), 2) == "first", "port 7001 is another's")
    check(carries(host, "zps1", lambda: ask(host.address, 7002), 2) == "second", "port 7002 is another's")

    def kernels():
        ping(host.address)
        check(ask(host.address, 7003) == "native", "port 7003 is another's")
        with contextlib.suppress(ConnectionRefusedError):
            ask(host.address, 7004)
            raise AssertionError("somebody answers at port 7004")

    for pair in ("zps0", "zps1"):
        carries_nothing(host, pair, kernels)
    for port, name in ((7001, "first"), (7002, "second"), (7003, "native")):
        check(host.inside(lambda: ask(host.address, port)) == name, f"port {port} is another's for the host's own client")
    for port in (7001, 7002, 7003):
        for prefixed in (True, False):
            refuses(host, port, prefixed)


def connects(host):
    """Connections from the stacks: to the peer, to each other, to the kernel's; the kernel knows their ports."""
    with socket.create_server((host.peer, 7005)) as listener:
        def serve():
            while True:
                try:
                    client, who = listener.accept()
                except OSError:
                    return
                with client:
                    client.recv(100)
                    client.sendall(who[0].encode())

        threading.Thread(target=serve, daemon=True).start()
        for port, pair in ((7001, "zps0"), (7002, "zps1")):
            answer = carries(host, pair, lambda: ask(host.address, port, f"connect {host.peer} 7005".encode()), 5)
            check(answer.split()[0] == host.address, f"the peer sees {answer}")
        listener.shutdown(socket.SHUT_RDWR)
    for port, other, name in ((7001, 7002, "second"), (7002, 7003, "native"), (7001, 7001, None), (7003, 7002, "second")):
        if name is not None:
            answer = ask(host.address, port, f"connect {host.address} {other}".encode())
            check(answer.split()[0] == name, f"from {port} to {other}: {answer}")
    check(ask(host.address, 7001, f"connect {host.peer} 7006".encode()) == str(errno.ECONNREFUSED), "a closed port of the peer's is not refused")


def takes_ports_over(host):
    """A port has another server, on the other side, while connections of the first one live: each segment goes to whom its connection belongs."""
    for port, prefixed in ((7081, False), (7082, True)):
        host.serve(port, "old", prefixed)
        with socket.create_connection((host.address, port), 30) as client:
            client.sendall(b"stop listening")
            check(client.recv(100) == b"old", "it does not serve")
            beds.wait_until(lambda: refuses_clients(host, port), 30, "the end of the listener")
            host.serve(port, "new", not prefixed)
            for _ in range(3):
                check(ask(host.address, port) == "new", "the old one is asked")
                client.sendall(b"who")
                check(client.recv(100) == b"old", "a connection has changed hands")


def refuses_clients(host, port):
    try:
        ask(host.address, port)
    except ConnectionRefusedError:
        return True
    except ConnectionError:  # it was accepted by nobody any more
        pass
    return False


def over_ip6(host):
    """At the interface's IPv6 address as well, and from there."""
    host.serve(7007, "six", True, "::")
    pair = [link for link in host.links() if link.startswith("zps") and link != DEVICE][-1]
    address, peer = host.bed.sut_address6, host.bed.peer_address6
    for each in (address, host.address):
        check(carries(host, pair, lambda: ask(each, 7007), 2) == "six", f"another serves {each}")
    check(host.inside(lambda: ask(address, 7007)) == "six", "the host's own client is not served")
    with socket.create_server((peer, 7008), family=socket.AF_INET6) as listener:

        def serve():
            client, who = listener.accept()
            with client:
                client.sendall(who[0].encode())

        threading.Thread(target=serve, daemon=True).start()
        answer = carries(host, pair, lambda: ask(address, 7007, f"connect {peer} 7008".encode()), 5)
        check(ipaddress.ip_address(answer.split()[0]) == ipaddress.ip_address(address), f"the peer sees {answer}")


def udp(host):
    before = host.links()
    server = host.start([sys.executable, "-c", UDP_SERVER, "0.0.0.0", 7010], True, ZPS_UDP="stack")
    bound = host.start([sys.executable, "-c", UDP_SERVER, host.address, 7011], True, ZPS_UDP="stack")
    pairs = sorted(set(host.links()) - {"lo", DEVICE, *before})
    for port, pair in ((7010, pairs[0]), (7011, pairs[1])):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(30)
            client.connect((host.address, port))
            for size, least in ((1, 1), (1400, 1), (5000, 0)):  # the last in fragments, which the kernel puts together

                def exchange():
                    client.send(b"u" * size)
                    check(client.recv(65536) == b"u" * size, f"{size} bytes come back as others")

                carries(host, pair, exchange, least)

        def from_host():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(30)
                client.sendto(b"here", (host.address, port))
                check(client.recv(100) == b"here", "the host's own client hears nothing")

        host.inside(from_host)
    for each in (server, bound):
        each.kill()


def redis(host):
    if shutil.which("redis-server") is None:
        return
    host.start(["redis-server", "--port", 7020, "--save", "", "--protected-mode", "no"], True, "Ready to accept")
    with socket.create_connection((host.address, 7020), 30) as client:
        file = client.makefile("rb")
        value = os.urandom(500000)
        client.sendall(b"SET k $\r\n".replace(b"$", b"x"))
        check(file.readline() == b"+OK\r\n", "no OK")
        client.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$%d\r\n%b\r\n" % (len(value), value))
        check(file.readline() == b"+OK\r\n", "no OK")
        client.sendall(b"GET b\r\n")
        check(file.readline() == b"$%d\r\n" % len(value) and file.read(len(value)) == value, "other bytes than were set")
        check(file.readline() == b"\r\n", "no end")


NGINX = """
daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; server {{ listen 7030 reuseport; location / {{ return 200 "$pid"; }} }} }}
"""


def nginx(host):
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        return
    folder = host.bed.scratch
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    server = host.start([program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"], True, "shared with the kernel")

    def get():
        with socket.create_connection((host.address, 7030), 30) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(4096), b"")).split()[-1]

    def is_up():
        with contextlib.suppress(OSError):
            return get()

    beds.wait_until(lambda: server.poll() is not None or is_up(), 30, "nginx")
    workers = {get() for _ in range(ROUNDS)}
    check(len(workers) == 2, f"served by {workers}")
    os.kill(int(next(iter(workers))), signal.SIGKILL)
    for _ in range(20):
        get()
    server.kill()


def kill_members(host):
    for pid in host.bed.sut_space.members():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_all(host):
    """Everything in the host's namespace, and then nothing is left but the kernel's own."""
    kill_members(host)
    beds.wait_until(lambda: sorted(host.links()) == sorted(["lo", DEVICE]) and host.programs() == 0, 30, "the end of links and pairs")


@contextlib.contextmanager
def under_load(address, port):
    """Five clients ask, each again when it is answered, from when they have been answered some times until the end or until they are cut off."""
    answers = [0] * 5
    clients = [socket.create_connection((address, port), 30) for _ in answers]
    over = threading.Event()

    def load(number, client):
        with contextlib.suppress(OSError):
            while not over.is_set() and client.send(b"who") and client.recv(100):
                answers[number] += 1

    threads = [threading.Thread(target=load, args=each) for each in enumerate(clients)]
    for thread in threads:
        thread.start()
    beds.wait_until(lambda: min(answers) > 20, 30, "the load")
    yield
    over.set()
    for client in clients:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        client.close()
    for thread in threads:
        thread.join()


def leaves_nothing(host, kills):
    check(host.programs() >= 2, "no program is linked")
    kill_all(host)
    for _ in range(kills):
        host.serve(7001, "mortal", True)
        with under_load(host.address, 7001):
            kill_all(host)
    host.serve(7001, "heir", False)
    check(ask(host.address, 7001) == "heir", "the kernel has not got its port back")


def says(host, wire, what, prefix=(), **extra):
    """One line about it, and exit code 127."""
    argv = [*prefix, sys.executable, "-c", SERVER, "0.0.0.0", "7050", "none"]
    environment = host.bed.sut_environment(ZPS_WIRE=wire, **extra)
    ended = subprocess.run(argv, env=environment, preexec_fn=host.bed.sut_space.enter, capture_output=True, text=True, timeout=30)
    check(ended.returncode == 127 and ended.stderr.count("\n") == 1 and what in ended.stderr, f"{wire}: exit code {ended.returncode}, {ended.stderr!r}")


# Its processes have all rights over their namespace, but none over the kernel's programs.
CONFINED = """
unshare -Urn sh -c 'ip link add zps0p type veth peer name other; ip address add 198.18.60.1/24 dev zps0p; ip link set zps0p up; exec "$@"' x "$@"
"""


def refuses_others(host):
    # Neither `unshare` nor `ip` is prefixed.
    with_library = ["sh", "-c", 'LD_PRELOAD=$LIBRARY exec "$@"', "x"]
    says(host, "host:zps0p", "CAP_BPF", ["sh", "-c", CONFINED, "x", *with_library], LIBRARY=host.bed.library, LD_PRELOAD="")
    says(host, "host:nothere", 'no network device "nothere"')
    says(host, "host:lo", "loopback")
    says(host, "host", "no default route")
    host.bed.sut_space.run("ip", "link", "add", "bare", "type", "veth", "peer", "name", "bare1")
    says(host, "host:bare", "no IPv4 address")
    says(host, "host:zps0p,tso", "no network device")
    host.bed.sut_space.run("ip", "address", "add", "198.18.77.1/24", "dev", "bare")
    says(host, "host:bare", "ZPS_IP names", ZPS_IP="198.18.77.9/24")
    host.bed.sut_space.run("ip", "link", "delete", "bare")
    host.bed.sut_space.run("ip", "route", "add", "default", "via", host.peer)
    named = host.start([sys.executable, "-c", SERVER, "0.0.0.0", 7051, "by default"], True, ZPS_WIRE="host")
    check(ask(host.address, 7051) == "by default", "host alone is another interface")
    named.kill()


def moves(host):
    """The interface gets another MTU and another address; a connection waits for its address to come back."""
    other = "198.18.0.22"
    host.serve(7060, "moving", True)
    run = host.bed.sut_space.run
    with socket.create_connection((host.address, 7060), 30) as client:
        client.sendall(b"who")
        check(client.recv(100) == b"moving", "it does not serve")
        run("ip", "link", "set", DEVICE, "mtu", "1300")
        run("ip", "address", "delete", f"{host.address}/24", "dev", DEVICE)
        run("ip", "address", "add", f"{other}/24", "dev", DEVICE)
        pair = [link for link in host.links() if link.startswith("zps") and link != DEVICE][-1]
        beds.wait_until(lambda: carries_some(host, pair, lambda: ask(other, 7060)), 30, "frames to the new address")
        client.sendall(b"who")
        run("ip", "address", "add", f"{host.address}/24", "dev", DEVICE)
        run("ip", "address", "delete", f"{other}/24", "dev", DEVICE)
        run("ip", "address", "replace", f"{host.address}/24", "dev", DEVICE)
        client.settimeout(30)
        check(client.recv(100) == b"moving", "the connection is lost")


def loses_its_interface(host):
    """What happens to it is said, and connections live for as long as Linux lets them: while it is down, and without its address."""
    run = host.bed.sut_space.run
    host.serve(7061, "patient", True)
    name = f"server{host.servers}"

    def says_line(line):
        beds.wait_until(lambda: f"the interface {DEVICE} {line}" in host.bed.output(name), 30, line)

    with socket.create_connection((host.address, 7061), 30) as client:
        client.settimeout(30)

        def is_answered():
            client.sendall(b"who")
            check(client.recv(100) == b"patient", "the connection is another's")

        is_answered()
        run("ip", "link", "set", DEVICE, "down")
        says_line("is down")
        run("ip", "link", "set", DEVICE, "up")
        says_line(f"is up and has the address {host.address}")
        is_answered()
        run("ip", "address", "flush", "dev", DEVICE)
        says_line(f"has lost its address {host.address}")
        run("ip", "address", "add", f"{host.address}/24", "dev", DEVICE)
        beds.wait_until(lambda: host.bed.output(name).count("is up and has") == 2, 30, "the address")
        is_answered()
        run("ip", "link", "delete", DEVICE)
        says_line("is gone")


def gives_rights_up(host):
    """Another user's before it listens."""
    become = "import os\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
    before = set(host.links())
    host.start([sys.executable, "-c", SERVER.replace("listener = ", become + "listener = ", 1), "0.0.0.0", 7072, "nobody"], True)
    pair = (set(host.links()) - before).pop()
    check(carries(host, pair, lambda: ask(host.address, 7072), 2) == "nobody", "another serves port 7072")
    kill_all(host)


def carries_some(host, pair, work):
    before = host.frames(pair)
    work()
    return host.frames(pair) > before


def with_few_rights(host):
    """Without CAP_SYS_ADMIN the pair's stack end stays in the host's namespace, and outlives a killed program until the next one comes."""
    few = ["setpriv", "--inh-caps", "-all", "--bounding-set"]
    says(host, f"host:{DEVICE}", "CAP_NET_ADMIN", [*few, "-net_admin"])
    host.start([*few, "-sys_admin", sys.executable, "-c", SERVER, "0.0.0.0", 7070, "visible"], True)
    pair = next(link for link in host.links() if link.endswith("-stack")).removesuffix("-stack")
    check(carries(host, pair, lambda: ask(host.address, 7070), 2) == "visible", "another serves port 7070")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    traces = options.build / "test-traces" / "host-wire"
    with beds.Bed("zpstack-host", options.build, traces) as bed:
        bed.peer_space.enter()
        host = Host(bed)
        for part in (shares_ports, connects, takes_ports_over, over_ip6, udp, redis, nginx, lambda host: leaves_nothing(host, options.kills), refuses_others, moves, gives_rights_up, with_few_rights, loses_its_interface):
            part(host)
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
