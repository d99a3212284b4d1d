#!/usr/bin/env python3
"""What core and engine do not ask of libc and ld.so: functions that allocate with the program's malloc, or leave something behind in its threads.

  imports.py --build build/release
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import subprocess
import sys

# In the core's namespace malloc is the core's own; what ld.so allocates is the program's in both.
CORE = {
    "pthread_create": "ld.so allocates the thread's vector: base::OwnThread",
    "dlopen": "ld.so allocates: the stack's image has a loader of its own",
    "dlmopen": "ld.so allocates",
    "pthread_setspecific": "both libcs keep the values in the same place of the thread",
    "pthread_key_create": "both libcs keep the values in the same place of the thread",
    "__cxa_thread_atexit_impl": "ld.so allocates, and the program's libc runs it",
    "pthread_exit": "libc opens a library for it",
}
# Before the program has begun, as the core itself is loaded, and for one wire alone.
ALLOWED = {"dlopen": "drivers.cc.o"}
ENGINE = {name: "that is the program's allocator" for name in ("malloc", "calloc", "realloc", "free", "posix_memalign")}


def imports_of(library):
    text = subprocess.run(["nm", "--dynamic", "--undefined-only", library], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in text.splitlines()}
    if "clock_gettime" not in names:
        raise SystemExit(f"no imports found in {library}")
    return names


def users_of(function, build):
    """The objects of the project's that call it."""
    archives = list(build.rglob("libzps_*.a"))
    text = subprocess.run(["nm", "-A", "--undefined-only", *archives], check=True, capture_output=True, text=True).stdout
    return {line.split(":")[-2] for line in text.splitlines() if line.split()[-1:] == [function]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    build = parser.parse_args().build
    failed = 0
    for name, forbidden in (("libzpstack-core.so", CORE), ("libzpstack.so", ENGINE)):
        for function in sorted(imports_of(build / name) & forbidden.keys()):
            if function in ALLOWED and users_of(function, build) == {ALLOWED[function]}:
                continue
            failed += 1
            print(f"FAIL {name} imports {function}: {forbidden[function]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
