#!/usr/bin/env python3
"""Runs a program that confines itself, natively and hooked: whatever serves natively serves on the stack.

  confined.py --build build/release --mode kernel|zpstack-veth|zpstack-memif [--case NAME]

A case is a row of CASES: the steps of tests/limits/confined.c, and what is in front. It ends with status 0; one that serves is asked once, from the other
end of the wire.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7012
SERVE = ["listen", "serve"]
# Root without the right to raise limits, as in containers.
LIMITED = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

UNABLE_TO_LOCK = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
LOCKING = ["prlimit", "--memlock=8388608", *NOBODY]

CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as client:
    client.settimeout(30)
    client.sendall(b"hello\\n")
    assert client.recv(64) == b"hello\\n"
"""

# Name, command in front, steps.
CASES = [
    ("setuid before listen", [], ["setuid", *SERVE]),
    ("setreuid before listen", [], ["setreuid", *SERVE]),
    ("setresuid before listen", [], ["setresuid", *SERVE]),
    ("an effective user id for a while", [], ["seteuid", *SERVE]),
    ("capset before listen", [], ["capset", *SERVE]),
    ("one capability is kept", [], ["keepcaps", *SERVE]),
    ("setuid, then a child serves", [], ["setuid", "go-on-in-child", *SERVE]),
    ("a child sets its user and serves", [], ["go-on-in-child", "setuid", *SERVE]),
    ("setuid, close everything, then listen", [], ["setuid", "close-all", *SERVE]),
    ("setuid and children", [], ["setuid", "child", *SERVE]),
    ("setuid and another program", [], ["setuid", "child", "exec"]),
    ("another real user, and itself executed again", [], ["real-user", "exec-self", "kept-real-user", *SERVE]),
    ("another root before listen", [], ["chroot", *SERVE]),
    ("another root and another user", [], ["chroot", "setuid", *SERVE]),
    ("setuid after listen", [], ["listen", "setuid", "serve"]),
    ("1024 files", [], ["nofile=1024", *SERVE]),
    ("256 files", [], ["nofile=256", *SERVE]),
    ("256 files, no right to more", LIMITED, ["nofile=256", *SERVE]),
    ("1024 files, no right to more, all of them used", LIMITED, ["nofile=1024", "listen", "fill=128", "serve"]),
    ("1024 files after listen, no right to more", LIMITED, ["listen", "nofile=1024", "limited=1024", "serve"]),
    ("256 files after listen, without the right from then on", [], ["listen", "nofile=256", "setuid", "limited=256", "serve"]),
    ("256 files after listen, and a child serves", LIMITED, ["listen", "nofile=256", "go-on-in-child", "serve"]),
    ("64 files given, no right to more", [*LIMITED, "prlimit", "--nofile=64"], SERVE),
    ("files and user", [], ["nofile=1024", "setuid", *SERVE]),
    ("user and files", [], ["setuid", "nofile=256", *SERVE]),
    ("a megabyte of thread-local variables", [], ["tls", *SERVE]),
    ("a library with 1536 bytes of static TLS", [], ["late-tls=1536", *SERVE]),
    ("a library with 1664 bytes of static TLS, and room made for it", ["env", "GLIBC_TUNABLES=glibc.rtld.optional_static_tls=656"], ["late-tls=1664", *SERVE]),
    ("200 MB of address space, after listen", [], ["listen", "as=200", "map=1", "serve"]),
    ("200 MB of address space, and a child serves", [], ["listen", "as=200", "go-on-in-child", "serve"]),
    ("100 MB of address space without a socket", [], ["as=100", "map=80"]),
    ("memory locked by an ordinary user", LOCKING, ["map-odd-name", "mlockall", "locked=1000", "map-locked=1024", "map-error=8192", "munlockall", "map-unlocked=512"]),
    ("memory locked by an ordinary user, for now", LOCKING, ["mlockall", "mlockall-present", "locked=1000", "map-unlocked=1024"]),
    ("memory locked under a limit, and a server", ["prlimit", "--memlock=8388608", *UNABLE_TO_LOCK], ["mlockall", "listen", "locked=1000", "serve"]),
    ("memory locked for a while, and a server", ["prlimit", "--memlock=8388608", *UNABLE_TO_LOCK], ["mlockall", "munlockall", "listen", "unlocked", "serve"]),
    ("memory locked by the parent of a server", ["prlimit", "--memlock=8388608", *UNABLE_TO_LOCK],
     ["mlockall", "go-on-in-child", "listen", "unlocked", "serve"]),
    ("memory locked under a limit that is too low", ["prlimit", "--memlock=1048576", *NOBODY], ["mlockall-error=12", "map=1"]),
    ("memory locked without a limit", [], ["mlockall", "map-locked=1024", *SERVE]),
    ("a fork that allows no more", [], ["allow-fork", "child"]),
    ("a fork that allows no more, without page 0", ["env", "ZPS_HOOK=nopage0"], ["allow-fork", "child"]),
    ("a fork that allows no more, with nothing rewritten", ["env", "ZPS_HOOK=sud"], ["allow-fork", "child"]),
    ("a fork that allows no more, by symbols", ["env", "ZPS_HOOK=symbols"], ["allow-fork", "child"]),
    ("sched_setaffinity is an error", [], ["no-affinity=1", *SERVE]),
    ("sched_setaffinity is death", [], ["no-affinity", *SERVE]),
]


def is_root_in(pid):
    """Whether any thread of it has an id of root's, or a capability."""
    status = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
    return any(re.search(r"^Uid:.*\b0\b", text, re.MULTILINE) or not re.search(r"^CapPrm:\s+0+$", text, re.MULTILINE) for text in status)


def serve_one(bed, process, name, gives_up_root):
    beds.wait_until(lambda: "ready" in bed.output(name) or process.poll() is not None, 30, "the server's start")
    if "ready" not in bed.output(name):
        return f"ended with {process.poll()}"
    if gives_up_root and not any("child" in word for word in process.args):
        beds.wait_until(lambda: not is_root_in(process.pid), 30, "every thread to be another user's")
    client = bed.spawn_peer(["/usr/bin/python3", "-S", "-c", CLIENT, bed.sut_address, str(PORT)], name=f"{name}-client")
    return None if client.wait(30) == 0 else f"no answer: {bed.output(f'{name}-client').strip()}"


def run_case(bed, case):
    name, front, steps = case
    stream = re.sub(r"\W+", "-", name)
    environment = bed.sut_environment()
    # What stands in front is not prefixed: it would need rights of its own.
    if bed.mode == "zpstack-memif":
        bed.scratch.chmod(0o777)  # where the socket is, also for who has changed the user before
    preload = [f"LD_PRELOAD={environment.pop('LD_PRELOAD')}"] if bed.hooked else []
    program = bed.build / ("limits_confined_tls" if "tls" in steps else "limits_confined")
    process = bed.spawn_sut([*front, "env", *preload, program, *steps], name=stream, environment=environment)
    try:
        problem = serve_one(bed, process, stream, "setuid" in steps) if "serve" in steps else None
        code = process.wait(30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{name}: {error}: {bed.output(stream).strip()}"
    if problem is None and code != 0:
        problem = f"exit status {code}"
    return f"{name}: {problem}: {bed.output(stream).strip()}" if problem else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--case", action="append", help="only these")
    options = parser.parse_args()
    chosen = [case for case in CASES if not options.case or case[0] in options.case]
    # Those that do not serve can have one network together.
    if options.mode == "zpstack-memif":
        for case in [case for case in chosen if "chroot" in case[2]]:
            print(f"skip {case[0]}: the memif's socket is not below the new root")
            chosen.remove(case)
    groups = [[case for case in chosen if "serve" not in case[2]], *[[case] for case in chosen if "serve" in case[2]]]
    problems = []
    for group in filter(None, groups):
        with beds.Bed(options.mode, options.build, options.build / "test-traces" / f"confined-{options.mode}") as bed:
            for case in group:
                problem = run_case(bed, case)
                print(f"{'FAIL ' + problem if problem else 'ok   ' + case[0]}", flush=True)
                problems += [problem] if problem else []
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
