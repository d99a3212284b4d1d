#!/usr/bin/env python3
"""Runs a case (a script that drives real programs) natively and hooked, and compares what it printed, its status and the files it made.

  programs.py --build build/release cases/git.sh [--modes native witness stack] [--keep]

Modes
  native   without the library: this is what the others are compared with
  witness  under a hook that claims and passes every call; each program that runs leaves its path in a list, and each call that escaped
  stack    under libzpstack-core.so, as users have it

Each run has a network namespace of its own and the same working directory, made anew: so output can be compared word for word. A case
says in `# hooked: git sshd` which programs have to be on the list of the witness, in `# untabled: bare` whose calls trap because no table
describes their code, in `# modes: witness` if not every mode makes sense, and in `# together: yes` if the modes may run at the same time (in
different directories then). It finds in PROGRAMS_MODE its mode, in PROGRAMS_BUILD the build folder, in PROGRAMS_SOURCE this folder; `native`
before a command (cases/lib.sh) takes the hook off. What is left running when a case ends is compared as well, and ended.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import collections
import concurrent.futures
import difflib
import hashlib
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import bed as beds  # noqa: E402

MODES = ("native", "witness", "stack")
ESCAPED = "escaped "


class Observation:
    """What one run of a case showed: a dictionary from a name to lines of text."""

    def __init__(self, status, out, err, tree, left):
        err = re.sub(r"(: line \d+:) +\d+ ", r"\1 PID ", err)  # bash names a child that a signal ended
        self.parts = {"status": [str(status)], "stdout": out.splitlines(), "stderr": err.splitlines(), "files": tree, "left running": left}


def directive(case, name):
    found = re.search(rf"^# {name}: (.*)$", case.read_text(), re.MULTILINE)
    return found.group(1).split() if found else []


def describe_tree(root):
    """One line per file below `root`/kept: path, mode, and a digest or the link's target."""
    lines = []
    for path in sorted((root / "kept").rglob("*")):
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            what = f"-> {os.readlink(path)}"
        elif stat.S_ISREG(info.st_mode):
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            what = "-"
        lines.append(f"{path.relative_to(root)} {stat.filemode(info.st_mode)} {what}")
    return lines


def environment_of(mode, options, root):
    environment = {
        "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PROGRAMS_MODE": mode,
        "PROGRAMS_BUILD": str(options.build),
        "PROGRAMS_SOURCE": str(HERE),
    }
    if mode != "native":
        environment.update(LD_PRELOAD=str(options.build / "libzpstack.so"), ZPS_LOG="error")
    if mode == "witness":
        environment.update(ZPS_HOOK_LIBRARY=str(options.build / "libzpstack-test-hook-witness.so"), ZPS_WITNESS=str(root.parent / "witness"))
    passed_on = {"ZPS_HOOK"} if mode != "native" else set()
    for variable in passed_on | {"PROGRAMS_FULL"}:
        if variable in os.environ:
            environment[variable] = os.environ[variable]
    return environment


def names_of(pids):
    names = []
    for pid in pids:
        try:
            names.append(pathlib.Path(f"/proc/{pid}/comm").read_text().strip())
        except OSError:
            continue
    return sorted(names)


def run(case, mode, options, base, place):
    root = base / place
    shutil.rmtree(root, ignore_errors=True)
    for name in ("home", "tmp", "kept"):
        (root / name).mkdir(parents=True)
    space = beds.Namespace()
    try:
        with open(base / f"{mode}.out", "w+b") as out, open(base / f"{mode}.err", "w+b") as err:
            process = subprocess.Popen(
                [str(case), *options.arguments],
                cwd=root / "kept",
                env=environment_of(mode, options, root),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=space.enter,
            )
            try:
                status = process.wait(options.timeout)
            except subprocess.TimeoutExpired:
                status = f"hangs (over {options.timeout} s): {' '.join(names_of(space.members()))}"
                if options.keep:
                    print(f"{mode} hangs; its processes: {space.members()}", flush=True)
                    input("Enter goes on")
            left = names_of(space.members())
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read().decode(errors="backslashreplace"))
    finally:
        space.close()
        if process.poll() is None:
            process.wait()
    return Observation(status, *texts, describe_tree(root), left)


def run_modes(case, modes, options, base, together):
    """Yields (observation, seconds) in the order of the modes."""

    def one(mode):
        start = time.monotonic()
        seen = run(case, mode, options, base, f"run-{mode}" if together else "run")
        return seen, time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor(len(modes) if together else 1) as pool:
        yield from pool.map(one, modes)


def compare(native, hooked, mode):
    """Differences as text, one per part; empty if there are none."""
    found = []
    for name, lines in native.parts.items():
        if lines != hooked.parts[name]:
            diff = difflib.unified_diff(lines, hooked.parts[name], "native", mode, n=2, lineterm="")
            found.append(f"{name} differs:\n" + "\n".join(list(diff)[:60]))
    return found


def unseen_programs(case, base):
    seen = {pathlib.Path(line).name for line in (base / "witness").read_text().splitlines() if not line.startswith(ESCAPED)}
    return [name for name in directive(case, "hooked") if not any(re.fullmatch(name, program) for program in seen)]


def escaped_calls(case, base):
    """Calls that would have reached the kernel unseen: how many of each, told by program, number, place and file (witness_hook.c)."""
    untabled = tuple(f"/{name}" for name in directive(case, "untabled"))
    lines = [line for line in (base / "witness").read_text(errors="backslashreplace").splitlines() if line.startswith(ESCAPED)]
    lines = [line for line in lines if not line.endswith(untabled)]
    return [f"{count} times: {line}" for line, count in collections.Counter(lines).items()]


# In the place of /etc, for this process and its children alone.
COPY_OF_ETC = """
set -e
copy=$(mktemp -d)
mount -t tmpfs etc "$copy"
cp -a /etc/. "$copy"
echo "127.0.0.1 localhost" >>"$copy/hosts"
mount --bind "$copy" /etc
umount "$copy"
rmdir "$copy"
exec "$@"
"""


def name_localhost():
    """A system that nobody has configured has no /etc/hosts, and python's tests then wait for a name server until they are ended: gives it one."""
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET)
    except OSError:
        if "PROGRAMS_ETC" not in os.environ:
            os.environ["PROGRAMS_ETC"] = "a copy"
            os.execvp("unshare", ["unshare", "--mount", "sh", "-c", COPY_OF_ETC, "sh", sys.executable, *sys.argv])


def main():
    name_localhost()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("arguments", nargs="*", help="of the case")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--modes", nargs="+", choices=MODES)
    parser.add_argument("--timeout", type=float, default=100)
    parser.add_argument("--apart", action="store_true", help="one mode after the other, also where they may run together")
    parser.add_argument("--keep", action="store_true", help="keep the working directory, and stop where a run hangs")
    options = parser.parse_args()
    options.build = options.build.resolve()
    case = options.case.resolve()
    modes = options.modes or ["native", *(directive(case, "modes") or MODES[1:])]

    base = pathlib.Path(tempfile.mkdtemp(prefix="zps-programs-"))
    base.chmod(0o755)
    (base / "witness").write_text("")
    (base / "witness").chmod(0o666)
    together = bool(directive(case, "together")) and not options.apart
    failures = 0
    native = None
    for mode, (seen, seconds) in zip(modes, run_modes(case, modes, options, base, together)):
        problems = []
        if native is None:
            native = seen
            if seen.parts["status"] != ["0"]:
                problems.append("the case itself fails:\n" + "\n".join(line for part in seen.parts.values() for line in part[-40:]))
        else:
            problems += compare(native, seen, mode)
        if mode == "witness":
            problems += [f"{name} did not run hooked" for name in unseen_programs(case, base)]
            problems += escaped_calls(case, base)
        print(f"{'FAIL' if problems else 'ok  '} {' '.join([case.stem, *options.arguments])} {mode} {seconds:.1f} s, {len(seen.parts['stdout'])} lines", flush=True)
        for problem in problems:
            print("  " + problem.replace("\n", "\n  "), flush=True)
        failures += bool(problems)
    if options.keep:
        print(f"kept: {base}")
    else:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
