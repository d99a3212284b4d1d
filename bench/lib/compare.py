"""`bench/run compare -- program args :: client args`: a program and a load of one's own, natively and prefixed, with the care of the other measurements.

Each side has a network namespace of its own, so the program keeps its port; each round starts it anew, asks it and ends it, one side after the other. In the client's
words (and the program's) @address@ stands for where the program answers and @port@ for its port, which is --port or the first that it listens at. The figure is
what --figure (a regular expression with a group) finds in the client's output, or what a client says that is known (wrk, redis-benchmark, memcaslap, pgbench, sysbench); of
any other it is the time until it ends.
"""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import re
import time

import catalogue
import clients
import rows
import tables
import usage
from figures import Figures
from processes import Failure, Namespace, Process
from sides import MEMIF_ADDRESSES, NEAR, START_SECONDS, VETH_ADDRESSES, apart

SIDES = ("memif", "default", "loopback", "veth")
CLIENT_SECONDS = 300
LISTENS = "0A"  # the state in /proc/net/tcp (include/net/tcp_states.h)

EXPLANATION = """
What this cannot make fair:
- Loopback hands pages from one process to the other and has no device; the veth pair has one and is nearer to what a network costs the kernel. Neither is a network card.
- On the default wire the client's half is the kernel's, as is most of the time of a request; over memif both halves are ours, and nobody else can reach the program.
- {pinning}
- The program is started anew for each figure: caches are cold at first, and what it does at start is in none of the figures unless the client waits for it.
- A client that asks again when it has its answer (most do) says how fast the pair is, not how the program bears a load that comes regardless.
- {figure}"""
PINNED = "Program and client have one processor each, {}. With more the kernel can spread its work over them, and so can a program with threads or several processes."
UNPINNED = "There is one processor for both: each takes it from the other, and a wait that spins does as well."


def split(words):
    """The words of program and client: what stands before and behind `::`."""
    words = words[1:] if words[:1] == ["--"] else words
    if "::" not in words:
        raise Failure("compare wants: -- program args :: client args")
    place = words.index("::")
    if not words[:place] or not words[place + 1:]:
        raise Failure("compare wants a program in front of :: and a client behind it")
    return words[:place], words[place + 1:]


def listening_ports(pid):
    """Ports of the network namespace of a process, in the order of their number."""
    tables = [pathlib.Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return sorted({int(one[1].split(":")[1], 16) for one in fields if one[3] == LISTENS})


class OneSide:
    """A way to run the pair once: namespaces, prefixes, addresses."""

    def __init__(self, name, options, folder):
        self.name, self.options, self.folder = name, options, folder
        self.library = str(pathlib.Path(options.build, "libzpstack.so").resolve())

    def environment(self, role):
        if self.name in ("loopback", "veth") or (self.name == "default" and role == "client"):
            return {}
        settings = {"LD_PRELOAD": self.library}
        if self.name == "memif":
            settings |= {"ZPS_WIRE": f"memif:{self.folder}/memif.sock,role={role}", "ZPS_IP": f"{MEMIF_ADDRESSES[role]}/24"}
        return settings

    def address(self, server):
        if self.name == "default":
            return server.stack_address()
        return {"memif": MEMIF_ADDRESSES["server"], "veth": VETH_ADDRESSES["server"], "loopback": NEAR}[self.name]

    def measure(self, program, client):
        # The client of a veth pair is in this process's namespace; the other pairs are both in a namespace of their own.
        namespace = Namespace("zpc", VETH_ADDRESSES["client"], VETH_ADDRESSES["server"])
        server_processors, client_processors = apart()
        values = {"port": self.options.port or "", "address": "0.0.0.0", "folder": self.folder}
        server = Process(f"{program[0]} ({self.name})", filled(program, values), server_processors, namespace, **self.environment("server"))
        try:
            server.wait_for(lambda: self.port(server), START_SECONDS, "listened at a port")
            values |= {"port": self.port(server), "address": self.address(server)}
            return self.ask(server, filled(client, values), client_processors, None if self.name == "veth" else namespace)
        finally:
            server.end()
            namespace.close()

    def port(self, server):
        ports = listening_ports(server.pid())
        return self.options.port if self.options.port in ports else None if self.options.port else next(iter(ports), None)

    def ask(self, server, command, processors, namespace):
        before, start = usage.of(server.pid()), time.monotonic()
        client = Process(command[0], command, processors, namespace, **self.environment("client"))
        try:
            output = client.wait(CLIENT_SECONDS)
            seconds = time.monotonic() - start
            after = usage.of(server.pid())
            return figures_of(client, output, self.options.figure, seconds, after.cpu - before.cpu)
        except Failure as failure:
            raise Failure(f"{failure}{server.explain('was its server')}") from None
        finally:
            client.end()


def filled(words, values):
    return [catalogue.fill_in(word, values) for word in words]


def figures_of(client, output, pattern, seconds, cpu):
    name = client.command[0].rpartition("/")[2]
    if pattern:
        found = re.search(pattern, output, re.MULTILINE)
        if not found:
            raise client.explain(f"printed nothing that {pattern} matches")
        return Figures(float(found[1].replace(",", "")))
    if name in clients.READERS:
        told = clients.read(client.command, output)
        if told is None:
            raise client.explain("told no rate, or of errors")
        return Figures(*told, cpu_us=cpu / seconds / told[0] * 1e6, latency_us=clients.distribution(client.command, output))
    return Figures(seconds)


def unit_of(client, pattern):
    if pattern:
        return "of --figure"
    return "requests/s" if client[0].rpartition("/")[2] in clients.READERS else "s"


def measure(options):
    program, client = split(options.words)
    tables.prepare_machine()
    unit = unit_of(client, options.figure)
    measured, failed = {name: [] for name in SIDES if name in options.wires or "host" in options.wires and name in tables.HOST}, {}
    with tables.folder() as folder:
        for _ in range(options.rounds):
            for name in [name for name in measured if name not in failed]:
                try:
                    measured[name].append(OneSide(name, options, folder).measure(program, client))
                except Failure as failure:
                    failed[name] = str(failure)
    print(rows.HEADING)
    table = tables.Table(options, catalogue.Program("compare", "", (), unit=unit))
    table.conclude("compare", {name: figures for name, figures in measured.items() if name not in failed}, failed)
    server, peer = apart()
    figure = "The time until the client ends has its start in it, and that of its prefix; less is better." if unit == "s" else "The figure is the client's own."
    print(EXPLANATION.format(pinning=PINNED.format(f"{server} and {peer}") if server else UNPINNED, figure=figure), flush=True)
    return table.rows, table.sides
