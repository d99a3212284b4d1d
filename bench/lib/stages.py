"""`bench/run stages`: where a request's work goes in the server: instructions by stage (callgrind), and kernel calls (strace); ours over memif, natively over loopback.

Instructions are those of the process: what the kernel does is not among them, its calls are counted beside them. They do not depend on how busy the machine is. The
hook is mode `symbols` there, as callgrind lets nobody rewrite code: what rewriting costs more is `bench/run hook`'s and `price`'s. Of the rounds the one with the
fewest instructions counts: a server that has to wait polls, and connections are part of the requests they were made for.
"""
# SPDX-License-Identifier: BSD-3-Clause
import re
import shutil
import subprocess

import callgrind
import clients
import rows
import tables
from processes import Failure
from sides import Side, Way

PROGRAMS = ("single-redis", "single-nginx", "single-memcached")
PLAIN = (("ZPS_HOOK", "symbols"), ("ZPS_HOOK_LIBRARY", "@build@/bench_mechanism_hook.so"), ("BENCH_MECHANISM", "plain"))
# 12 descriptors are valgrind's own: memcached then gets the number it wants (its limit and the hard one have to be the same).
UNDER_CALLGRIND = "prlimit --nofile=1036:1036 valgrind --tool=callgrind --callgrind-out-file=@folder@/out @server@"
UNDER_STRACE = "strace -f -c -o @folder@/calls -p @pid@"
WAYS = {
    "memif": Way(server=True, client=True, command=UNDER_CALLGRIND, settings=PLAIN),
    "loopback": Way(command=UNDER_CALLGRIND),
    "memif-calls": Way(server=True, client=True, attach=UNDER_STRACE),
    "loopback-calls": Way(attach=UNDER_STRACE),
}
LEAST_REQUESTS = 1000
WARM_UP_SECONDS = 0.2
NOT_CALLS = ("total", "restart_syscall")


def requests_of(client, output):
    """How many requests a client has made."""
    if "-n" in client:
        return int(client[client.index("-n") + 1])
    return clients.number(r"(?:^\s+(?=\d+ requests in)|Ops: )(\d+)", output)


class StagesTable(tables.Table):
    def make_sides(self, scratch):
        return [Side(number, name, way, self.program, scratch, self.options.build) for number, (name, way) in enumerate(WAYS.items())]

    def measure_case(self, sides, case):
        found, failed = {}, {}
        for side in sides:
            try:
                found[side.name] = self.measure_twice(side, case)
            except Failure as failure:
                failed[side.name] = str(failure)
                self.fail(case.name, side.name, failed[side.name])
        if not failed:
            self.tell(case.name, found)
        return [side for side in sides if side.way.attach or side.name in failed]  # strace tells when it ends

    def measure(self, side, case):
        return self.calls(side, case) if side.way.attach else self.instructions(side, case)

    def load(self, side, case, seconds=0):
        """Asks the side's server and returns how many requests that were."""
        seconds = seconds or self.options.seconds
        client = side.client(case, tables.apart()[1], seconds, max(int(10_000 * seconds), LEAST_REQUESTS))
        try:
            requests = requests_of(client.command, client.wait(60 + 10 * seconds))
            if not requests:
                raise client.explain("made no request")
            return requests
        finally:
            client.end()

    def instructions(self, side, case):
        self.load(side, case, WARM_UP_SECONDS)
        rounds = []
        for _ in range(self.options.rounds):
            control(side, "--zero")
            requests = self.load(side, case)
            control(side, "--dump")
            dumps = sorted(side.folder.glob("out.*"), key=lambda path: path.stat().st_mtime)
            rounds.append({stage: round(cost / requests) for stage, cost in callgrind.stages(dumps[-1].read_text()).items()})
        return sorted(rounds, key=lambda taken: sum(taken.values()))

    def calls(self, side, case):
        requests = self.load(side, case)
        side.end()
        counted = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+\d+)?\s+(\w+)$", (side.folder / "calls").read_text(), re.MULTILINE)
        return {name: round(int(count) / requests, 3) for count, name in counted if name not in NOT_CALLS}

    def tell(self, case, found):
        (least, *_), (least_loopback, *_) = found["memif"], found["loopback"]
        ours, theirs = sum(least.values()), sum(least_loopback.values())
        row = rows.row(f"stages {case}", "memif", "instructions", zpstack=ours, min=ours, max=sum(found["memif"][-1].values()), kernel_loopback=theirs,
                       ratio_loopback=rows.ratio(ours, theirs))
        row |= {"stages": least, "stages_loopback": least_loopback, "kernel_calls": found["memif-calls"], "kernel_calls_loopback": found["loopback-calls"]}
        self.rows.append(row)
        rows.tell(row)
        for stage in callgrind.ORDER:
            if stage in least or stage in least_loopback:
                print(f"{'':<4}{stage:<27}{least.get(stage, 0):>12,}{'':<25}{least_loopback.get(stage, 0):>12,}")
        for name, calls in (("ours", found["memif-calls"]), ("natively", found["loopback-calls"])):
            often = ", ".join(f"{call} {count:.3f}" for call, count in calls.items() if count >= 0.005)
            print(f"{'':<4}kernel calls a request, {name}: {sum(calls.values()):.3f} ({often})", flush=True)


def control(side, what):
    done = subprocess.run(["callgrind_control", what, str(side.server.pid())], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Failure(f"callgrind_control {what}: {done.stdout}{done.stderr}")


def measure(options):
    missing = [tool for tool in ("valgrind", "callgrind_control", "strace") if not shutil.which(tool)]
    if missing:
        print(f"stages: skipped, {', '.join(missing)} not installed", flush=True)
        return [], []
    both = [tables.measure(name, options, StagesTable) for name in PROGRAMS]
    return [one for made, _ in both for one in made], [one for _, sides in both for one in sides]
