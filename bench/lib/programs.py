"""`bench/run programs`: servers with several threads and processes, and clients that share their processors, natively and prefixed.

A row is a server, its configuration and a client (bench/programs; lib/catalogue.py says what is in a file). For each placement the sides'
servers run at once, idle unless asked; each round asks them in turn. Sides: `native` over loopback, `zpstack` over the default wire with the
kernel's client, `memif` with both programs prefixed, `NAME=BUILD` as zpstack, with the library of another build directory. Placements: A, the server on one processor and the client on another; B, both on both;
C, both on one. The server's processor time and switches are taken while the client is at work.
"""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import os
import pathlib
import statistics
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "lib"))
import catalogue  # noqa: E402
import clients  # noqa: E402
import usage  # noqa: E402
from processes import Failure, Process, cpus, enter_own_namespace, raise_descriptor_limit  # noqa: E402

FIRST_PORT = 7100  # two for each side
NEAR = "127.0.0.1"  # reaches a prefixed server that listens at all addresses as well
MEMIF_ADDRESSES = {"server": "198.18.7.1", "client": "198.18.7.2"}
START_SECONDS = 30
FIRST_REQUESTS = 2000  # of a client that is told a number: how many a second there are is not known yet
FIGURES = ("rate", "p50_us", "p99_us", "cpu_us", "switches")


def placements():
    server, client = cpus()
    if server is None:
        return {"C": (None, None)}
    return {"A": (server, client), "B": (server | client, server | client), "C": (server, server)}


@dataclasses.dataclass
class Figures:
    """One measurement; per request where it is a price."""
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    switches: float


class Side:
    """One way to run a program: its folder, its server while there is one, and where it answers."""

    def __init__(self, number, side, program, scratch, build):
        self.name, _, other_build = side.partition("=")
        self.program = program
        self.port = FIRST_PORT + 2 * number
        self.folder = pathlib.Path(scratch, f"{program.name}-{self.name}")
        self.folder.mkdir(mode=0o755)
        self.library = str(pathlib.Path(other_build or build, "libzpstack.so").resolve())
        self.server, self.beside = None, []
        self.values, self.rates = {}, {}
        self.prepared = False

    def environment(self, role):
        if self.name == "memif":
            return {"LD_PRELOAD": self.library, "ZPS_WIRE": f"memif:{self.folder}/memif.sock,role={role}", "ZPS_IP": f"{MEMIF_ADDRESSES[role]}/24"}
        return {} if self.name == "native" or role == "client" else {"LD_PRELOAD": self.library}

    def start(self, values, processors):
        self.values = {**dict(values), "folder": self.folder, "port": self.port, "beside_port": self.port + 1}
        for name, text in self.program.files:
            (self.folder / name).write_text(catalogue.fill_in(text, self.values))
        if not self.prepared:
            self.shell(self.program.prepare)
            self.prepared = True
        self.beside = [self.spawn(command, processors) for command in self.program.beside]
        self.server = self.spawn(self.program.server, processors, **self.environment("server"))
        self.server.wait_for(lambda: answers(self.values["port"]), START_SECONDS, "answered at its port")
        known = {"native": NEAR, "memif": MEMIF_ADDRESSES["server"]}
        self.values["address"] = known.get(self.name) or self.server.stack_address()
        self.shell(self.program.fill)

    def spawn(self, command, processors, **environment):
        words = catalogue.split(command, self.values)
        return Process(f"{words[0]} ({self.name})", words, processors, **environment)

    def shell(self, commands):
        for command in commands:
            command = catalogue.fill_in(command, self.values)
            done = subprocess.run(command, shell=True, cwd=self.folder, capture_output=True, text=True, timeout=120)
            if done.returncode != 0:
                raise Failure(f"{command}\n    ended with status {done.returncode}: {done.stdout}{done.stderr}")

    def end(self):
        for process in [self.server, *self.beside]:
            if process:
                process.end()
        self.server, self.beside = None, []

    def measure(self, row, processors, seconds):
        if "@requests@" not in row.client:
            return self.ask(row, processors, seconds, 0)
        if row not in self.rates:
            self.rates[row] = self.ask(row, processors, 0, FIRST_REQUESTS).rate
        figures = self.ask(row, processors, seconds, int(self.rates[row] * seconds))
        self.rates[row] = figures.rate
        return figures

    def ask(self, row, processors, seconds, requests):
        command = catalogue.split(row.client, {**self.values, "seconds": seconds, "requests": requests})
        client = Process(command[0], command, processors, **self.environment("client"))
        try:
            time.sleep(seconds * 0.25)
            before = usage.of(self.server.pid())
            time.sleep(seconds * 0.5)
            cpu, switches = usage.of(self.server.pid()).since(before)
            output = client.wait(seconds * 10 + 30)
            figures = clients.read(command, output)
            if figures is None or self.server.status() is not None:
                raise client.explain("told no rate, or of errors")
            rate, p50_us, p99_us = figures
            return Figures(rate, p50_us, p99_us, cpu / rate * 1e6, None if switches is None else switches / rate)
        except Failure as failure:
            raise Failure(f"{failure}{self.server.explain('was its server')}") from None
        finally:
            client.end()


def answers(port):
    try:
        socket.create_connection((NEAR, port), 1).close()
        return True
    except OSError:
        return False


def summary(measured):
    """Medians of the rounds; of the rate also least and most."""
    out = {}
    for figure in FIGURES:
        values = [getattr(figures, figure) for figures in measured]
        out[figure] = None if None in values else round(statistics.median(values), 2)
    rates = [figures.rate for figures in measured]
    return {**out, "min": round(min(rates), 1), "max": round(max(rates), 1)}


HEADING = (f"{'row':<28}{'':<3}{'side':<9}{'requests/s':>11}  {'(least to most)':<21}{'of native':>10}{'p50 us':>9}{'p99 us':>9}{'CPU us':>8}{'switches':>9}\n"
           f"{'':<28}{'':<3}{'':<9}{'':>11}  {'':<21}{'':>10}{'':>9}{'':>9}{'a request':>17}")


def cell(value, width, digits=0):
    return f"{'-' if value is None else format(value, f',.{digits}f'):>{width}}"


def tell(row):
    for side, figures in row["sides"].items():
        spread = f"({figures['min']:,.0f} to {figures['max']:,.0f})"
        print(f"{row['row']:<28}{row['place']:<3}{side:<9}{figures['rate']:>11,.0f}  {spread:<21}{cell(row['ratios'].get(side), 10, 2)}"
              f"{cell(figures['p50_us'], 9)}{cell(figures['p99_us'], 9)}{cell(figures['cpu_us'], 8, 1)}{cell(figures['switches'], 9, 2)}", flush=True)


def conclude(row, place, measured):
    sides = {name: summary(figures) for name, figures in measured.items()}
    native = sides.get("native")
    ratios = {name: round(figures["rate"] / native["rate"], 3) for name, figures in sides.items() if native and name != "native"}
    return {"row": row.name, "place": place, "unit": "requests/s", "sides": sides, "ratios": ratios}


class Programs:
    """The loop over programs, starts, placements, rows and rounds."""

    def __init__(self, options):
        self.options = options
        self.rows = []

    def run(self):
        for program in catalogue.programs(self.options.rows):
            missing = program.missing()
            if missing:
                print(f"{program.name}: skipped, {', '.join(missing)} not installed", flush=True)
                continue
            with tempfile.TemporaryDirectory(prefix="zpstack-bench-") as scratch:
                pathlib.Path(scratch).chmod(0o755)  # servers become other users
                sides = [Side(number, side, program, scratch, self.options.build) for number, side in enumerate(self.options.sides)]
                for values, rows in program.starts():
                    for place in self.options.places:
                        self.measure_start(sides, values, rows, place)
        return self.rows

    def measure_start(self, sides, values, rows, place):
        server_processors, client_processors = placements()[place]
        try:
            for side in sides:
                side.start(values, server_processors)
            for row in rows:
                self.measure_row(sides, row, place, client_processors)
        except Failure as failure:
            self.failed(", ".join(row.name for row in rows), place, failure)
        finally:
            for side in reversed(sides):
                side.end()

    def measure_row(self, sides, row, place, processors):
        measured = {side.name: [] for side in sides}
        try:
            for _ in range(self.options.rounds):
                for side in sides:
                    measured[side.name].append(side.measure(row, processors, self.options.seconds))
        except Failure as failure:
            self.failed(row.name, place, failure)
            return
        self.rows.append(conclude(row, place, measured))
        tell(self.rows[-1])

    def failed(self, name, place, failure):
        print(f"{name}: {place}: {failure}", flush=True)
        self.rows.append({"row": name, "place": place, "failed": str(failure)})


def measure(options):
    """The rows of `bench/run programs`; a row that failed says why under "failed"."""
    if options.list:
        for program in catalogue.programs(options.rows):
            print("\n".join(row.name for row in program.rows))
        return []
    unknown = set(options.places) - placements().keys()
    if unknown:
        raise Failure(f"placement {', '.join(sorted(unknown))} takes two processors")
    enter_own_namespace()
    raise_descriptor_limit(4096)
    os.environ["PATH"] = catalogue.SEARCHED
    print(HEADING)
    return Programs(options).run()
