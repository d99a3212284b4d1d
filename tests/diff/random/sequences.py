#!/usr/bin/env python3
"""Runs random sequences of socket operations natively and hooked, compares what every operation says, and minimises what differs.

  sequences.py --build build/release --mode zpstack-veth --operations 1000000 --seeds 1 2 3
  sequences.py --build build/release --mode zpstack-memif --replay FILE

In mode kernel the second side is native too: the tester's own soundness. A seed `random` is drawn and printed. A difference is printed
as the shortest sequence that still shows it, with both traces; the sequence is kept in a file that --replay takes. Exit code 1 if there is any.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import queue
import random
import re
import subprocess
import sys
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(SOURCE / "tests" / "lib"))
import bed as beds  # noqa: E402

WORLDS_AT_ONCE = 50
ANSWER_SECONDS = 30.0  # for one line of an answer
LINES_AROUND = 60  # what differed once is shown with so many lines before and after
POOLS = (r"pools: (\d+ streams, \d+ listeners)", r"family: .* watched, (.*)")
OWN_LEVELS = ["0 streams, 1 listeners", "1 sockets, 3 datagram sockets, 0 sets, 0 registrations"]  # the listener by which it looks after the wire, and its barrier
POOL_SECONDS = 20.0
NOBODY = "02:00:00:00:00:77"  # the link address of somebody who is not there, so that nothing tells that he is not


class Broken(Exception):
    """A side that hangs or has ended; `lines` came before."""

    def __init__(self, what, lines):
        super().__init__(what)
        self.lines = lines


class Side:
    """A tester and its agent in one mode, started again whenever it breaks."""

    def __init__(self, name, mode, build, shared):
        self.name, self.mode, self.build = name, mode, build
        self.shared = {"ZPS_TEST_SHARED": "1"} if shared else {}
        self.bed = None

    def start(self):
        traces = self.build / "test-traces" / f"random-{self.mode}-{self.name}"
        self.bed = beds.Bed(self.mode, self.build, traces)
        self.bed.__enter__()
        for space in {self.bed.sut_space, self.bed.peer_space}:  # whoever is refused is told, however often
            space.run("sysctl", "-w", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        if self.mode == "kernel":
            nobody = self.bed.sut_address.rsplit(".", 1)[0] + ".77"
            self.bed.sut_space.run("ip", "neigh", "add", nobody, "lladdr", NOBODY, "dev", "zps0p", "nud", "permanent")
        program = self.build / "diff_random"
        control = self.bed.scratch / "control"
        agent = self.bed.spawn_peer([program, "--agent", control], environment=self.bed.peer_environment(ZPS_UDP="stack"))
        beds.wait_until(lambda: control.exists() or agent.poll() is not None, 30, "the agent's control socket")
        environment = self.bed.sut_environment(ZPS_TEST_CONTROL=control, ZPS_LOG="debug", ZPS_UDP="stack", **self.shared)  # tells what the pools hold
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = self.bed.spawn_sut([program, "--serve"], environment=environment, **pipes)
        self.answers = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.answers), daemon=True).start()

    def left_in_pools(self):
        """What is still there of connections and sockets when no world is: a text, "" if nothing is but the tester's own."""
        if self.mode == "kernel" or not self.bed:
            return ""
        try:
            beds.wait_until(lambda: self._levels() == OWN_LEVELS, POOL_SECONDS, "pools")
        except TimeoutError:
            return ", ".join(self._levels())
        return ""

    def _levels(self):
        told = [re.findall(pattern, self.bed.output("sut")) for pattern in POOLS]
        return [each[-1] if each else "" for each in told]

    @staticmethod
    def _read(process, answers):
        for line in process.stdout:
            answers.put(line.rstrip("\n"))
        answers.put(None)

    def stop(self):
        if self.bed:
            self.bed.__exit__(None, None, None)
            self.bed = None

    def ensure(self):
        if not self.bed:
            self.start()

    def ask(self, command):
        """The lines of the answer."""
        self.ensure()
        lines = []
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            while True:
                line = self.answers.get(timeout=ANSWER_SECONDS)
                if line is None:
                    raise Broken(f"ended with {self.process.wait()}", lines)
                if line == "END":
                    return lines
                lines.append(line)
        except queue.Empty:
            self.bed.explain_hang()
            problem = Broken("hangs", lines)
        except BrokenPipeError:
            problem = Broken(f"ended with {self.process.wait()}", lines)
        except Broken as broken:
            problem = broken
        print(f"  {self.name} ({self.mode}) {problem}: {self.bed.output('sut')[-2000:]}{self.bed.output('peer')[-500:]}", flush=True)
        self.stop()
        raise problem


def trace(side, sequence):
    try:
        return side.ask("\n".join([f"run {len(sequence)}", *sequence]))
    except Broken as broken:
        return [*broken.lines, f"BROKEN {broken}"]


class Comparison:
    def __init__(self, native, other):
        self.sides = (native, other)

    def traces(self, sequence):
        return [trace(side, sequence) for side in self.sides]

    def differs(self, sequence, times=1):
        """Whether the sequence differs, every one of so many times."""
        for _ in range(times):
            native, other = self.traces(sequence)
            if native == other:
                return False
        return True

    def minimise(self, sequence, seconds=60):
        """Zeller's ddmin over operations."""
        deadline = time.monotonic() + seconds
        parts = 2
        while len(sequence) > 1 and time.monotonic() < deadline:
            size = max(1, len(sequence) // parts)
            for start in range(0, len(sequence), size):
                rest = sequence[:start] + sequence[start + size :]
                if rest and self.differs(rest, times=2):
                    sequence, parts = rest, max(parts - 1, 2)
                    break
            else:
                if size == 1:
                    break
                parts = min(parts * 2, len(sequence))
        return sequence


def show(traces, around=None):
    """Both traces in one; `around`: so many lines before the first that differs, and after it."""
    native, other = traces
    lines = range(max(len(native), len(other)))
    if around is not None:
        first = next((i for i in lines if native[i : i + 1] != other[i : i + 1]), 0)
        lines = lines[max(0, first - around) : first + around]
    for index in lines:
        one = native[index] if index < len(native) else "(nothing)"
        two = other[index] if index < len(other) else "(nothing)"
        if one == two:
            print(f"    {one}")
        else:
            print(f"  - {one}\n  + {two}")


def report(comparison, sequence, kept):
    """Minimises, prints and keeps a difference. False if it does not come back."""
    if not comparison.differs(sequence, times=2):
        return False
    shortest = comparison.minimise(sequence)
    show(comparison.traces(shortest))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("\n".join(shortest) + "\n")
    print(f"  kept in {kept}", flush=True)
    return True


def mass(side, seed, first, count, out):
    """Adds digests of worlds; one that breaks the side gets the word `broken`, and is the last."""
    try:
        out.extend(side.ask(f"mass {seed} {first} {count}"))
    except Broken as broken:
        out.extend([*broken.lines, f"{first + len(broken.lines)} 0 broken"])


def masses(sides, seed, first):
    """The answers of both sides, which work at the same time."""
    answers = [[], []]
    while any(len(out) < WORLDS_AT_ONCE for out in answers):
        threads = []
        for side, out in zip(sides, answers):
            side.ensure()  # here: a process dies with the thread that has started it
            threads.append(threading.Thread(target=mass, args=(side, seed, first + len(out), WORLDS_AT_ONCE - len(out), out)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers


def run_seed(options, sides, seed):
    """Returns how many differences there are."""
    found = unsteady = operations = 0
    world = options.world
    begin = time.monotonic()
    while operations < options.operations and found < options.most and time.monotonic() - begin < options.seconds:
        for native, other in zip(*masses(sides, seed, world)):
            operations += int(native.split()[1])
            if native == other or found >= options.most:
                continue
            number = int(native.split()[0])
            print(f"seed {seed}, world {number} differs", flush=True)
            first_traces = [] if "broken" in native + other else [side.ask(f"trace {number}") for side in sides]
            sequence = sides[0].ask(f"show {seed} {number}")
            kept = options.build / "test-traces" / "random" / f"{options.mode}-{seed}-{number}"
            if report(Comparison(*sides), sequence, kept):
                found += 1
                print(f"  repeat: {sys.argv[0]} --build {options.build} --mode {options.mode} --replay {kept}", flush=True)
            else:
                unsteady += 1
                print("  but not again; then it was", flush=True)
                if first_traces:
                    show(first_traces, around=LINES_AROUND)
        world += WORLDS_AT_ONCE
    seconds = time.monotonic() - begin
    for side in sides:
        if left := side.left_in_pools():
            print(f"seed {seed}: {side.mode} has not all back: {left}", flush=True)
            found += 1
    print(f"seed {seed}: {operations} operations in {seconds:.1f} s, worlds {options.world} to {world - 1}, {found} differences, "
          f"{unsteady} that did not come back", flush=True)
    return found


def undocumented(build):
    """Rows that the tester leaves out and docs/differences.md does not have."""
    said = subprocess.run([build / "diff_random", "--rows"], check=True, capture_output=True, text=True, env=beds.clean_environment())
    rows = said.stdout.split("\n")
    document = (SOURCE / "docs" / "differences.md").read_text()
    return [row for row in rows if row and f"| {row} |" not in document and f"`{row}`" not in document]


def replay(options, sides):
    lines = options.replay.read_text().splitlines()
    traces = Comparison(*sides).traces([line for line in lines if line and not line.startswith("#")])
    show(traces)
    return int(traces[0] != traces[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--operations", type=int, default=20000, help="of every seed")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which a seed ends, whatever has been done")
    parser.add_argument("--seeds", nargs="+", default=["1"])
    parser.add_argument("--world", type=int, default=0, help="where a seed begins: for one that is run in parts")
    parser.add_argument("--most", type=int, default=5, help="differences of a seed after which it ends")
    parser.add_argument("--replay", type=pathlib.Path)
    options = parser.parse_args()
    options.build = options.build.resolve()
    if missing := undocumented(options.build):
        raise SystemExit(f"docs/differences.md lacks {', '.join(missing)}")
    shared = options.mode in ("zpstack-host", "zpstack-afxdp")  # both sides leave out the same
    sides = Side("native", "kernel", options.build, shared), Side("other", options.mode, options.build, shared)
    try:
        if options.replay:
            return replay(options, sides)
        seeds = [random.randrange(1 << 32) if seed == "random" else int(seed) for seed in options.seeds]
        return int(sum(run_seed(options, sides, seed) for seed in seeds) > 0)
    finally:
        for side in sides:
            side.stop()


if __name__ == "__main__":
    sys.exit(main())
