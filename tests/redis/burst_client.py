#!/usr/bin/env python3
"""One burst against redis-server that fills the memory of a stack, small requests while it lasts, and two hundred new connections after it.

  burst_client.py ADDRESS PORT readers|writers|pipelines|both_ways

readers ask for much and do not read; writers send much to a server that is busy elsewhere, and leave in the middle of it; pipelines ask for many small
things and do not read; both_ways sends and reads a megabyte on many connections at once, as redis-benchmark does.
"""
# SPDX-License-Identifier: BSD-3-Clause
import asyncio
import contextlib
import socket
import struct
import sys
import time

from resp import Redis, pack

MEGABYTE = 1_000_000
PATIENCE = 20  # seconds in which anything small must be answered
NEW = 200      # connections that must be served afterwards


def connect(address, receive_buffer=0):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE)
    connection.connect((address[0], address[1]))
    return connection


def send_what_fits(connection, data):
    """Without waiting; how much was taken."""
    connection.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < len(data):
            sent += connection.send(data[sent:])
    return sent


def take_leave(connection):
    """Closes after the server has: what a process leaves half closed on a stack of its own dies with it."""
    connection.socket.shutdown(socket.SHUT_WR)
    if connection.file.read() != b"":
        raise AssertionError("an answer to nothing")
    connection.close()


def small_requests(address, count):
    """New connections, each of which has something answered."""
    connections = []
    for i in range(count):
        connection = Redis(*address, timeout=PATIENCE)
        if connection("SET", f"small{i}", f"value{i}") != b"OK" or connection("GET", f"small{i}") != f"value{i}".encode():
            raise AssertionError(f"connection {i}: a wrong reply")
        connections.append(connection)
    for connection in connections:
        take_leave(connection)


def held_back(observer):
    """How many clients redis-server could not write everything to."""
    return sum(b" omem=0 " not in line for line in observer("CLIENT", "LIST").splitlines())


def wait_for_bound(observer, count):
    deadline = time.monotonic() + PATIENCE
    while held_back(observer) < count:
        if time.monotonic() > deadline:
            raise AssertionError(f"only {held_back(observer)} of {count} clients fill their buffers")


def readers(address, observer):
    observer("SET", "large", bytes(MEGABYTE))
    idle = []
    for _ in range(30):
        idle.append(connect(address, 4096))
        idle[-1].sendall(pack("GET", "large") * 4)
    wait_for_bound(observer, len(idle))
    small_requests(address, 20)
    return idle


def writers(address, observer):
    observer.send("DEBUG", "SLEEP", "0.5")
    busy = [connect(address) for _ in range(40)]
    whole = pack("SET", "written", bytes(4 * MEGABYTE))
    for connection in busy:
        send_what_fits(connection, whole)
    if observer.read() != b"OK":
        raise AssertionError("DEBUG SLEEP: a wrong reply")
    small_requests(address, 20)
    return busy


def pipelines(address, observer):
    observer("SET", "middling", bytes(1000))
    idle = []
    for _ in range(60):
        idle.append(connect(address, 4096))
        send_what_fits(idle[-1], pack("GET", "middling") * 4000)
    wait_for_bound(observer, len(idle))
    small_requests(address, 20)
    return idle


async def there_and_back(address, number):
    reader, writer = await asyncio.open_connection(*address)
    data = struct.pack("<I", number) * (MEGABYTE // 4)
    key = f"key{number}"
    for _ in range(2):
        writer.write(pack("SET", key, data) + pack("GET", key))
        expected = b"+OK\r\n$%d\r\n" % len(data)
        if await reader.readexactly(len(expected)) != expected or await reader.readexactly(len(data) + 2) != data + b"\r\n":
            raise AssertionError(f"connection {number}: wrong data")
    writer.write_eof()
    if await reader.read() != b"":
        raise AssertionError(f"connection {number}: an answer to nothing")
    writer.close()


async def all_there_and_back(address):
    await asyncio.wait_for(asyncio.gather(*(there_and_back(address, i) for i in range(40))), 2 * PATIENCE)


def both_ways(address, _):
    asyncio.run(all_there_and_back(address))
    return []


BURSTS = {burst.__name__: burst for burst in (readers, writers, pipelines, both_ways)}


def main():
    address, burst = (sys.argv[1], int(sys.argv[2])), BURSTS[sys.argv[3]]
    observer = Redis(*address, timeout=PATIENCE)
    start = time.monotonic()
    for connection in burst(address, observer):
        connection.close()
    lasted = time.monotonic() - start
    small_requests(address, NEW)
    observer("FLUSHALL")
    observer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # nothing is left to be acknowledged
    observer.close()
    print(f"{burst.__name__} for {lasted:.1f} s, then {NEW} of {NEW} in {time.monotonic() - start - lasted:.1f} s")


if __name__ == "__main__":
    main()
