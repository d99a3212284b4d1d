#!/usr/bin/env python3
"""Long answers are acknowledged by the requests that follow them: the client's kernel sends no acknowledgement of its own.

  acknowledgements.py --build build/release --mode zpstack-veth [--requests 400] [--attempts 5] [--most 0.1]

Messages of 16 KB that come back, one at a time, over links whose segments may be as long as loopback's. A kernel acknowledges at once when more than a segment of
its peer's has come (tcp_measure_rcv_mss(), __tcp_ack_snd_check()), so an answer that reaches it as one and a bit costs a frame more.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import shutil
import socket
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 8094
LINK_MTU = 65500
MESSAGE = bytes(range(256)) * 64
QUICK_ACKS = 64  # requests after which no kernel acknowledges quickly because the connection is young
SEGMENTS_OUT_AT, DATA_SEGMENTS_OUT_AT = 136, 156  # in struct tcp_info

SERVE = f"""
import socket
listener = socket.create_server(("0.0.0.0", {PORT}))
client, _ = listener.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while True:
    message = b""
    while len(message) < {len(MESSAGE)}:
        piece = client.recv({len(MESSAGE)} - len(message))
        if not piece:
            raise SystemExit
        message += piece
    client.sendall(message)
"""


def ask(client, requests):
    for _ in range(requests):
        client.sendall(MESSAGE)
        if client.recv(len(MESSAGE), socket.MSG_WAITALL) != MESSAGE:
            raise AssertionError("no echo")


def bare(client):
    """Segments without data that the client has sent."""
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return struct.unpack_from("I", info, SEGMENTS_OUT_AT)[0] - struct.unpack_from("I", info, DATA_SEGMENTS_OUT_AT)[0]


def lengthen_segments(bed):
    """The kernel's own links get the MTU that the stack's have."""
    if not bed.hooked:
        bed.peer_space.run("ip", "link", "set", "zps0", "mtu", str(LINK_MTU))
        bed.sut_space.run("ip", "link", "set", "zps0p", "mtu", str(LINK_MTU))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--attempts", type=int, default=5, help="at most; fewer if one was good: whoever gets no processor for 40 ms acknowledges late")
    parser.add_argument("--most", type=float, default=0.1, help="acknowledgements of their own for each answer")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"acknowledgements-{options.mode}"
    with beds.Bed(options.mode, options.build, traces) as bed:
        lengthen_segments(bed)
        bed.spawn_sut(["/usr/bin/python3", "-S", "-c", SERVE], environment=bed.sut_environment())
        bed.peer_space.enter()
        client = beds.wait_until(lambda: connect(bed), 30, "the server's start")
        ask(client, QUICK_ACKS)
        for _ in range(options.attempts):
            before = bare(client)
            ask(client, options.requests)
            rate = (bare(client) - before) / options.requests
            print(f"{rate:.3f} acknowledgements of their own for each answer", flush=True)
            if rate <= options.most:
                break
        else:
            raise AssertionError("answers are acknowledged by themselves")
        client.close()
    shutil.rmtree(traces)
    return 0


def connect(bed):
    try:
        client = socket.create_connection((bed.sut_address, PORT), 1)
    except OSError:
        return None
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.settimeout(None)  # or MSG_WAITALL does not wait
    return client


if __name__ == "__main__":
    sys.exit(main())
