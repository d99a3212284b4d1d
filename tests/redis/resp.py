"""A small RESP2 client over one socket: one call, pipelines, pushes; replies as bytes, int, list, None or Failure."""
# SPDX-License-Identifier: BSD-3-Clause
import socket


class Failure(Exception):
    """An error reply."""

    def __eq__(self, other):
        return isinstance(other, Failure) and str(other) == str(self)


def pack(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, (bytes, bytearray)) else str(word).encode()
        parts.append(b"$%d\r\n" % len(data))
        parts.append(data)
        parts.append(b"\r\n")
    return b"".join(parts)


class Redis:
    def __init__(self, address, port, timeout=60):
        self.socket = socket.create_connection((address, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", 1 << 16)

    def __call__(self, *words):
        """The reply; an error reply is raised."""
        reply = self.ask(*words)
        if isinstance(reply, Failure):
            raise reply
        return reply

    def ask(self, *words):
        """The reply; an error reply is returned."""
        self.socket.sendall(pack(*words))
        return self.read()

    def send(self, *words):
        self.socket.sendall(pack(*words))

    def read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Failure(rest.decode())
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"*":
            return [self.read() for _ in range(size)]
        data = self.file.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError("the connection ended")
        return data[:-2]

    def close(self):
        self.file.close()
        self.socket.close()
