"""What a server and all its descendants have taken so far: processor time, and how often one of their threads gave up its processor or lost it."""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import os
import pathlib
import re
import time

TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Usage:
    at: float  # seconds, monotonic
    cpu: float  # seconds, of children that were waited for as well
    switches: dict  # by (process, thread)

    def since(self, earlier):
        """(seconds of processor time, switches or None) per second. Switches of a thread that has ended are unknown to everybody: None."""
        seconds = self.at - earlier.at
        if self.cpu < earlier.cpu or not self.switches:  # it has ended meanwhile
            return None, None
        switches = None
        if earlier.switches.keys() <= self.switches.keys():
            switches = sum(count - earlier.switches.get(task, 0) for task, count in self.switches.items()) / seconds
        return (self.cpu - earlier.cpu) / seconds, switches


def clock(process):
    """Seconds of processor time of all threads that a process has and had, to the nanosecond (CPUCLOCK_SCHED, include/linux/posix-timers.h)."""
    try:
        return time.clock_gettime((~process << 3) | 2)
    except OSError:  # it has ended
        return 0


def processes():
    """Parent by process, for all there are."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat(entry)
            if fields:
                parents[int(entry.name)] = int(fields[1])
    return parents


def stat(entry):
    try:
        return (entry / "stat").read_text().rpartition(") ")[2].split()
    except OSError:  # it has ended
        return None


def tree(root):
    members, parents = {root}, processes()
    while True:
        grown = members | {process for process, parent in parents.items() if parent in members}
        if grown == members:
            return members
        members = grown


def switches(task):
    try:
        return sum(int(count) for count in re.findall(r"voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text()))
    except OSError:
        return None


def of(root):
    """The usage of process `root` and its descendants."""
    cpu, counted = 0, {}
    for process in tree(root):
        entry = pathlib.Path(f"/proc/{process}")
        fields = stat(entry)
        if fields is None:
            continue
        cpu += clock(process) + sum(int(ticks) for ticks in fields[13:15]) / TICKS
        for task in entry.glob("task/*"):
            count = switches(task)
            if count is not None:
                counted[process, task.name] = count
    return Usage(time.monotonic(), cpu, counted)
