"""`bench/run bound`: servers over memif, over loopback, and with reads and writes that cost nothing: what no network stack can exceed.

The third figure is the program's own (bench/free_io): all connections always have a request, every answer is taken at once.
"""
# SPDX-License-Identifier: BSD-3-Clause
import json
import re
import socket

import rows
import tables
from figures import Figures, summary
from sides import NEAR, Side, Way, answers, way_of

PROGRAMS = ("single-redis", "single-nginx")
COUNTED_SECONDS = 60
FIRST_COUNT = 200_000


class FreeSide(Side):
    """The server with reads and writes that cost nothing: it ends by itself after a number of requests, so each measurement starts it."""

    count = FIRST_COUNT

    def start(self, values, processors):
        self.row_values, self.processors = dict(values), processors

    def environment(self, role):
        values = self.row_values
        return {"LD_PRELOAD": str(self.build / "bench_free_io.so"), "FREE_IO_REQUEST": values["request"], "FREE_IO_PIPELINE": values["pipeline"],
                "FREE_IO_CONNECTIONS": str(int(values["connections"]) + 1), "FREE_IO_COUNT": str(self.count)}

    def measure(self, row, processors, seconds):
        super().start(self.row_values, self.processors)
        connections = []
        try:
            # One more than that was counted: the look whether it answers, which may be closed by now.
            connections = [socket.create_connection((NEAR, self.port), 5) for _ in range(int(self.row_values["connections"]) + 1)]
            rate = json.loads(re.search(r"^\{.*\}$", self.server.wait(COUNTED_SECONDS), re.MULTILINE)[0])["requests_per_second"]
        finally:
            for connection in connections:
                connection.close()
            self.end()
        self.count = max(int(rate * seconds), FIRST_COUNT)
        return Figures(rate)


class BoundTable(tables.Table):
    def make_sides(self, scratch):
        sides = [Side(number, name, way_of(name, self.program), self.program, scratch, self.options.build) for number, name in enumerate(("memif", *tables.HOST))]
        return [*sides, FreeSide(len(sides), "free", Way(), self.program, scratch, self.options.build)]

    def conclude(self, case, measured, failed):
        free = measured.pop("free", None)
        super().conclude(case, measured, failed)
        if free and self.rows and self.rows[-1]["case"] == case:
            bound = summary(free)
            self.rows[-1] |= {"bound": bound["rate"], "ratio_bound": rows.ratio(self.rows[-1]["zpstack"], bound["rate"])}
            print(f"{'':<31}{bound['rate']:>12,.0f}  ({bound['min']:,.0f} to {bound['max']:,.0f}) with reads and writes that cost nothing: {self.rows[-1]['ratio_bound']:.2f} of it", flush=True)
            self.sides.append(rows.side(case, "free", self.program.unit, free))


def measure(options):
    both = [tables.measure(name, options, BoundTable) for name in PROGRAMS]
    return [one for made, _ in both for one in made], [one for _, sides in both for one in sides]
