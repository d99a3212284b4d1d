"""A side of a comparison: one way for a server and its client to reach each other, its processes, and what one measurement of it yields.

    loopback  both natively, in one network namespace
    veth      both natively, the server in a namespace of its own behind a veth pair
    default   the server prefixed on the default wire, the client natively
    memif     both prefixed, over shared memory
    peer      another stack's server on the memif wire, its client prefixed (--peer)
"""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import math
import os
import pathlib
import socket
import subprocess
import time

import catalogue
import clients
import usage
from figures import Figures
from processes import Failure, Namespace, Process, cpus

FIRST_PORT = 7100  # two for each side
NEAR = "127.0.0.1"  # reaches a prefixed server that listens at all addresses as well
MEMIF_ADDRESSES = {"server": "198.18.7.1", "client": "198.18.7.2"}
VETH_ADDRESSES = {"server": "198.18.8.1", "client": "198.18.8.2"}
START_SECONDS = 30
LOADED_SECONDS = 0.003  # of processor time, after which a server is at work
FIRST_REQUESTS = 2000  # of a client that is told a number: how many a second there are is not known yet


@dataclasses.dataclass(frozen=True)
class Way:
    server: bool = False  # prefixed
    client: bool = False
    apart: bool = False   # the server in a namespace of its own
    command: str = "@server@"
    where: str = ""       # in place of the program's
    wide: bool = False    # the server may use all processors
    build: str = ""       # another build's library
    settings: tuple = ()  # of the server: pairs; places in the values are filled in
    attach: str = ""      # a command that is started when the server answers, and has to print something: @pid@ is the server


WAYS = {"loopback": Way(), "veth": Way(apart=True), "default": Way(server=True), "memif": Way(server=True, client=True)}


def way_of(name, program, peer=None):
    """The way that a name stands for: one of WAYS, one of the program's own, the peer, or NAME=BUILD."""
    name, _, build = name.partition("=")
    if build:
        return Way(server=True, build=build)
    if name == "peer":
        return Way(client=True, command=peer)
    if name in program.ways:
        own = program.ways[name]
        return Way(command=own["server"], where=own.get("where", ""), wide=own.get("wide", False))
    return WAYS[name]


class Side:
    """The side's folder, its server while there is one, and where it answers."""

    def __init__(self, number, name, way, program, scratch, build):
        self.name = name.partition("=")[0]
        self.way, self.program = way, program
        self.port = FIRST_PORT + 2 * number
        self.folder = pathlib.Path(scratch, f"{program.name}-{self.name}")
        self.folder.mkdir(mode=0o755)
        self.build = pathlib.Path(build).resolve()
        self.library = str(pathlib.Path(way.build or build, "libzpstack.so").resolve())
        self.server, self.beside, self.namespace = None, [], None
        self.values, self.rates = {}, {}
        self.prepared = False

    def is_memif(self):
        return self.way.client

    def environment(self, role):
        if not getattr(self.way, role):
            return {}
        settings = {key: catalogue.fill_in(value, self.values) for key, value in self.way.settings} if role == "server" else {}
        if self.is_memif():
            settings = {"ZPS_WIRE": f"memif:{self.folder}/memif.sock,role={role}", "ZPS_IP": f"{MEMIF_ADDRESSES[role]}/24", **settings}
        return {"LD_PRELOAD": self.library, **self.program.environment, **settings}

    def near(self):
        """Where a native client of ours reaches the server, whichever stack it has."""
        return VETH_ADDRESSES["server"] if self.way.apart else NEAR

    def start(self, values, processors):
        self.values = {**dict(values), "bench": catalogue.BENCH, "build": self.build, "folder": self.folder, "port": self.port,
                       "beside_port": self.port + 1, "socket": self.folder / "memif.sock", "address": MEMIF_ADDRESSES["server"]}
        for name, text in self.program.files:
            (self.folder / name).write_text(catalogue.fill_in(text, self.values))
        if not self.prepared:
            self.shell(self.program.prepare)
            self.prepared = True
        if self.way.apart and not self.namespace:
            self.namespace = Namespace("zpb", VETH_ADDRESSES["client"], VETH_ADDRESSES["server"])
        command = self.way.command.replace("@server@", self.program.server)
        processors = None if self.way.wide else processors
        self.beside = [self.spawn(beside, processors) for beside in self.program.beside]
        self.server = self.spawn(command, processors, **self.environment("server"))
        self.await_server()
        self.values["address"] = self.address()
        if self.way.attach:
            self.values["pid"] = self.server.pid()
            attached = self.spawn(self.way.attach, processors)
            self.beside.append(attached)
            attached.wait_for(attached.output, START_SECONDS, "attached itself")
        if not self.is_memif() or self.way.server:
            self.shell(self.program.fill)

    def await_server(self):
        if self.way.client and not self.way.server:
            self.server.wait_for(self.values["socket"].exists, START_SECONDS, "made its memif socket")
        else:
            self.server.wait_for(lambda: answers(self.near(), self.port), START_SECONDS, "answered at its port")

    def address(self):
        if self.is_memif():
            return MEMIF_ADDRESSES["server"]
        return self.server.stack_address() if self.way.server else self.near()

    def spawn(self, command, processors, **environment):
        words = catalogue.split(command, self.values)
        return Process(f"{words[0]} ({self.name})", words, processors, self.namespace, **environment)

    def shell(self, commands):
        for command in commands:
            command = catalogue.fill_in(command, self.values)
            done = subprocess.run(command, shell=True, cwd=self.folder, capture_output=True, text=True, timeout=120,
                                  preexec_fn=self.namespace.enter if self.namespace else None)
            if done.returncode != 0:
                raise Failure(f"{command}\n    ended with status {done.returncode}: {done.stdout}{done.stderr}")

    def end(self):
        for process in [*reversed(self.beside), self.server]:
            if process:
                process.end()
        self.server, self.beside = None, []
        if self.namespace:
            self.namespace.close()
            self.namespace = None

    def measure(self, row, processors, seconds):
        """One measurement of a row (catalogue.Row): Figures."""
        if "@requests@" not in row.client:
            return self.ask(row, processors, seconds, 0)
        if row not in self.rates:
            self.rates[row] = self.ask(row, processors, 0, FIRST_REQUESTS).rate
            more = int(self.rates[row] * seconds / 4)
            if more > FIRST_REQUESTS:
                self.rates[row] = self.ask(row, processors, 0, more).rate
        figures = self.ask(row, processors, seconds, max(int(self.rates[row] * seconds), 1))
        self.rates[row] = figures.rate
        return figures

    def client(self, row, processors, seconds, requests=0):
        text = row.client.replace("@where@", self.way.where or self.program.where)
        command = catalogue.split(text, {**self.values, "seconds": math.ceil(seconds), "exact_seconds": seconds, "requests": requests})
        return Process(command[0], command, processors, **self.environment("client"))

    def await_load(self, idle, client):
        """Until the server is at work: a prefixed client takes a while to start."""
        deadline = time.monotonic() + 1
        while usage.of(self.server.pid()).cpu - idle < LOADED_SECONDS and client.status() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def ask(self, row, processors, seconds, requests):
        idle = usage.of(self.server.pid()).cpu
        client = self.client(row, processors, seconds, requests)
        try:
            self.await_load(idle, client)
            time.sleep(seconds * 0.25)
            before, client_before = usage.of(self.server.pid()), usage.of(client.pid())
            time.sleep(seconds * 0.5)
            cpu, switches = usage.of(self.server.pid()).since(before)
            client_cpu, client_switches = usage.of(client.pid()).since(client_before)
            figures = clients.read(client.command, client.wait(seconds * 10 + 30))
            if figures is None or self.server.status() is not None:
                raise client.explain("told no rate, or of errors")
            rate, p50_us, p99_us = figures
            latency_us = clients.distribution(client.command, client.output())
            return Figures(rate, p50_us, p99_us, per(cpu, rate, 1e6), per(switches, rate), per(client_cpu, rate, 1e6), per(client_switches, rate), latency_us)
        except Failure as failure:
            raise Failure(f"{failure}{self.server.explain('was its server')}") from None
        finally:
            client.end()


def per(value, rate, factor=1):
    """The price of one, of a price per second."""
    return None if value is None else value / rate * factor


def answers(address, port):
    try:
        socket.create_connection((address, port), 1).close()
        return True
    except OSError:
        return False


def placements():
    """The processors of server and client by the placement's letter, each a set; None: all."""
    server, client = cpus()
    if server is None:
        return {"C": (None, None)}
    return {"A": (server, client), "B": (server | client, server | client), "C": (server, server)}


def apart():
    """Server and client on a processor each, where there are two."""
    return placements().get("A", (None, None))


def make_findable():
    """Servers are found where Debian puts them, also without a path."""
    os.environ["PATH"] = catalogue.SEARCHED
