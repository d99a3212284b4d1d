"""`bench/run times`: where a server's processor time goes, over the default wire and natively over loopback: microseconds for a request by stage, sampled by perf.

The whole is the server's processor time while a client asks, divided by its requests: what else runs there makes requests fewer, but not much dearer. Samples say which
share of it is whose. What the kernel does in a server's call is the server's: who sends to a client of this machine also does that client's half of TCP. Beside the
whole is what the kernel's calls and the program alone take: what would be left of it over this wire if the stack took no time.
"""
# SPDX-License-Identifier: BSD-3-Clause
import collections
import copy
import math
import re
import shutil
import statistics
import subprocess
import time

import clients
import rows
import tables
import usage
from processes import Failure
from sides import Side, way_of

PROGRAMS = ("echo", "nginx", "bulk")
USUAL = ("echo 16k c50", "100k c50", "100k c500", "bulk 8 up", "bulk 8 down")
SIDES = ("default", "loopback")
SAMPLES_A_SECOND = 4000
BEGIN_SECONDS, END_SECONDS = 0.6, 0.6  # of the client's time that are not looked at
BULK_BYTES = 64 * 1024                 # what is called a request there

OURS, PROGRAM = "zpstack", "program, libc"
# What a sample in the kernel belongs to: the first of these of which one of its functions is.
CALLS = (
    ("kernel: sends", r"_sys_send(to|m?msg)|^(do_sendfile|do_writev|ksys_write)"),
    ("kernel: receives", r"_sys_recv(from|m?msg)|^ksys_read"),
    ("kernel: reads a file", r"^do_preadv"),
    ("kernel: else", r""),
)
COMPILED = tuple((stage, re.compile(pattern)) for stage, pattern in CALLS)
ORDER = (*(stage for stage, _ in CALLS), OURS, PROGRAM)


def stage_of(frames):
    """The stage of a sample: its frames are pairs of function and object, the innermost first."""
    if any("[kernel" in where for _, where in frames):
        return next(stage for stage, pattern in COMPILED if any(pattern.search(function) for function, _ in frames))
    innermost = next((where for _, where in frames if "[vdso]" not in where), "")
    return OURS if "libzpstack" in innermost else PROGRAM


def samples(text):
    """How many of each stage in what `perf script -F pid,ip,sym,dso` says."""
    found = collections.Counter()
    for block in text.split("\n\n"):
        lines = [line.strip() for line in block.split("\n")]
        frames = [match.groups() for match in (re.match(r"[0-9a-f]+ (.*) \((.*)\)$", line) for line in lines) if match]
        if frames:
            found[stage_of(frames)] += 1
    return found


def perf(*words):
    done = subprocess.run(["perf", *map(str, words)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Failure(f"perf {words[0]}: {done.stderr.strip()}")
    return done.stdout


class TimesTable(tables.Table):
    def make_sides(self, scratch):
        return [Side(number, name, way_of(name, self.program), self.program, scratch, self.options.build) for number, name in enumerate(SIDES)]

    def measure(self, side, case):
        """Microseconds for a request by stage."""
        client_on = tables.apart()[1]
        seconds, data = self.options.seconds, side.folder / "samples"
        asked_s = math.ceil(seconds + BEGIN_SECONDS + END_SECONDS)
        idle = usage.of(side.server.pid()).cpu
        client = side.client(case, client_on, asked_s)
        try:
            time.sleep(BEGIN_SECONDS)
            server = ",".join(map(str, usage.tree(side.server.pid())))
            perf("record", "-q", "-F", SAMPLES_A_SECOND, "-e", "cpu-clock", "-g", "-p", server, "-o", data, "--", "sleep", seconds)
            figures = clients.read(client.command, client.wait(seconds * 10 + 30))
            if figures is None:
                raise client.explain("told no rate, or of errors")
        finally:
            client.end()
        requests = figures[0] * asked_s * (1e9 / 8 / BULK_BYTES if self.program.unit == "Gbit/s" else 1)
        each_us = (usage.of(side.server.pid()).cpu - idle) / requests * 1e6
        found = samples(perf("script", "-i", data, "-F", "pid,ip,sym,dso"))
        if not found:
            raise Failure("the server was in no sample")
        return {stage: each_us * count / found.total() for stage, count in found.items()}

    def conclude(self, case, measured, failed):
        for name, why in failed.items():
            self.fail(case, name, why)
        if failed:
            return
        ours, native = (middle(measured[name]) for name in SIDES)
        totals = [sum(taken.values()) for taken in measured["default"]]
        whole, beside = sum(ours.values()), sum(native.values())
        left = whole - ours.get(OURS, 0)
        row = rows.row(f"times {case}", "default", "us", zpstack=round(whole, 2), min=round(min(totals), 2), max=round(max(totals), 2),
                       kernel_loopback=round(beside, 2), ratio_loopback=rows.ratio(whole, beside))
        row |= {"stages": rounded(ours), "stages_loopback": rounded(native), "left": round(left, 2), "ratio_left": rows.ratio(left, beside)}
        self.rows.append(row)
        rows.tell(row)
        for stage in ORDER:
            if stage in ours or stage in native:
                print(f"{'':<4}{stage:<27}{ours.get(stage, 0):>12.2f}{'':<25}{native.get(stage, 0):>12.2f}")
        print(f"{'':<4}{'without zpstack':<27}{left:>12.2f}: {row['ratio_left']:.2f} of loopback's", flush=True)


def middle(rounds):
    """The stages of the round whose sum is the median, of the two in the middle the lesser."""
    wanted = statistics.median_low(sum(taken.values()) for taken in rounds)
    return next(taken for taken in rounds if sum(taken.values()) == wanted)


def rounded(stages):
    return {stage: round(us, 2) for stage, us in stages.items()}


def measure(options):
    if not shutil.which("perf") or None in tables.apart():
        print("times: skipped, perf is not installed or there is one processor only", flush=True)
        return [], []
    options = copy.copy(options)
    if options.rows == ["*"]:
        options.rows = USUAL
    both = [tables.measure(name, options, TimesTable) for name in PROGRAMS]
    return [one for made, _ in both for one in made], [one for _, sides in both for one in sides]
