#!/usr/bin/env python3
"""Unmodified redis-server end to end in one mode: every step a client process of its own, replies checked, data checked after a restart.

  redis_test.py --build build/release --mode zpstack-veth [--step commands ...]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import bed as beds  # noqa: E402

PORT = 6399
# (step of the client, what to do with the server before it)
PLAN = [
    ("commands", None), ("big", None), ("pipelining", None), ("pubsub", None), ("blocking", None), ("transactions", None), ("thousand", None),
    ("killed-clients", None), ("persistence-load", None), ("persistence-verify", "restart"), ("ping", "daemonize"),
]


class Server:
    def __init__(self, bed):
        self.bed, self.starts, self.process, self.pid = bed, 0, None, None

    def start(self, *more):
        self.starts += 1
        log = self.bed.traces / f"server{self.starts}.log"
        argv = ["redis-server", "--port", PORT, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--maxclients", 1100, "--dir", self.bed.scratch,
                "--pidfile", self.bed.scratch / "pid", "--enable-debug-command", "yes", "--logfile", log, *more]
        self.process = self.bed.spawn_sut(argv, name="server")
        beds.wait_until(lambda: (log.exists() and "eady to accept connections" in log.read_text()) or self.process.poll() not in (None, 0), 30, "redis-server's start")
        if self.process.poll() not in (None, 0):
            raise RuntimeError(f"redis-server ended with {self.process.returncode}: {self.bed.output('server')}")
        pidfile = self.bed.scratch / "pid"
        self.pid = int(pidfile.read_text()) if "--daemonize" in more else self.process.pid

    def alive(self):
        return os.path.exists(f"/proc/{self.pid}")

    def stop(self):
        """As an administrator would: SIGTERM, and it must go."""
        os.kill(self.pid, signal.SIGTERM)
        if self.process.poll() is None:
            self.process.wait(30)
        beds.wait_until(lambda: not self.alive(), 30, "redis-server's end")


def run(options, traces):
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        if options.pcap:
            bed.capture()
        server = Server(bed)
        server.start()
        for step, before in PLAN:
            if options.step and step not in options.step:
                continue
            start = time.monotonic()
            if before == "restart":
                server.stop()
                server.start("--appendonly", "yes")
            if before == "daemonize":
                server.stop()
                server.start("--daemonize", "yes")
                if server.process.wait(30) != 0:
                    return f"--daemonize yes: exit code {server.process.returncode}"
            client = bed.spawn_peer([sys.executable, HERE / "redis_client.py", bed.sut_address, PORT, step, bed.scratch], name=f"client-{step}")
            try:
                code = client.wait(options.timeout)
            except subprocess.TimeoutExpired:
                bed.explain_hang()
                return f"{step}: over {options.timeout} s"
            if code != 0:
                bed.explain_hang()
                return f"{step}: exit code {code}\n{bed.output(client.name)}"
            if not server.alive():
                return f"{step}: redis-server is gone"
            print(f"ok   {step} {options.mode}: {(traces / f'client-{step}.out').read_text().strip()} ({time.monotonic() - start:.2f} s)", flush=True)
        server.stop()
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--step", action="append", choices=[step for step, _ in PLAN])
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"redis-{options.mode}"
    try:
        problem = run(options, traces)
    except (RuntimeError, TimeoutError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    return beds.conclude(problem, traces, "server*")


if __name__ == "__main__":
    sys.exit(main())
