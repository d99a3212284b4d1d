#!/usr/bin/env python3
"""Rules move listeners, connections and datagram sockets to the kernel and back.

A program listens, connects and sends; its peer, a plain kernel process on this host, sees by addresses who served that: the stack is at
198.18.0.2, the kernel's end of the link at 198.18.0.1.

  rules.py --build build/release
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import json
import pathlib
import shutil
import socket
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

STACK, KERNEL = "198.18.0.2", "198.18.0.1"
LISTENER, OTHER_LISTENER, NAMED = 7001, 7002, 5301

# The first listener makes the stack whatever the rules say of the rest. What answers says where it is; standard input ends the program.
PROGRAM = f"""
import errno, json, socket, sys
tcp, udp = json.loads(sys.argv[1])
listeners = [socket.create_server(("", port)) for port in (7000, {LISTENER}, {OTHER_LISTENER})]
said = {{}}
connection = socket.create_connection(("{KERNEL}", tcp))
said["connect"] = connection.getsockname()[0]
bound = socket.socket()
bound.bind(("", {NAMED}))
bound.connect(("{KERNEL}", tcp))
said["bound connect"] = bound.getsockname()[0]
for name, port in (("datagram", 0), ("named datagram", {NAMED})):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if port:
        sender.bind(("", port))
    sender.sendto(name.encode(), ("{KERNEL}", udp))
try:
    socket.socket().bind(("{STACK}", {NAMED + 1}))
    said["bind"] = "{STACK}"
except OSError as error:
    said["bind"] = errno.errorcode[error.errno]
print(json.dumps(said), flush=True)
sys.stdin.read()
"""

DEFAULT = {"connect": STACK, "bound connect": STACK, "bind": STACK, "datagram": KERNEL, "named datagram": KERNEL, LISTENER: True, OTHER_LISTENER: True}
# Settings, and what they change.
CASES = [
    ({}, {}),
    ({"ZPS_UDP": "stack", "ZPS_RULES": f"kernel udp port={NAMED}; kernel tcp peer={KERNEL} port={NAMED}"}, {"datagram": STACK, "bound connect": KERNEL}),
    ({"ZPS_UDP": "stack", "ZPS_RULES": f"stack udp port={NAMED};kernel udp;kernel tcp port={LISTENER}"}, {"named datagram": STACK, LISTENER: False}),
    ({"ZPS_UDP": "stack", "ZPS_RULES": f"kernel udp peer={KERNEL}; stack tcp peer=198.18.0.0/24; kernel tcp peer=198.18.0.0/16"}, {}),
    ({"ZPS_RULES": f"stack udp peer=198.18.0.0/16; stack port={LISTENER}; kernel tcp port={LISTENER}-{OTHER_LISTENER}"},
     {"datagram": STACK, "named datagram": STACK, OTHER_LISTENER: False}),
    ({"ZPS_RULES": f"stack udp port={NAMED}; kernel tcp port={LISTENER} program=another; kernel tcp port={NAMED + 1} program={pathlib.Path(sys.executable).name}"},
     {"named datagram": STACK, "bind": "EADDRNOTAVAIL"}),
    ({"ZPS_RULES": "kernel tcp peer=198.18.0.0/24"}, {"connect": KERNEL, "bound connect": KERNEL}),
]


def is_served_by_stack(port):
    try:
        socket.create_connection((STACK, port), 30).close()
    except ConnectionRefusedError:
        return False
    return True


def look(bed, number, settings):
    """What one program with these settings does, as its peer sees it."""
    with socket.create_server(("", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("", 0))
        udp.settimeout(60)
        ports = json.dumps([tcp.getsockname()[1], udp.getsockname()[1]])
        name = f"program{number}"
        program = bed.spawn_sut([sys.executable, "-c", PROGRAM, ports], name=name, environment=bed.sut_environment(**settings), stdin=beds.subprocess.PIPE)
        beds.wait_until(lambda: "bind" in bed.output(name) or program.poll() is not None, 90, f"{settings}")
        if program.poll() is not None:
            raise AssertionError(f"{settings}: {bed.output(name)}")
        seen = json.loads(next(line for line in bed.output(name).splitlines() if line.startswith("{")))
        for what in ("connect", "bound connect"):
            peer, (address, _) = tcp.accept()
            peer.close()
            if address != seen[what]:
                raise AssertionError(f"{settings}: {what} says {seen[what]}, comes from {address}")
        for _ in range(2):
            text, (address, _) = udp.recvfrom(100)
            seen[text.decode()] = address
        for port in (LISTENER, OTHER_LISTENER):
            seen[port] = is_served_by_stack(port)
            socket.create_connection(("127.0.0.1", port), 30).close()  # the kernel's side is there in any case
        program.stdin.close()
        program.wait(60)
        return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options = parser.parse_args()
    traces = options.build / "test-traces" / "rules"
    wrong = 0
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        bed.sut_space.enter()
        for number, (settings, changes) in enumerate(CASES):
            seen = look(bed, number, settings)
            expected = {**DEFAULT, **changes}
            different = {what: seen.get(what) for what in expected if seen.get(what) != expected[what]}
            wrong += bool(different)
            print(f"{settings}: {f'{different} in place of {expected}' if different else 'as expected'}")
    if wrong:
        return 1
    shutil.rmtree(traces)
    return 0


if __name__ == "__main__":
    sys.exit(main())
