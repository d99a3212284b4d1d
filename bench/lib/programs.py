"""`bench/run programs`: servers with several threads and processes, and clients that share their processors, natively and prefixed.

A row is a server, its configuration and a client (bench/programs; lib/catalogue.py says what is in a file). For each placement the sides'
servers run at once, idle unless asked; each round asks them in turn. Sides: `native` over loopback, `zpstack` over the default wire with the
kernel's client, `memif` with both programs prefixed, `NAME=BUILD` as zpstack, with the library of another build directory. Placements: A, the server on one processor and the client on another; B, both on both;
C, both on one. The server's processor time and switches are taken while the client is at work.
"""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import tempfile

import catalogue
import rows
from figures import summary
from processes import Failure
from sides import Side, placements, way_of
from tables import prepare_machine

WAYS = {"native": "loopback", "zpstack": "default"}  # as `bench/run programs` has always called them
FIGURES = ("rate", "p50_us", "p99_us", "cpu_us", "switches", "min", "max")


def side_of(number, name, program, scratch, build):
    return Side(number, name, way_of(WAYS.get(name, name), program), program, scratch, build)


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
    sides = {name: {figure: summary(figures)[figure] for figure in FIGURES} for name, figures in measured.items()}
    native = sides.get("native")
    ratios = {name: round(figures["rate"] / native["rate"], 3) for name, figures in sides.items() if native and name != "native"}
    shaped = rows.shaped(f"{row.name} {place}", "requests/s", {WAYS.get(name, name): figures for name, figures in measured.items()})
    return {**(shaped[0] if shaped else {"unit": "requests/s"}), "row": row.name, "place": place, "sides": sides, "ratios": ratios}


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
                sides = [side_of(number, side, program, scratch, self.options.build) for number, side in enumerate(self.options.sides)]
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
                    measured[side.name].append(self.measure_twice(side, row, place, processors))
        except Failure as failure:
            self.failed(row.name, place, failure)
            return
        self.rows.append(conclude(row, place, measured))
        tell(self.rows[-1])

    def measure_twice(self, side, row, place, processors):
        """As Table.measure_twice(): once more, from a new start of the server, if it fails."""
        try:
            return side.measure(row, processors, self.options.seconds)
        except Failure as failure:
            print(f"{row.name}: {place}: {side.name}: once more, for {failure}", flush=True)
        side.end()
        side.start(dict(row.values), placements()[place][0])
        return side.measure(row, processors, self.options.seconds)

    def failed(self, name, place, failure):
        print(f"{name}: {place}: {failure}", flush=True)
        self.rows.append({"row": name, "place": place, "failed": str(failure)})


def measure(options):
    """The rows of `bench/run programs`; a row that failed says why under "failed"."""
    if options.list:
        for program in catalogue.programs(options.rows):
            print("\n".join(row.name for row in program.rows))
        return [], []
    unknown = set(options.places) - placements().keys()
    if unknown:
        raise Failure(f"placement {', '.join(sorted(unknown))} takes two processors")
    prepare_machine()
    print(HEADING)
    return Programs(options).run(), []
