"""Several redis-servers of one bed, as programs of one host; who may be asked for which key.

Nobody is told where it can be reached: each instance finds out by its own connections, and what it says of itself and of the others is where a client goes next.
"""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402
from resp import Failure, Redis  # noqa: E402

PATIENCE = 120  # seconds, for whatever instances have to find out


class Instance:
    """One redis-server with a folder and a log of its own."""

    def __init__(self, bed, port, *arguments):
        self.bed, self.port, self.name, self.starts = bed, port, f"redis{port}", 0
        self.folder = bed.scratch / self.name
        self.folder.mkdir()
        self.arguments, self.address, self.process = arguments, bed.sut_address, None

    def start(self, *more):
        self.starts += 1
        name = f"{self.name}-{self.starts}"
        log = self.bed.traces / f"{name}.log"
        argv = ["redis-server", *more, "--port", self.port, "--protected-mode", "no", "--save", "", "--repl-diskless-sync-delay", 0, "--dir", self.folder, "--logfile", log, *self.arguments]
        self.process = self.bed.spawn_sut(argv, name=name, environment=self.bed.sut_environment(ZPS_LOG="info"))
        started = re.compile("eady to accept connections|Sentinel ID is")
        beds.wait_until(lambda: (log.exists() and started.search(log.read_text())) or self.process.poll() is not None, 30, f"the start of {name}")
        assert self.process.poll() is None, self.bed.output(name)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def place(self):
        return self.address, self.port

    def ask(self, *words):
        """The reply, text; an error reply is returned."""
        redis = Redis(*self.place())
        try:
            return text(redis.ask(*words))
        finally:
            redis.close()

    def info(self):
        return dict(line.split(":", 1) for line in self.ask("INFO").splitlines() if ":" in line)


def text(reply):
    """A reply with strings in the place of bytes."""
    if isinstance(reply, list):
        return [text(each) for each in reply]
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def await_(condition, what):
    return beds.wait_until(condition, PATIENCE, what, step=0.05)


def slot_of(key):
    """The slot of a key without a tag in braces: CRC16 of XMODEM (the cluster's specification)."""
    crc = 0
    for byte in key.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16384


class Client:
    """Asks where a key belongs; keeps its connections."""

    def __init__(self, find):
        """`find(key)` gives an address and a port."""
        self.find, self._connections = find, {}

    def connection(self, key):
        place = self.find(key)
        if place not in self._connections:
            self._connections[place] = Redis(*place, timeout=5)
        return self._connections[place]

    def get(self, key):
        """What it is, in a list; None where nobody says so."""
        try:
            got = self.connection(key).ask("GET", key)
        except OSError:
            self.forget()
            return None
        return None if isinstance(got, Failure) else [got]

    def forget(self):
        for redis in self._connections.values():
            redis.close()
        self._connections = {}


class Writer:
    """Sets keys one after the other until it is told to stop, each again until that succeeds, and knows what is promised to be there."""

    def __init__(self, number, find):
        self.number, self.client, self.replicas = number, Client(find), 0
        self.kept, self.sets, self.retries, self.stopped, self.problem = {}, 0, 0, False, None

    def run(self):
        try:
            while not self.stopped:
                self._set(f"key-{self.number}-{self.sets % 1000}", str(self.sets))
        except Exception as error:  # whoever joins the thread says so
            self.problem = error
        self.client.forget()

    def _set(self, key, value):
        end = time.monotonic() + PATIENCE
        self.kept.pop(key, None)
        while not self._try(key, value):
            self.retries += 1
            if self.stopped:
                return
            assert time.monotonic() < end, f"{key} could not be set"
            time.sleep(0.01)
        self.kept[key] = value
        self.sets += 1

    def _try(self, key, value):
        try:
            redis = self.client.connection(key)
            return not isinstance(redis.ask("SET", key, value), Failure) and (self.replicas == 0 or redis("WAIT", self.replicas, 1000) >= self.replicas)
        except OSError:
            self.client.forget()
            return False
