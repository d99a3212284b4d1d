"""Callgrind's output: what each function took by itself, and the stage of a request that the function belongs to.

The format is in valgrind's manual ("Callgrind Format Specification"): names are given once with a number, a cost line has a position and a count, the cost line
behind `calls=` is what the callee took and is not the caller's.
"""
# SPDX-License-Identifier: BSD-3-Clause
import collections
import re

NAMED = re.compile(r"^(ob|cob|fl|fi|fe|cfi|cfl|fn|cfn)=\((\d+)\)(?: (.*))?$")
COST = re.compile(r"^[+\-*\d]\S* (\d+)$")
SPACES = {"ob": "object", "cob": "object", "fn": "function", "cfn": "function"}  # of names; all others are files

# Which stage a function belongs to: the first of these patterns that its object, file and name match. All of our files lie below folders of these names.
STAGES = (
    ("copying", r"/base/memory_ops\.cc|mem(cpy|move)[^ ]*$"),
    ("hook", r"^\S*/libzpstack\.so |bench_mechanism_hook"),
    ("system calls", r"/shim/calls/"),
    ("sockets and epoll", r"/shim/files/"),
    ("memory", r"/base/(heap|arena)\.cc"),
    ("waiting, locks", r"/shim/family/|/base/"),
    ("lwIP", r"/lwip/src/"),
    ("TCP beside lwIP", r"/netstack/tcp/"),
    ("wire", r"/netstack/wires/|rte_|libdpdk"),
    ("stack's turn", r"/netstack/|libzpstack-stack"),
    ("sockets and epoll", r"libzpstack-core"),
    ("libc", r"/libc\.so|/ld-linux|^\?\?\? "),
    ("program", r""),
)
COMPILED = tuple((stage, re.compile(pattern)) for stage, pattern in STAGES)
ORDER = tuple(dict.fromkeys(stage for stage, _ in STAGES))


def stage_of(where, file, function):
    return next(stage for stage, pattern in COMPILED if pattern.search(f"{where} {file} {function}"))


def self_costs(text):
    """Instructions by (object, file, function), without what they called."""
    costs, names = collections.Counter(), {"object": {}, "function": {}, "file": {}}
    at = {"ob": "", "fl": "", "fn": ""}
    of_callee = False
    for line in text.splitlines():
        named = NAMED.match(line)
        if named:
            kind, number, name = named.groups()
            known = names[SPACES.get(kind, "file")]
            if name is not None:
                known[number] = name
            if kind in at:
                at[kind] = known[number]
        elif line.startswith("calls="):
            of_callee = True
        else:
            cost = COST.match(line)
            if cost and not of_callee:
                costs[at["ob"], at["fl"], at["fn"]] += int(cost[1])
            of_callee = of_callee and not cost
    return costs


def stages(text):
    """Instructions by stage, in the order of ORDER."""
    sums = collections.Counter()
    for (where, file, function), cost in self_costs(text).items():
        sums[stage_of(where, file, function)] += cost
    return {stage: sums[stage] for stage in ORDER if sums[stage]}
