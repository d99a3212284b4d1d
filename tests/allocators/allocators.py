#!/usr/bin/env python3
"""Runs programs with an allocator of their own in one mode: redis-server, nginx, and a client whose threads come and go. Hooked, in each mode of the hook.

  allocators.py --build build/release --mode zpstack-veth witness|jemalloc|tcmalloc|mimalloc|address|thread [--hook nopage0] [--program client]

`witness` is an allocator of the tests' own, which ends the program when code of ours calls it or a thread goes without its knowledge
(witness_allocator.cc). `address` and `thread` are the sanitizers', with the client alone.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "redis"))
import bed as beds  # noqa: E402
from resp import Redis  # noqa: E402

HOOKS = ("auto", "nopage0", "sud", "symbols")
LIBRARIES = {
    "witness": "libzpstack-test-witness-allocator.so",
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "mimalloc": "libmimalloc.so.2",
    "address": None,
    "thread": None,
}
PORT = 7011
ECHO = """
import socket, sys, threading
def serve(connection):
    with connection:
        while data := connection.recv(65536): connection.sendall(data)
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("listening", flush=True)
    while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
NGINX = """
daemon off; master_process on; worker_processes 2; pid {scratch}/nginx.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {scratch}; proxy_temp_path {scratch}; fastcgi_temp_path {scratch}; uwsgi_temp_path {scratch}; scgi_temp_path {scratch};
  server {{ listen {port}; location / {{ return 200 "hello\\n"; }} }}
}}
"""


def library(options):
    """The path of the allocator that is preloaded, or None."""
    name = LIBRARIES[options.allocator]
    if name is None:
        return None
    own = options.build.resolve() / name
    path = own if own.exists() else pathlib.Path("/usr/lib/x86_64-linux-gnu") / name
    if not path.exists():
        raise SystemExit(f"{name} is not there: scripts/install-deps")
    return path


def client(bed, options, environment):
    bed.spawn_peer([sys.executable, "-c", ECHO, "0.0.0.0", PORT], name="echo")
    beds.wait_until(lambda: "listening" in bed.output("echo"), 30, "the echo server")
    suffix = f"_{options.allocator}" if options.allocator in ("address", "thread") else ""
    sut = bed.spawn_sut([bed.build / f"short_threads{suffix}", bed.peer_address, PORT, options.rounds], name="client", environment=environment)
    return expect_end(bed, sut, "client", 0)


def redis(bed, options, environment):
    argv = ["redis-server", "--port", PORT, "--protected-mode", "no", "--save", "", "--dir", bed.scratch]
    sut = bed.spawn_sut(argv, name="redis", environment=environment)
    connect(bed, sut).close()
    connections = [Redis(bed.sut_address, PORT, timeout=15) for _ in range(4)]
    for i in range(options.rounds):
        value = b"x" * (1 + i * 7919 % 100_000)
        connection = connections[i % 4]
        if connection("SET", f"key{i % 16}", value) != b"OK" or connection("GET", f"key{i % 16}") != value:
            return "redis answers something else"
    connections[0]("BGSAVE")
    beds.wait_until(lambda: b"rdb_bgsave_in_progress:0" in connections[1]("INFO", "persistence"), 30, "the child that saves")
    if b"rdb_last_bgsave_status:ok" not in connections[1]("INFO", "persistence"):
        return "the child that saves has failed"
    sut.send_signal(signal.SIGTERM)
    return expect_end(bed, sut, "redis", 0)


def nginx(bed, options, environment):
    configuration = bed.scratch / "nginx.conf"
    configuration.write_text(NGINX.format(scratch=bed.scratch, port=PORT))
    sut = bed.spawn_sut(["/usr/sbin/nginx", "-c", configuration], name="nginx", environment=environment)
    for _ in range(options.rounds):
        with connect(bed, sut) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        if not answer.endswith(b"hello\n"):
            return f"nginx answers {answer!r}"
    sut.send_signal(signal.SIGQUIT)
    return expect_end(bed, sut, "nginx", 0)


def connect(bed, sut):
    """A connection from the peer's side, as soon as the program listens."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection((bed.sut_address, PORT), 30)
        except OSError:
            if sut.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{sut.name} does not listen, status {sut.poll()}")
            time.sleep(0.01)


def expect_end(bed, sut, name, code):
    try:
        ended = sut.wait(20)
    except subprocess.TimeoutExpired:
        bed.explain_hang()
        return f"{name} does not end"
    if ended != code:
        return f"{name} ended with {ended}"
    if "witness:" in bed.output(name):
        return f"{name}: the allocator has complained"
    if bed.hooked and f"{bed.sut_address} from this host" not in bed.output(name):
        return f"{name} made no stack"
    return None


PROGRAMS = {"client": client, "redis": redis, "nginx": nginx}


def run(options, program, hook, traces):
    with beds.Bed(options.mode, options.build, traces) as bed:
        bed.peer_space.enter()
        environment = bed.sut_environment(ZPS_HOOK=hook) if bed.hooked else bed.sut_environment()
        if path := library(options):
            environment["LD_PRELOAD"] = " ".join(filter(None, [environment.get("LD_PRELOAD"), str(path)]))
        # ASan's library asks to be the first. At the end it searches for leaks, in all threads, from a process that shares their memory.
        environment["ASAN_OPTIONS"] = "verify_asan_link_order=0:detect_leaks=1"
        try:
            return PROGRAMS[program](bed, options, environment)
        except (AssertionError, TimeoutError, OSError) as problem:
            return str(problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("allocator", choices=LIBRARIES)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=("kernel", "zpstack-veth"), required=True)
    parser.add_argument("--hook", choices=HOOKS, action="append")
    parser.add_argument("--program", choices=PROGRAMS, action="append")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    sanitizer = options.allocator in ("address", "thread")
    hooks = ("native",) if options.mode == "kernel" else options.hook or HOOKS
    programs = options.program or (("client",) if sanitizer else PROGRAMS)
    failed = 0
    for hook in hooks:
        for program in programs:
            traces = options.build / "test-traces" / f"allocators-{options.allocator}-{program}-{options.mode}-{hook}"
            start = time.monotonic()
            problem = run(options, program, hook, traces)
            print(f"{'FAIL' if problem else 'ok  '} {program} with {options.allocator}, {hook}, {time.monotonic() - start:.2f} s", flush=True)
            failed += beds.conclude(problem, traces, "*.err")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
