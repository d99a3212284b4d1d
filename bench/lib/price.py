"""`bench/run price`: redis-server on the same stack over memif, only the way its system calls reach the stack is exchanged.

Mode `symbols` exchanges libc's functions and is the measure: it loses nothing that a rewritten system call would not lose. `zpoline`, `nopage0` and `sud` are the
engine's. `int3` and `ptrace` are there for this measurement alone (bench/hook/mechanism_hook.cc): the stack is the same, and each of its calls first costs a breakpoint
with its signal, or two stops for a tracer. Calls that are not the stack's do not pay there, and the client is always prefixed in the same way.
"""
# SPDX-License-Identifier: BSD-3-Clause
import statistics

import rows
import tables
from processes import Failure
from sides import WAYS, Side, Way

ENGINE_MODES = ("symbols", "zpoline", "nopage0", "sud")
MECHANISM_LIBRARY = "@build@/bench_mechanism_hook.so"
PUBLISHED = {"zpoline": "5.2", "sud": "72 to 98.8", "int3": "72 to 98.8", "ptrace": "72 to 98.8"}  # zpoline, USENIX ATC 2023: Redis on lwIP


def mechanism(name, attach=""):
    return Way(server=True, client=True, settings=(("ZPS_HOOK", "symbols"), ("ZPS_HOOK_LIBRARY", MECHANISM_LIBRARY), ("BENCH_MECHANISM", name)), attach=attach)


HOOKS = {
    **{mode: Way(server=True, client=True, settings=(("ZPS_HOOK", mode),)) for mode in ENGINE_MODES},
    "int3": mechanism("int3"),
    "ptrace": mechanism("ptrace", "@build@/bench_tracer @pid@"),
}


class PriceTable(tables.Table):
    """All hooks side by side; a row for each of them in each case."""

    def make_sides(self, scratch):
        unknown = set(self.options.hooks) - HOOKS.keys()
        if unknown:
            raise Failure(f"no such hook: {', '.join(sorted(unknown))}")
        ways = {name: way for name, way in HOOKS.items() if name in self.options.hooks}
        ways |= {name: WAYS[name] for name in tables.HOST if "host" in self.options.wires or name in self.options.wires}
        return [Side(number, name, way, self.program, scratch, self.options.build) for number, (name, way) in enumerate(ways.items())]

    def conclude(self, case, measured, failed):
        beside = {kernel: measured.pop(kernel) for kernel in tables.HOST if kernel in measured}
        for name, figures in measured.items():
            (row,) = rows.shaped(case.replace("price", f"price {name}"), self.program.unit, {"memif": figures, **beside})
            if "symbols" in measured:
                row["loss_percent"] = lost(figures, measured["symbols"])
            self.rows.append(row)
            self.tell(name, row)
            self.sides.append(rows.side(row["case"], "memif", self.program.unit, figures))
        for name, why in failed.items():
            self.fail(case.replace("price", f"price {name}"), "memif", why)

    def tell(self, name, row):
        rows.tell(row)
        if name != "symbols" and row.get("loss_percent") is not None:
            print(f"{'':<31}{row['loss_percent']:>11.1f}%  lost to symbols" + (f" (published: {PUBLISHED[name]} %)" if name in PUBLISHED else ""), flush=True)


def lost(figures, symbols):
    """Per cent of symbols' rate, the median of the rounds' own ratios: what disturbs the machine disturbs neighbours alike."""
    ratios = [one.rate / other.rate for one, other in zip(figures, symbols)]
    return round((1 - statistics.median(ratios)) * 100, 1)


def measure(options):
    return tables.measure("price", options, PriceTable)
