#!/usr/bin/env python3
"""nginx with two workers under load, whose workers are killed or stopped at any moment: master and the other worker serve on.

  members.py --build build/release --mode zpstack-veth kill|stop [--times 200] [--soon 0.1]

Each time a new connection is made right after, which must be answered at once; it may take longer when the machine is busy, so the bound that
is checked holds for nine of ten, and a far larger one for all.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import random
import re
import signal
import socket
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 8088
CONFIGURATION = """
daemon off;
worker_processes 2;
pid {scratch}/nginx.pid;
error_log stderr {level};
user root;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
  server {{ listen {address}:{port}; location / {{ return 200 "served\\n"; }} }}
}}
"""
LATEST = 20.0  # the machine may be busy


def state(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "gone"


def request(bed):
    """One connection, one request: seconds until the answer was there. A reset (a member died inside the stack) is tried again, as a browser does."""
    begin = time.monotonic()
    while time.monotonic() - begin < LATEST:
        try:
            with socket.create_connection((bed.sut_address, PORT), LATEST) as connection:
                connection.settimeout(LATEST)
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
                if answer.endswith(b"served\n"):
                    return time.monotonic() - begin
        except (ConnectionError, socket.timeout):
            pass
    return None


class Server:
    def __init__(self, bed):
        self.bed = bed
        configuration = bed.scratch / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(scratch=bed.scratch, address=bed.sut_address, port=PORT, level="crit"))
        environment = bed.sut_environment(ZPS_LOG="debug", ZPS_TIME_WAIT_MS=100)
        self.master = bed.spawn_sut(["/usr/sbin/nginx", "-p", bed.scratch, "-c", configuration], name="server", environment=environment)
        bed.peer_space.enter()
        beds.wait_until(lambda: len(self.workers()) == 2, 30, "two workers")
        beds.wait_until(lambda: request(bed) is not None, 30, "the first answer")
        time.sleep(1)  # the start level is told twice a second
        self.at_start = self.pools()

    def workers(self):
        return beds.children(self.master.pid) if self.master.poll() is None else []

    def alive(self):
        return self.master.poll() is None

    def pools(self):
        if not self.bed.hooked:
            return ""
        lines = re.findall(r"pools: .* [1-9]\d* listeners, .*", self.bed.output("server"))
        return lines[-1] if lines else ""


def kill_one(server, _):
    victim = random.choice(server.workers())
    os.kill(victim, signal.SIGKILL)
    took = request(server.bed)
    beds.wait_until(lambda: not server.alive() or (len(server.workers()) == 2 and victim not in server.workers()), 30, "a new worker")
    return took


def stop_one(server, _):
    victim = random.choice(server.workers())
    os.kill(victim, signal.SIGSTOP)
    beds.wait_until(lambda: state(victim) == "T", 30, f"worker {victim} to stop")
    took = request(server.bed)
    # The others may have let it go on for a moment, out of the lock.
    beds.wait_until(lambda: state(victim) == "T", 30, f"worker {victim} to be stopped still")
    os.kill(victim, signal.SIGCONT)
    return took


def run(options, traces):
    random.seed(options.seed)
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        server = Server(bed)
        load = bed.spawn_peer(["wrk", "-t1", "-c20", f"-d{options.times + 60}", "--timeout", "2", "-H", "Connection: close",
                               f"http://{bed.sut_address}:{PORT}/"], name="load")
        act = {"kill": kill_one, "stop": stop_one}[options.act]
        took = []
        for turn in range(options.times):
            time.sleep(random.uniform(0.01, options.pause))  # any moment will do
            took.append(act(server, turn))
            if not server.alive():
                return f"{options.act} {turn}: the master has ended with {server.master.returncode}: {bed.output('server')[-2000:]}"
            if took[-1] is None:
                return f"{options.act} {turn}: no answer within {LATEST} s"
        if load.poll() is not None:
            return f"the load has ended: {bed.output('load')}"
        load.kill()
        load.wait()
        took.sort()
        late = sum(1 for seconds in took if seconds > options.soon)
        print(f"ok   {options.act} {options.mode} {options.times} times: answers after {statistics.median(took) * 1000:.1f} ms (median), "
              f"{took[-1] * 1000:.1f} ms (longest), {late} later than {options.soon * 1000:.0f} ms", flush=True)
        if late * 10 > options.times:
            return f"{late} of {options.times} answers came late"
        beds.wait_until(lambda: server.pools() == server.at_start, 100, f"the pools to be back at {server.at_start}, now {server.pools()}")
        if request(bed) is None:
            return "no answer afterwards"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("kill", "stop"))
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--soon", type=float, default=0.1, help="seconds in which nine of ten are answered")
    parser.add_argument("--pause", type=float, default=0.15, help="seconds at most between two of them")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    traces = options.build / "test-traces" / f"members-{options.act}-{options.mode}"
    return beds.conclude(run(options, traces), traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
