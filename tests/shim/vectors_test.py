#!/usr/bin/env python3
"""What runs for a call around which no vector register is kept uses none: follows all direct calls and jumps from the dispatch on.

Usage: vectors_test.py libzpstack-core.so libzpstack-stack.so. An indirect call is fine in two places: the dispatch, whose other targets have
their registers kept by the entry, and set_and_look(), which asks a stream's ready(); that is a root of its own here.
"""
# SPDX-License-Identifier: BSD-3-Clause
import re
import subprocess
import sys

# Library, where to begin, functions that may call through a pointer.
ROOTS = [
    (1, ["shim::(anonymous namespace)::on_syscall(zps_call*)", "shim::shim_epoll_ctl(zps_call const&)"], ["on_syscall(", "set_and_look(", "control_connection(", "control_as_favourite(", "shim_epoll_ctl("]),
    (2, ["netstack::LwipStream::ready() const"], []),
]
# They keep the registers themselves, or never return.
ENDS = ("zps_keep_vectors", "base::check_failed(")
VECTOR = re.compile(r"%(?:[xyz]mm|mm|st|k)\d|%st\b|\bf?xsave|\bv?zero(?:upper|all)")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
TARGET = re.compile(r"\b(?:call|j\w+)\s+[0-9a-f]+ <(.+)>$")


def functions(library):
    """Name -> instructions. The dump cuts a function at each label in it, so a name's instructions include what falls through."""
    text = subprocess.run(["objdump", "-d", "-C", "--no-show-raw-insn", library], capture_output=True, text=True, check=True).stdout
    found = {}
    name = None
    for line in text.splitlines():
        start = FUNCTION.match(line)
        if start:
            name = start.group(1)
            found.setdefault(name, [])
        elif name and "\t" in line:
            found[name].append(line.split("\t", 1)[1].strip())
    return found


def faults_below(found, root, may_call):
    faults, seen, waiting = [], set(), [root]
    while waiting:
        name = waiting.pop()
        if name in seen or name.startswith(ENDS):
            continue
        seen.add(name)
        for instruction in found[name]:
            if VECTOR.search(instruction):
                faults.append(f"{name}: {instruction}")
            if re.search(r"\b(?:call|jmp)\s+\*", instruction) and not any(part in name for part in may_call):
                faults.append(f"{name} goes through a pointer: {instruction}")
            target = TARGET.search(instruction)
            if target:
                callee = re.sub(r"\+0x[0-9a-f]+$", "", target.group(1))
                if callee not in found:
                    faults.append(f"{name} leaves the library: {instruction}")
                else:
                    waiting.append(callee)
    return faults, seen


def main():
    faults = []
    for index, roots, may_call in ROOTS:
        found = functions(sys.argv[index])
        for root in roots:
            if root not in found:
                sys.exit(f"{sys.argv[index]} has no {root}")
            more, seen = faults_below(found, root, may_call)
            faults += more
            print(f"{root}: {len(seen)} functions")
    # The search must be able to find something.
    busy, _ = faults_below(functions(sys.argv[1]), "shim::control_anyhow(zps_call const&)", [])
    if not busy:
        sys.exit("the complete epoll_ctl is without vector registers too? Then this test looks at nothing")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
