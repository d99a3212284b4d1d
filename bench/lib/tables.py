"""`bench/run redis`, `nginx`, `echo`, `udp`, `bulk`, `connrate`, `scale`: the cases of one file of bench/cases, over both wires and over what the kernel has.

All sides' servers run at once, idle unless asked; each round of a case asks them in turn (A B A B), so that what disturbs the machine disturbs all. The server
has one processor, the client another, where there are two.
"""
# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import dataclasses
import fnmatch
import pathlib
import tempfile

import catalogue
import rows
from processes import Failure, enter_own_namespace, raise_descriptor_limit
from sides import Side, apart, make_findable, way_of

WIRES = ("memif", "default")
HOST = ("loopback", "veth")
DESCRIPTORS = 16384


def chosen_sides(options, program, possible=(*WIRES, *HOST)):
    """The names of the sides that are asked; `host` stands for all that the kernel has."""
    host = [*HOST, *program.ways]
    wanted = [*(host if "host" in options.wires else ()), *options.wires, *(["peer"] if options.peer else [])]
    return [name for name in (*WIRES, "peer", *host) if name in wanted and name in (*possible, "peer", *program.ways)]


def prepare_machine():
    """What a table needs before its first process starts; once for all tables of a run."""
    if not prepare_machine.done:
        enter_own_namespace()
        raise_descriptor_limit(DESCRIPTORS)
        make_findable()
        prepare_machine.done = True


prepare_machine.done = False


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="zpstack-bench-") as scratch:
        pathlib.Path(scratch).chmod(0o755)  # servers become other users
        yield scratch


class Table:
    """The loop over starts of the servers, cases and rounds; collects rows and what each side did."""

    possible = (*WIRES, *HOST)

    def __init__(self, options, program):
        self.options, self.program = options, program
        self.rows, self.sides = [], []

    def make_sides(self, scratch):
        names = chosen_sides(self.options, self.program, self.possible)
        return [Side(number, name, way_of(name, self.program, self.options.peer), self.program, scratch, self.options.build) for number, name in enumerate(names)]

    def run(self):
        missing = self.program.missing()
        if missing:
            print(f"{self.program.name}: skipped, {', '.join(missing)} not installed", flush=True)
            return self
        with folder() as scratch:
            sides = self.make_sides(scratch)
            for values, cases in self.program.starts():
                self.measure_start(sides, values, cases)
        return self

    def measure_start(self, sides, values, cases):
        started = []
        try:
            for side in sides:
                started.append(side)
                side.start(values, apart()[0])
            for case in cases:
                for side in self.measure_case(sides, case):
                    side.end()
                    side.start(values, apart()[0])
        except Failure as failure:
            self.fail(", ".join(case.name for case in cases), "start", str(failure))
        finally:
            for side in reversed(started):
                side.end()

    def measure_case(self, sides, case):
        """Returns the sides that failed: their servers may be of no use any more."""
        measured = {side: [] for side in sides}
        failed = {}
        for _ in range(self.options.rounds):
            for side in [side for side in sides if side not in failed]:
                try:
                    measured[side].append(self.measure_twice(side, case))
                except Failure as failure:
                    failed[side] = str(failure)
        self.conclude(case.name, {side.name: figures for side, figures in measured.items() if side not in failed}, {side.name: why for side, why in failed.items()})
        return failed

    def measure_twice(self, side, case):
        """Once more, from a new start of the server, if it fails: a client whose time ran out because the machine had none is no verdict."""
        try:
            return self.measure(side, case)
        except Failure as failure:
            print(f"{case.name}: {side.name}: once more, for {failure}", flush=True)
        side.end()
        side.start(dict(case.values), apart()[0])
        return self.measure(side, case)

    def measure(self, side, case):
        return side.measure(case, apart()[1], self.options.seconds)

    def conclude(self, case, measured, failed):
        made = rows.shaped(case, self.program.unit, measured)
        for one in made:
            rows.tell(one)
        self.rows += made
        self.sides += [rows.side(case, name, self.program.unit, figures) for name, figures in measured.items()]
        for name, why in failed.items():
            self.fail(case, name, why)

    def fail(self, case, side, why):
        print(f"{case}: {side}: {why}", flush=True)
        self.sides.append({"case": case, "side": side, "failed": why})


def program_of(name, patterns=("*",)):
    """The cases of bench/cases/NAME.toml whose names match one of the patterns."""
    program = catalogue.read(catalogue.CASES / f"{name}.toml")
    cases = tuple(case for case in program.rows if any(fnmatch.fnmatchcase(case.name, pattern) for pattern in patterns))
    return dataclasses.replace(program, rows=cases)


def measure(name, options, kind=Table):
    """The table of one name: (rows, sides)."""
    program = program_of(name, options.rows)
    if not program.rows:
        return [], []
    prepare_machine()
    print(rows.HEADING)
    table = kind(options, program).run()
    return table.rows, table.sides
