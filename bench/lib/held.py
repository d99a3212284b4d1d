"""`bench/run idle` and `memory`: what a server takes that holds connections which say nothing. Less is better.

`idle` is its processor time, in per cent of one processor. `memory` is its proportional set size (PSS) with all its processes: the stack's memory is in it, the
kernel's for the sockets of the kernel's side is not. Every side holds its connections while the rounds look at them in turn.
"""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import re
import time

import tables
import usage
from figures import Figures
from processes import Failure
from sides import apart

HOLD_SECONDS = 60


class HeldTable(tables.Table):
    """Clients that connect, are served once and stay; figure() looks at a side's server."""

    def measure_case(self, sides, case):
        clients, measured, failed = [], {}, {}
        try:
            for side in sides:
                try:
                    clients.append(side.client(case, apart()[1], 0))
                    clients[-1].wait_for(lambda: "held" in clients[-1].output(), HOLD_SECONDS, "made its connections")
                    measured[side] = []
                except Failure as failure:
                    failed[side] = str(failure)
            for _ in range(self.options.rounds):
                for side, figures in measured.items():
                    figures.append(Figures(self.figure(side)))
        finally:
            for client in clients:
                client.end()
        self.conclude(case.name, {side.name: figures for side, figures in measured.items()}, {side.name: why for side, why in failed.items()})
        return failed


class IdleTable(HeldTable):
    def figure(self, side):
        before = usage.of(side.server.pid())
        time.sleep(self.options.seconds)
        return usage.of(side.server.pid()).since(before)[0] * 100


class MemoryTable(HeldTable):
    def figure(self, side):
        return sum(proportional_kb(process) for process in usage.tree(side.server.pid())) / 1024


def proportional_kb(process):
    found = re.search(r"^Pss:\s+(\d+) kB", pathlib.Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1])
