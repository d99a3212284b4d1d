#!/usr/bin/env python3
"""Go programs as they are built by default, on the stack: a server of net/http, with symbols and without, one that has ld.so but no libc, and etcd.

  go_servers.py --build build/release --mode zpstack-veth [http stripped pie etcd]

Without Go or etcd what needs it is left out.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import base64
import concurrent.futures
import json
import pathlib
import random
import shutil
import subprocess
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

SKIPPED = 77
HERE = pathlib.Path(__file__).resolve().parent
CLIENTS, TURNS = 8, 15


def ask(url, body=None):
    with urllib.request.urlopen(url, data=body, timeout=30) as answer:
        return answer.read()


def answers(url, server):
    if server.poll() is not None:
        raise AssertionError(f"the server ended with {server.returncode}")
    try:
        return bool(ask(url))
    except OSError:
        return False


def build(bed, options, *flags, cgo="1"):
    program = bed.scratch / "server"
    environment = {**beds.clean_environment(), "GOCACHE": str(options.build.resolve() / "go-cache"), "GO111MODULE": "off", "CGO_ENABLED": cgo}
    subprocess.run(["go", "build", *flags, "-o", program, HERE / "go_server.go"], env=environment, check=True)
    return program


def converse(root, number):
    sizes = random.Random(number)
    for _ in range(TURNS):
        body = sizes.randbytes(sizes.choice((1, 1000, 100000)) + sizes.randrange(5000))
        if ask(root + "echo", body) != body:
            raise AssertionError(f"{len(body)} bytes came back as others")
    if ask(root + "child") != b"of a child\n":
        raise AssertionError("a child has said something else")


def serve_http(bed, options, *flags, **how):
    port = "8095"
    server = bed.spawn_sut([build(bed, options, *flags, **how), port], name="http", environment=bed.sut_environment())
    bed.peer_space.enter()
    root = f"http://{bed.sut_address}:{port}/"
    beds.wait_until(lambda: answers(root + "child", server), 30, "the server's start")
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda number: converse(root, number), range(CLIENTS)))
    return server


def serve_etcd(bed, _):
    client, peer = (f"http://{bed.sut_address}:{port}" for port in (2379, 2380))
    server = bed.spawn_sut(["etcd", "--data-dir", bed.scratch / "etcd", "--listen-client-urls", client, "--advertise-client-urls", client,
                            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"], name="etcd")
    bed.peer_space.enter()
    word = lambda text: base64.b64encode(text.encode()).decode()  # noqa: E731
    request = lambda call, **fields: json.loads(ask(f"{client}/v3/kv/{call}", json.dumps(fields).encode()))  # noqa: E731
    beds.wait_until(lambda: answers(client + "/health", server), 60, "etcd's start")
    for i in range(60):
        request("put", key=word(f"key {i}"), value=word(f"value {i}"))
    for i in range(60):
        found = request("range", key=word(f"key {i}"))["kvs"]
        if [pair["value"] for pair in found] != [word(f"value {i}")]:
            raise AssertionError(f"key {i} has {found}")
    return server


SERVERS = {"http": (serve_http, "go"), "stripped": (lambda bed, options: serve_http(bed, options, "-ldflags=-s -w"), "go"),
           "pie": (lambda bed, options: serve_http(bed, options, "-buildmode=pie", cgo="0"), "go"), "etcd": (serve_etcd, "etcd")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("servers", nargs="*", default=list(SERVERS))
    options = parser.parse_args()
    possible = [name for name in options.servers if shutil.which(SERVERS[name][1])]
    if not possible:
        print("skipped: neither Go nor etcd here")
        return SKIPPED
    traces = options.build / "test-traces" / f"go-servers-{options.mode}-{possible[0]}"
    problem = None
    for name in possible:
        with beds.Bed(options.mode, options.build, traces) as bed:
            try:
                server = SERVERS[name][0](bed, options)
                if server.poll() is not None:
                    raise AssertionError(f"{name} ended with {server.returncode}")
            except (AssertionError, TimeoutError, OSError, subprocess.CalledProcessError) as error:
                problem = problem or AssertionError(f"{name}: {error!r}")
                bed.explain_hang()
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
