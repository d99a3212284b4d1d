#!/usr/bin/env python3
"""What the core does not ask of libc and ld.so: functions that allocate with the program's malloc, or leave something behind in its threads.

  imports.py --build build/release
"""
import argparse
import pathlib
import subprocess
import sys

FORBIDDEN = {
    "pthread_create": "ld.so allocates the thread's vector: base::OwnThread",
    "dlopen": "ld.so allocates: the stack's image has a loader of its own",
    "dlmopen": "ld.so allocates",
    "pthread_setspecific": "both libcs keep the values in the same place of the thread",
    "pthread_key_create": "both libcs keep the values in the same place of the thread",
    "__cxa_thread_atexit_impl": "ld.so allocates, and the program's libc runs it",
    "pthread_exit": "libc opens a library for it",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    core = parser.parse_args().build / "libzpstack-core.so"
    text = subprocess.run(["nm", "--dynamic", "--undefined-only", core], check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1].split("@")[0] for line in text.splitlines()}
    if "mmap64" not in names and "malloc" not in names:
        raise SystemExit(f"no imports found in {core}")
    found = sorted(names & FORBIDDEN.keys())
    for name in found:
        print(f"FAIL {core.name} imports {name}: {FORBIDDEN[name]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
