"""redis-server and redis-benchmark: how they are started, when they are ready, what they print."""
# SPDX-License-Identifier: BSD-3-Clause
import csv
import re
import subprocess

from processes import Failure, Process, cpus

SERVER_ARGUMENTS = ("--protected-mode", "no", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0")
READY = "Ready to accept connections"
BENCHMARK_SECONDS = 30


class Server(Process):
    """A redis-server that is ready when the constructor returns."""

    def __init__(self, name, port, **environment):
        self.port = port
        super().__init__(name, ["redis-server", *SERVER_ARGUMENTS, "--port", port], processors=cpus()[0], **environment)
        try:
            self.wait_for(lambda: READY in self.output(), 10, "become ready")
        except BaseException:
            self.end()
            raise


def benchmark(server, address, commands, clients, pipeline, requests, **environment):
    """Runs redis-benchmark to its end; requests per second by command name ("get", "set")."""
    command = ["redis-benchmark", "--csv", "-q", "-t", ",".join(commands), "-n", requests, "-c", clients, "-P", pipeline,
               "-h", address, "-p", server.port]
    process = Process("redis-benchmark", command, processors=cpus()[1], **environment)
    try:
        output = process.wait(BENCHMARK_SECONDS)
        rates = parse_rates(output)
        if not set(commands) <= rates.keys():
            raise process.explain("printed no rate")
        return rates
    except Failure as failure:
        raise Failure(f"{failure}{server.explain('was its server')}") from None
    finally:
        process.end()


def parse_rates(output):
    """The rows of redis-benchmark's CSV: "GET","12345.67",... ; other lines are passed over."""
    rates = {}
    for row in csv.reader(line for line in output.splitlines() if line.startswith('"')):
        if len(row) > 1 and re.fullmatch(r"[0-9.]+", row[1]):
            rates[row[0].split(" ")[0].lower()] = float(row[1])
    return rates


def ask(address, port, *words):
    """What the kernel's redis-cli answers."""
    command = ["redis-cli", "-h", address, "-p", str(port), *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    if result.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with status {result.returncode}: {result.stdout}{result.stderr}")
    return result.stdout.strip()
