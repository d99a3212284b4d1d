"""`bench/run hook` (ns of one system call) and `bench/run startup` (ms that a program's start takes)."""
# SPDX-License-Identifier: BSD-3-Clause
import json
import os
import shutil
import statistics
import subprocess
import time

import rows
from figures import interleave
from processes import Failure

# Case: what is measured, and the hook library it runs under (None: natively).
HOOK_CASES = {
    "native getpid": ("getpid", None),
    "pass-through getpid": ("getpid", "bench_emulate_hook.so"),
    "emulated null read": ("null-read", "bench_emulate_hook.so"),
    "emulated socket read": ("socket-read", "bench_emulate_hook.so"),
    "emulated null read, near jump": ("near-null-read", "bench_emulate_hook.so"),
    "emulated socket read, near jump": ("near-socket-read", "bench_emulate_hook.so"),
    "SUD armed, getpid": ("sud-armed", None),
    "SUD signal": ("sud-signal", None),
    "int3 signal": ("int3", None),
    "ptrace getpid": ("ptrace", None),
}
STARTUP_PROGRAMS = {
    "true": ["/bin/true"],
    "redis-server": ["redis-server", "--version"],
    "nginx": ["nginx", "-v"],
    "python3": ["/usr/bin/python3", "-S", "-c", "pass"],
    "node": ["node", "-e", "0"],
    "java": ["java", "-version"],
}


def built(build, name):
    path = os.path.join(build, name)
    if not os.path.exists(path):
        raise Failure(f"{path} is missing: build it first (cmake --preset release && cmake --build --preset release)")
    return path


def hooked_environment(build, library):
    environment = dict(os.environ, LD_PRELOAD=built(build, "libzpstack.so"), ZPS_LOG="error")
    if library:
        environment["ZPS_HOOK_LIBRARY"] = built(build, library)
    return environment


def table(figures, unit):
    """Prints the figures of each case and returns their rows."""
    made = []
    print(f"{'case':28} {'median':>10} {'min':>10} {'max':>10}  {unit}")
    for case, values in figures.items():
        if not values:
            print(f"{case:28} {'refused by this machine':>32}")
            continue
        one = rows.row(case, "host", unit, zpstack=round(statistics.median(values), 3), min=round(min(values), 3), max=round(max(values), 3))
        made.append(one)
        print(f"{case:28} {one['zpstack']:10.2f} {one['min']:10.2f} {one['max']:10.2f}", flush=True)
    return made


def hook(options):
    program = built(options.build, "bench_hook_calls")

    def measure(case):
        what, library = HOOK_CASES[case]
        environment = hooked_environment(options.build, library) if library else dict(os.environ)
        done = subprocess.run(["taskset", "-c", str(options.cpu), program, what], env=environment, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            if library:
                raise Failure(f"{case}: {done.stderr.strip()}")
            return None
        return json.loads(done.stdout)["ns"]

    made = table(interleave(HOOK_CASES, options.rounds, measure), "ns")
    if options.plot:
        plot(made, options.plot)
    return made, []


def plot(made, path):
    if not shutil.which("gnuplot"):
        raise Failure("--plot needs gnuplot (apt-get install gnuplot-nox)")
    data = "\n".join(f'"{one["case"]}" {one["zpstack"]}' for one in made)
    script = (
        f"set terminal svg size 900,420; set output '{path}'; set style data histograms; set style fill solid; "
        "set logscale y; set ylabel 'ns per call'; unset key; set xtics rotate by -25; set boxwidth 0.7; "
        f"$d << EOD\n{data}\nEOD\nplot $d using 2:xtic(1) with boxes, '' using 0:2:2 with labels offset 0,0.7\n"
    )
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def startup(options):
    programs = {name: command for name, command in STARTUP_PROGRAMS.items() if shutil.which(command[0])}
    hooked = hooked_environment(options.build, None)
    cases = [f"{side} {name}" for name in programs for side in ("native", "hooked")]

    def measure(case):
        side, name = case.split(" ", 1)
        environment = hooked if side == "hooked" else dict(os.environ)
        runs = []
        for _ in range(options.starts):
            start = time.monotonic()
            subprocess.run(["taskset", "-c", str(options.cpu)] + programs[name], env=environment, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=True)
            runs.append((time.monotonic() - start) * 1e3)
        return min(runs)

    figures = interleave(cases, options.rounds, measure)
    added = {name: [h - n for n, h in zip(figures[f"native {name}"], figures[f"hooked {name}"])] for name in programs}
    table(figures, "ms")
    print()
    return table({f"added to {name}": values for name, values in added.items()}, "ms"), []
