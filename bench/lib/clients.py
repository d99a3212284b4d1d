"""What clients print: requests per second and, where they tell it, the median and the 99th percentile of the times to the answer.

Each reader takes a client's output and returns (requests per second, p50 or None, p99 or None), times in microseconds; None if there is no rate.
"""
# SPDX-License-Identifier: BSD-3-Clause
import csv
import json
import pathlib
import re

MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


def number(pattern, output):
    found = re.search(pattern, output, re.MULTILINE)
    return float(found[1]) if found else None


def scaled(value, factor):
    return None if value is None else value * factor


def read_wrk(output):
    def percentile(which):
        found = re.search(rf"^\s+{which}%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
        return float(found[1]) * MICROSECONDS[found[2]] if found else None

    if re.search(r"Non-2xx|Socket errors", output):
        return None
    return number(r"^Requests/sec:\s+([\d.]+)", output), percentile(50), percentile(99)


def read_redis_benchmark(output):
    """The report of one test; or CSV: test, requests per second, then average, least, p50, p95, p99 and longest in milliseconds; the last line counts."""
    rate = number(r"throughput summary: ([\d.]+) requests per second", output)
    if rate:
        summary = re.findall(r"^\s+avg\s+min\s+p50.*\n([\d.\s]+)", output, re.MULTILINE)[-1].split()
        return rate, float(summary[2]) * 1e3, float(summary[4]) * 1e3
    rows = [row for row in csv.reader(line for line in output.splitlines() if line.startswith('"')) if len(row) >= 8 and row[0] != "test"]
    return (float(rows[-1][1]), float(rows[-1][4]) * 1e3, float(rows[-1][6]) * 1e3) if rows else None


def read_pgbench(output):
    """With a connection per transaction the time to connect is part of it; without, it is not."""
    return number(r"^tps = ([\d.]+)", output), None, None


def read_memcaslap(output):
    return number(r"TPS: (\d+)", output), None, None


def read_sysbench(output):
    return number(r"transactions:\s+\d+\s+\(([\d.]+) per sec", output), None, scaled(number(r"99th percentile:\s+([\d.]+)", output), 1e3)


def read_load_client(output):
    told = load_client_line(output)
    if not told:
        return None
    latency = dict(told["latency_us"])
    return told["rate"], latency.get(50), latency.get(99)


def load_client_line(output):
    lines = [line for line in output.splitlines() if line.startswith('{"rate"')]
    return json.loads(lines[-1]) if lines else None


def load_client_distribution(output):
    return [tuple(pair) for pair in load_client_line(output)["latency_us"]]


def redis_distribution(output):
    """Of its HDR histogram: `50.000% <= 0.207 milliseconds (cumulative count 1024)`, the last test's."""
    lines = output.rpartition("Latency by percentile distribution:")[2].partition("Cumulative distribution")[0]
    return [(float(percent), float(ms) * 1e3) for percent, ms in re.findall(r"^([\d.]+)% <= ([\d.]+) milliseconds", lines, re.MULTILINE)]


def wrk_distribution(output):
    """What lib/percentiles.lua has written."""
    return [(float(percent), float(us)) for percent, us in re.findall(r"^percentile ([\d.]+) ([\d.]+)$", output, re.MULTILINE)]


DISTRIBUTIONS = {"wrk": wrk_distribution, "redis-benchmark": redis_distribution, "bench_load_client": load_client_distribution}
READERS = {"bench_load_client": read_load_client, "wrk": read_wrk, "redis-benchmark": read_redis_benchmark, "pgbench": read_pgbench, "memcaslap": read_memcaslap, "sysbench": read_sysbench}


def read(command, output):
    """The figures of a client that was started as `command`, or None if it tells no rate."""
    figures = READERS[pathlib.Path(command[0]).name](output)
    return figures if figures and figures[0] else None


def distribution(command, output):
    """Pairs (per cent, microseconds) of the times to the answer, as far as the client tells them."""
    return tuple(DISTRIBUTIONS.get(pathlib.Path(command[0]).name, lambda _: ())(output))
