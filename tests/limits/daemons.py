#!/usr/bin/env python3
"""Daemons as Debian starts them, natively and hooked: they change user before they listen, lower their limits, share one signal stack among all threads, or live under their service's filters.

  daemons.py --build build/release --mode kernel|zpstack-veth|zpstack-memif memcached|memcached-root|mosquitto|redis|varnish
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7013


def argv_of(bed, which):
    if which.startswith("memcached"):
        return ["memcached", "-u", "root" if which.endswith("root") else "memcache", "-p", PORT, "-l", "0.0.0.0"]
    if which == "mosquitto":
        settings = bed.scratch / "mosquitto.conf"
        settings.write_text(f"listener {PORT} 0.0.0.0\nallow_anonymous true\nuser mosquitto\npersistence false\n")
        settings.chmod(0o644)
        return ["mosquitto", "-c", settings]
    if which == "varnish":
        settings = bed.scratch / "synthetic.vcl"
        settings.write_text("vcl 4.1;\nbackend default none;\nsub vcl_recv { return (synth(200)); }\n")
        return ["varnishd", "-F", "-n", bed.scratch / "varnish", "-a", f"0.0.0.0:{PORT}", "-T", "none", "-f", settings, "-s", "malloc,64m"]
    user = ["setpriv", "--reuid=redis", "--regid=redis", "--init-groups", "--bounding-set=-all", "--inh-caps=-all"]
    return [*user, bed.build / "limits_service_filter", "redis-server", "--port", PORT, "--save", "", "--protected-mode", "no", "--dir", bed.scratch]


def ask(which):
    """What a client sends, and what it is told."""
    if which.startswith("memcached"):
        return b"set a 0 0 5\r\nhello\r\nget a\r\n", b"STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n"
    if which == "mosquitto":  # CONNECT of MQTT 3.1.1 with a clean session, PINGREQ; CONNACK, PINGRESP
        return b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\xc0\x00", b"\x20\x02\x00\x00\xd0\x00"
    if which == "varnish":
        return b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK\r\n"
    return b"SET a hello\r\nGET a\r\n", b"+OK\r\n$5\r\nhello\r\n"


CLIENT = """
import socket, sys, time
address, port, question, answer = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), bytes.fromhex(sys.argv[4])
deadline = time.monotonic() + 20
while True:
    try:
        client = socket.create_connection((address, port), 30)
        break
    except OSError as error:
        if time.monotonic() > deadline: raise
        time.sleep(0.05)
client.settimeout(30)
client.sendall(question)
got = b""
while len(got) < len(answer):
    piece = client.recv(4096)
    assert piece, got
    got += piece
assert got.startswith(answer), got
print("answered")
"""


def run(options, bed):
    environment = bed.sut_environment(ZPS_LOG="info")
    if options.which in ("redis", "varnish"):
        os.chmod(bed.scratch, 0o777)
    # setpriv and the filter are not prefixed: as with a service manager, only what they start is.
    preload = [f"LD_PRELOAD={environment.pop('LD_PRELOAD')}"] if bed.hooked else []
    argv = argv_of(bed, options.which)
    at = argv.index("redis-server") if options.which == "redis" else 0
    daemon = bed.spawn_sut([*argv[:at], "env", *preload, *argv[at:]], name="daemon", environment=environment)
    question, answer = ask(options.which)
    client = bed.spawn_peer(["/usr/bin/python3", "-S", "-c", CLIENT, bed.sut_address, PORT, question.hex(), answer.hex()], name="client")
    beds.wait_until(lambda: client.poll() is not None or daemon.poll() is not None, 40, "an answer")
    if daemon.poll() is not None:
        return f"the daemon ended with {daemon.returncode}: {bed.output('daemon')}"
    return None if client.returncode == 0 else f"no answer: {bed.output('client')}{bed.output('daemon')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("memcached", "memcached-root", "mosquitto", "redis", "varnish"))
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"daemons-{options.which}-{options.mode}"
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        problem = run(options, bed)
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
