#!/usr/bin/env python3
"""Sockets of IPv6 at link-local addresses say and do natively and on the stack what is written here.

  link_local.py --build build/release --mode zpstack-veth

A peer echoes, and on request comes to the program under test. The scope is the link's interface; on a memif, which is none, the loopback's.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

COMMON = """
import errno, os, socket, sys, threading, time
def own_of(scope):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(("fe80::99", 9, 0, scope))
        return probe.getsockname()[0].split("%")[0]
def scope_of(device):
    return socket.if_nametoindex(device)
"""
PEER = COMMON + """
far, device = sys.argv[1:]
end = time.monotonic() + 30
while device not in [name for _, name in socket.if_nameindex()]:  # the default wire's is made by the program under test
    time.sleep(0.02)
    assert time.monotonic() < end
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(("::", 7001))
listener = socket.create_server(("::", 7002), family=socket.AF_INET6, backlog=8)
def serve():
    while True:
        connection, _ = listener.accept()
        connection.sendall(connection.recv(100))
        connection.close()
threading.Thread(target=serve, daemon=True).start()
udp.settimeout(0.2)
while True:
    try:
        udp.sendto(own_of(scope_of(device)).encode(), (far, 7010))
        data, who = udp.recvfrom(100)
        break
    except OSError:  # nobody has heard it, or there is no address yet
        assert time.monotonic() < end
        time.sleep(0.02)
udp.settimeout(None)
while True:
    if data.startswith(b"come "):
        connection = socket.socket(socket.AF_INET6)
        connection.connect((who[0].split("%")[0], int(data[5:]), 0, who[3]))
        connection.sendall(b"from the peer")
        connection.close()
    elif data != b"heard":
        udp.sendto(data, who)
    data, who = udp.recvfrom(100)
"""
SUT = COMMON + """
device, given = sys.argv[1:]
names = {}
def said(address):
    host, port, _, scope = address
    host = host.split("%")[0]
    return f"{names.get(host, host)}%{'link' if scope == link else scope} {port if port > 6999 and port < 7010 else 'some'}"
def tried(what):
    try:
        what()
        return "0"
    except OSError as error:
        return errno.errorcode[error.errno]
def tell(what, *values):
    print(what + ":", *values, flush=True)
def made(kind):
    one = socket.socket(socket.AF_INET6, kind)
    one.settimeout(30)
    return one
def stream():
    return made(socket.SOCK_STREAM)
def datagram():
    return made(socket.SOCK_DGRAM)
udp, greeted = datagram(), datagram()
greeted.bind(("::", 7010))
data, who = greeted.recvfrom(100)
peer, link = data.decode(), scope_of(device)
greeted.sendto(b"heard", who)
udp.bind(("::", 7000))
own = own_of(link)
names.update({peer: "peer", own: "own"})
there, tcp_there = (peer, 7001, 0, link), (peer, 7002, 0, link)
tell("own is link-local", own.startswith("fe80:"), given in (own, "any"))

udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
udp.sendto(b"echo", there)
data, control, _, who = udp.recvmsg(100, 100)
tell("a wildcard datagram socket", data.decode(), said(who), int.from_bytes(control[0][2][16:20], sys.byteorder) == link)
udp.sendto(b"again", who)
tell("to whom it came from", udp.recvfrom(100)[0].decode())

one = datagram()
one.connect(there)
tell("connected", said(one.getpeername()), said(one.getsockname()))
one.send(b"connected")
tell("echoed", one.recv(100).decode())
tell("without a scope", tried(lambda: datagram().connect((peer, 7001))))

bound = datagram()
bound.bind((own, 7003, 0, link))
tell("bound", said(bound.getsockname()))
bound.sendto(b"no scope", (peer, 7001))
tell("needs no scope", *[said(x) if isinstance(x, tuple) else x.decode() for x in bound.recvfrom(100)])
tell("of another link", tried(lambda: bound.connect((peer, 7001, 0, 77))), tried(lambda: bound.sendto(b"x", (peer, 7001, 0, 77))))
bound.connect((peer, 7001))
tell("connects without", said(bound.getpeername()), said(bound.getsockname()))
tell("errors of datagram sockets", *[tried(lambda: datagram().bind(name)) for name in
     ((own, 7004), ("fe80::dead", 7004, 0, link), (own, 7003, 0, link))])

listener = stream()
listener.bind(("::", 7005))
listener.listen()
udp.sendto(b"come 7005", there)
connection, who = listener.accept()
connection.settimeout(30)
tell("accepted", said(who), said(connection.getpeername()), said(connection.getsockname()), connection.recv(100).decode())
listener = stream()
listener.bind((own, 7006, 0, link))
listener.listen()
tell("listener", said(listener.getsockname()))
udp.sendto(b"come 7006", there)
connection, who = listener.accept()
connection.settimeout(30)
tell("accepted there", said(who), said(connection.getsockname()), connection.recv(100).decode())

one = stream()
one.connect(tcp_there)
one.sendall(b"stream")
tell("a stream", said(one.getpeername()), said(one.getsockname()), one.recv(100).decode())
one = stream()
one.bind((own, 7007, 0, link))
one.connect((peer, 7002))
one.sendall(b"bound")
tell("a bound stream", said(one.getpeername()), said(one.getsockname()), one.recv(100).decode())
one = stream()
one.bind((own, 7008, 0, link))
tell("to another link", tried(lambda: one.connect((peer, 7002, 0, 77))))
tell("errors of streams", tried(lambda: stream().connect((peer, 7002))), *[tried(lambda: stream().bind(name)) for name in
     ((own, 7009), ("fe80::dead", 7009, 0, link), (own, 7006, 0, link))])
tell("nobody there", tried(lambda: stream().connect((peer, 7009, 0, link))))
"""
EXPECTED = """\
own is link-local: True True
a wildcard datagram socket: echo peer%link 7001 True
to whom it came from: again
connected: peer%link 7001 own%link some
echoed: connected
without a scope: EINVAL
bound: own%link 7003
needs no scope: no scope peer%link 7001
of another link: EINVAL ENETUNREACH
connects without: peer%link 7001 own%link 7003
errors of datagram sockets: EINVAL EADDRNOTAVAIL EADDRINUSE
accepted: peer%link some peer%link some own%link 7005 from the peer
listener: own%link 7006
accepted there: peer%link some own%link 7006 from the peer
a stream: peer%link 7002 own%link some stream
a bound stream: peer%link 7002 own%link 7007 bound
to another link: EINVAL
errors of streams: EINVAL EINVAL EADDRNOTAVAIL EADDRINUSE
nobody there: ECONNREFUSED
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=("kernel", "zpstack-veth", "zpstack-memif"), required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"link-local-{options.mode}"
    device, peers = {"kernel": ("zps0p", "zps0"), "zpstack-veth": ("zps0", "zps0"), "zpstack-memif": ("lo", "lo")}[options.mode]
    with beds.Bed(options.mode, options.build, traces, detects_duplicates=False) as bed:
        given = "fe80::2" if options.mode == "zpstack-memif" else "any"
        environment = bed.sut_environment(ZPS_UDP="stack")
        if given != "any":
            environment["ZPS_IP"] += f",{given}%wire"
        sut = bed.spawn_sut([sys.executable, "-c", SUT, device, given], environment=environment)
        bed.spawn_peer([sys.executable, "-c", PEER, bed.sut_address6, peers], environment=bed.peer_environment(ZPS_UDP="stack"))
        sut.wait(45)
        said = "".join(line + "\n" for line in (traces / "sut.out").read_text().splitlines())
        if said != EXPECTED:
            print(f"{said}in place of\n{EXPECTED}{bed.output('sut')}{bed.output('peer')}")
            return 1
    shutil.rmtree(traces, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
