"""The demonstration: an unmodified redis-server on the stack, first to be talked to, then against the kernel in interleaved rounds.

Three servers run side by side on one processor, idle unless asked: A prefixed over memif (its client is prefixed, too), B
native over loopback, C prefixed over the default wire (its client is the kernel's). Each round asks A, B, C in turn for each
case, so that what disturbs the machine disturbs all; a first round, not counted, finds out how many requests fill the time.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from processes import Failure, enter_own_namespace, raise_descriptor_limit
from redis_pair import Server, ask, benchmark

# Clients, pipeline depth, and whether the kernel's client is measured over the default wire as well.
LOADS = ((1, 1, True), (50, 1, True), (512, 1, False), (50, 16, True))
COMMANDS = ("set", "get")
CALIBRATION_SECONDS = 0.15
FIRST_GUESS_PER_SECOND = 100_000
MEMIF_ADDRESSES = ("198.18.7.1", "198.18.7.2")


class Side:
    """One of the three: how its client is started, and its rates so far by (command, clients, pipeline)."""

    def __init__(self, name, server, address, commands=COMMANDS, **client_environment):
        self.name = name
        self.server = server
        self.address = address
        self.commands = commands
        self.client_environment = client_environment
        self.rates = {}
        self._per_second = {}

    def measure(self, clients, pipeline, seconds, counted):
        per_second = self._per_second.get((clients, pipeline), 0)
        guess = per_second or FIRST_GUESS_PER_SECOND * (1 if pipeline == 1 else 5) // (5 if clients == 1 else 1)
        requests = max(int(guess * seconds), 2 * clients * pipeline)
        rates = benchmark(self.server, self.address, self.commands, clients, pipeline, requests, **self.client_environment)
        self._per_second[clients, pipeline] = statistics.mean(rates[command] for command in self.commands)
        if counted:
            for command in self.commands:
                self.rates.setdefault((command, clients, pipeline), []).append(rates[command])


class Demo:
    """The servers, the rounds and the table."""

    def __init__(self, options, folder):
        self.options = options
        self.library = options.build.resolve() / "libzpstack.so"
        self.socket = pathlib.Path(folder, "memif.sock")
        self.servers = []
        self.seconds = 0.2 if options.quick else 0.35

    def start(self, name, port, **environment):
        server = Server(name, port, **environment)
        self.servers.append(server)
        return server

    def end(self):
        for server in reversed(self.servers):
            server.end()

    def wired(self, role, address):
        return {"LD_PRELOAD": str(self.library), "ZPS_WIRE": f"memif:{self.socket},role={role}", "ZPS_IP": f"{address}/24"}

    def talk(self):
        """Starts the server on the default wire and shows that plain clients reach it."""
        print(f"\n$ LD_PRELOAD={self.library} redis-server --protected-mode no --port 6403")
        server = self.start("redis-server over the default wire", 6403, LD_PRELOAD=str(self.library))
        address = server.stack_address()
        for words in (("ping",), ("set", "greeting", "hello"), ("get", "greeting")):
            print(f"$ redis-cli -h {address} -p {server.port} {' '.join(words)}\n{ask(address, server.port, *words)}")
        if ask(address, server.port, "get", "greeting") != "hello":
            raise server.explain("does not keep what it was given")
        return Side("kernel client", server, address, commands=("get",))

    def sides(self):
        default_wire = self.talk()
        memif = self.start("redis-server over memif", 6401, **self.wired("server", MEMIF_ADDRESSES[0]))
        native = self.start("redis-server over loopback", 6402)
        return (Side("memif", memif, MEMIF_ADDRESSES[0], **self.wired("client", MEMIF_ADDRESSES[1])),
                Side("loopback", native, "127.0.0.1"), default_wire)

    def rounds(self, sides):
        for number in range(self.options.rounds + 1):
            counted = number > 0
            print(f"round {number} of {self.options.rounds}" if counted else "\ncalibrating", flush=True)
            for clients, pipeline, over_default_wire in LOADS:
                for side in sides if over_default_wire else sides[:2]:
                    side.measure(clients, pipeline, self.seconds if counted else CALIBRATION_SECONDS, counted)

    def run(self):
        sides = self.sides()
        try:
            self.rounds(sides)
        finally:
            rows = table_rows(*sides)
            print_table(rows, self.options.rounds)
        return rows


def table_rows(memif, loopback, default_wire):
    """(case, zpstack's rates, loopback's rates), for what was measured."""
    loads = [(clients, pipeline) for clients, pipeline, _ in LOADS]
    rows = []
    for prefix, side in (("", memif), ("kernel client ", default_wire)):
        for command in reversed(side.commands):
            for clients, pipeline in loads:
                key = (command, clients, pipeline)
                if key in side.rates and key in loopback.rates:
                    rows.append((f"{prefix}{command} c{clients} P{pipeline}", side.rates[key], loopback.rates[key]))
    return rows


def print_table(rows, rounds):
    if not rows:
        return
    print(f"\nrequests per second: medians of {rounds} rounds (least to most)\n")
    print(f"{'case':<26}{'zpstack':>11}  {'':<21}{'kernel loopback':>15}  {'':<21}{'ratio':>6}")
    for case, ours, kernels in rows:
        ratio = statistics.median(ours) / statistics.median(kernels)
        print(f"{case:<26}{statistics.median(ours):>11,.0f}  {spread(ours):<21}{statistics.median(kernels):>15,.0f}  {spread(kernels):<21}{ratio:>6.2f}")
    print("\nkernel client: an ordinary redis-benchmark over the default wire; the other rows: both programs prefixed, over memif.")


def spread(rates):
    return f"({min(rates):,.0f} to {max(rates):,.0f})"


def write_json(rows, file):
    out = []
    for case, ours, kernels in rows:
        zpstack, kernel = statistics.median(ours), statistics.median(kernels)
        out.append({"case": case, "unit": "req/s", "zpstack": round(zpstack, 1), "kernel_loopback": round(kernel, 1), "ratio_loopback": round(zpstack / kernel, 3)})
    file.write_text(json.dumps({"rows": out}, indent=1) + "\n")


def check_machine(build):
    """zpstack doctor has the last word on whether there is any use in going on."""
    result = subprocess.run([build / "zpstack", "doctor"], capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(f"this machine lacks something:\n{result.stdout}{result.stderr}")
    print(result.stdout.splitlines()[-1])


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (3)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all?")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.quick:
        options.rounds = 1
    return options


def main():
    options = parse_options()
    try:
        check_machine(options.build)
        enter_own_namespace()
        raise_descriptor_limit(4096)
        with tempfile.TemporaryDirectory(prefix="zpstack-demo-") as folder:
            demo = Demo(options, folder)
            try:
                rows = demo.run()
            finally:
                demo.end()
        if options.json:
            write_json(rows, options.json)
        return 0
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
