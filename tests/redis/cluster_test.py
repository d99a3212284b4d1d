#!/usr/bin/env python3
"""Redis instances that find each other by the addresses of their connections: a cluster of three whose nodes are killed and started again, and a sentinel's failover; under load.

  cluster_test.py --build build/release --mode kernel|zpstack-host [--rounds 1] [cluster|sentinel ...]

Everybody who sets keys remembers what was promised: nothing of it is lost. All instances have one address. Whoever decides that a node is dead goes by clocks, so what goes
wrong where the machine stood still (tests/lib/heartbeat.py) is tried again.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import bed as beds  # noqa: E402
from heartbeat import Heartbeat  # noqa: E402
from instances import PATIENCE, Client, Instance, Writer, await_, slot_of  # noqa: E402

WRITERS = 3
STILL = 0.5  # seconds


@contextlib.contextmanager
def load(find):
    """Writers at work; in the end they are stopped and none has failed."""
    writers = [Writer(number, find) for number in range(WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.stopped = True
        for thread in threads:
            thread.join()
    for writer in writers:
        if writer.problem is not None:
            raise writer.problem


def progress(writers):
    """Each of them sets some more keys."""
    goals = [writer.sets + 200 for writer in writers]
    await_(lambda: all(writer.sets >= goal or writer.problem for writer, goal in zip(writers, goals)), "progress of the writers")


def promise(writers, replicas):
    """From now on a key is promised when so many replicas have it."""
    for writer in writers:
        writer.replicas = replicas


def check_kept(writers, find):
    """What was promised is there."""
    client = Client(find)
    for writer in writers:
        for key, value in writer.kept.items():
            got = await_(lambda: client.get(key), f"an answer for {key}")
            assert got == [value.encode()], f"{key} is {got}, not {value}"
    return sum(len(writer.kept) for writer in writers)


class Cluster:
    """What its nodes say of the slots."""

    def __init__(self, nodes):
        self.nodes, self.owners = nodes, []

    def look(self):
        """Learns who has which slots; whether all nodes say the same, that each has some, and that all is well."""
        seen = []
        for node in self.nodes:
            with contextlib.suppress(OSError):
                owners = sorted((first, last, owner[0], owner[1]) for first, last, owner, *_ in node.ask("CLUSTER", "SLOTS"))
                seen.append((owners, "cluster_state:ok" in node.ask("CLUSTER", "INFO")))
        if len(seen) == len(self.nodes) and all(each == seen[0] for each in seen) and seen[0][1]:
            self.owners = seen[0][0]
            return {owner[2:] for owner in self.owners} == {node.place() for node in self.nodes}
        return False

    def find(self, key):
        slot = slot_of(key)
        return next((address, port) for first, last, address, port in self.owners if first <= slot <= last)


def tool(bed, *arguments):
    """redis-cli --cluster, beside the nodes; whether it is content."""
    return bed.spawn_sut(["redis-cli", "--cluster", *arguments], name=arguments[0]).wait(PATIENCE) == 0 and "[OK] All 16384 slots covered" in bed.output(arguments[0])


def cluster(bed, options):
    nodes = [Instance(bed, port, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no", "--appendonly", "yes") for port in (7001, 7002, 7003)]
    for node in nodes:
        node.start()
    places = [f"{node.address}:{node.port}" for node in nodes]
    assert tool(bed, "create", *places, "--cluster-yes"), bed.output("create")
    known = Cluster(nodes)
    await_(known.look, "one opinion of all nodes")
    with load(known.find) as writers:
        progress(writers)
        for number in range(options.rounds):
            victim, *others = nodes[number % 3 :] + nodes[: number % 3]
            victim.kill()
            for other in others:
                await_(lambda: re.search(rf"{victim.address}:{victim.port}@\d+ \S*master,fail ", other.ask("CLUSTER", "NODES")), "the news of a node's death")
            victim.start()
            await_(known.look, "one opinion of all nodes again")
            progress(writers)
    await_(lambda: tool(bed, "check", places[0]), "all slots")
    count = check_kept(writers, known.find)
    return f"{count} keys kept, {sum(writer.retries for writer in writers)} attempts failed while a node was dead"


class Sentinels:
    """Who is master, as the sentinels say."""

    def __init__(self, sentinels):
        self.sentinels, self._master, self._asked = sentinels, None, 0

    def master(self):
        address, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "it")
        return address, int(port)

    def find(self, _):
        """As somebody who has asked a moment ago."""
        now = time.monotonic()
        if now - self._asked > 0.1:
            self._master, self._asked = self.master(), now
        return self._master

    def know(self, master, replica):
        """All of them know each other, the master, and its replica as one that is alive."""
        for sentinel in self.sentinels:
            fields = sentinel.ask("SENTINEL", "MASTER", "it")
            facts = dict(zip(fields[::2], fields[1::2]))
            if (facts["ip"], int(facts["port"]), facts["flags"], facts["num-other-sentinels"]) != (*master.place(), "master", str(len(self.sentinels) - 1)):
                return False
            replicas = [dict(zip(each[::2], each[1::2])) for each in sentinel.ask("SENTINEL", "REPLICAS", "it")]
            if [(each["ip"], int(each["port"]), each["flags"]) for each in replicas] != [(*replica.place(), "slave")]:
                return False
        return True


def replicates(master, replica):
    """The master says where its replica is, by its connection, and that it has all."""
    return re.search(rf"ip={re.escape(replica.address)},port={replica.port},state=online", master.info().get("slave0", ""))


def sentinel(bed, options):
    master, replica = (Instance(bed, port) for port in (7011, 7012))
    master.start()
    replica.start("--replicaof", f"{master.address} {master.port}")
    await_(lambda: replicates(master, replica), "the replica")
    sentinels = [Instance(bed, port) for port in (7021, 7022, 7023)]
    for each in sentinels:
        file = each.folder / "sentinel.conf"
        file.write_text(f"sentinel monitor it {master.address} {master.port} 2\nsentinel down-after-milliseconds it 4000\nsentinel failover-timeout it 10000\n")
        each.start(file, "--sentinel")
    known = Sentinels(sentinels)
    await_(lambda: known.know(master, replica), "what sentinels know")
    with load(known.find) as writers:
        for number in range(options.rounds):
            if number > 0:
                replica.start()  # it takes itself for the master until it is told, after ten seconds
                await_(lambda: replicates(master, replica), "the old master as a replica")
                await_(lambda: known.know(master, replica), "what sentinels know after the failover")
            promise(writers, replicas=1)
            progress(writers)
            master.kill()
            await_(lambda: known.master() == replica.place(), "another master")
            master, replica = replica, master
            promise(writers, replicas=0)
            progress(writers)
    count = check_kept(writers, known.find)
    return f"{count} keys kept, {sum(writer.retries for writer in writers)} attempts failed without a master"


CASES = {"cluster": cluster, "sentinel": sentinel}


def run_case(options, name):
    """In a bed of its own; the exit code."""
    traces = options.build / "test-traces" / f"redis-{name}-{options.mode}"
    child = os.fork()
    if child == 0:  # who has entered a namespace does not come back
        problem = None
        with beds.Bed(options.mode, options.build, traces) as bed:
            bed.peer_space.enter()
            try:
                print(f"     {CASES[name](bed, options)}", flush=True)
            except (AssertionError, OSError, TimeoutError, subprocess.TimeoutExpired) as error:
                problem = f"{name}: {type(error).__name__} {error}"
                bed.explain_hang()
        os._exit(beds.conclude(problem, traces, "*.log"))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--rounds", type=int, default=1, help="how many are killed")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="which; all without one")
    options = parser.parse_args()
    for name in options.cases or CASES:
        begin = time.monotonic()
        for attempt in range(3):
            with Heartbeat() as heart:
                since = time.monotonic()
                code = run_case(options, name)
                if code == 0 or heart.longest_gap(since, time.monotonic()) < STILL:
                    break
        if code != 0:
            return 1
        print(f"ok   {name} {options.mode} {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
