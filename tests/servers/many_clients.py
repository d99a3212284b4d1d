#!/usr/bin/env python3
"""Thousands of clients that send at once: nobody waits for a retransmission, and the rate is the kernel's.

  many_clients.py --build build/release [--clients 4000] [--rounds 4] [--least 0.9]

nginx with one worker, prefixed on the default wire and natively over loopback; wrk has a request of each client under way all the time.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import re
import resource
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

SECONDS = 1
HOOKED, NATIVE = "198.18.0.2:8080", "127.0.0.1:8081"
CONFIGURATION = """
daemon off;
master_process off;
error_log {folder}/error.log;
pid {folder}/pid;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  server {{ listen 0.0.0.0:{port}; location / {{ return 200 "hello"; }} }}
}}
"""


def start(bed, name, port, clients, environment):
    folder = bed.scratch / name
    folder.mkdir()
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, connections=2 * clients))
    return bed.spawn_sut(["nginx", "-c", file, "-p", folder], name=name, environment=environment)


def start_both(bed, clients):
    start(bed, "hooked", 8080, clients, bed.sut_environment())
    start(bed, "native", 8081, clients, beds.clean_environment())
    for address in (HOOKED, NATIVE):
        beds.wait_until(lambda: answers(bed, address), 30, f"the start of {address}")


def ask(bed, address, clients, seconds=SECONDS, header="Accept: */*"):
    """(requests a second, what went wrong) of wrk."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-H", header, f"http://{address}/"]
    out = subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=bed.peer_space.enter, env=beds.clean_environment()).stdout
    errors = re.search(r"Socket errors: (.*)", out)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), errors.group(1) if errors else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--clients", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=4, help="at most; fewer if one was good: others may use the machine")
    parser.add_argument("--least", type=float, default=0.9, help="of the kernel's rate over loopback, in one round")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < 4 * options.clients:
        raise SystemExit(f"needs {4 * options.clients} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    traces = options.build / "test-traces" / "many-clients"
    with beds.Bed("zpstack-veth", options.build, traces) as bed:
        start_both(bed, options.clients)
        for _ in range(options.rounds):
            hooked, errors = ask(bed, HOOKED, options.clients)
            native, _ = ask(bed, NATIVE, options.clients)
            print(f"{options.clients} clients: {hooked:.0f} requests a second, {native:.0f} natively over loopback, {hooked / native:.2f}; errors: {errors}", flush=True)
            if hooked >= options.least * native and errors is None:
                break
        else:
            raise AssertionError("slower than the kernel, or with errors, in each round")
    shutil.rmtree(traces)
    return 0


def answers(bed, address):
    command = ["curl", "-s", "-o", "/dev/null", "-m", "5", f"http://{address}/"]
    return subprocess.run(command, preexec_fn=bed.peer_space.enter, env=beds.clean_environment()).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
