#!/usr/bin/env python3
"""What the library may cost, and what happens when something it needs is taken away.

  limits.py --build build/release startup | memory | idle | fork | processors | prerequisites

Budgets: start-up of /bin/true + 15 ms and of python3 + 30 ms; 48 MB on redis-server's resident memory; under 1 % of a CPU for an idle
redis-server with 10 connections. What the kernel copies when a server forks: 4 MB of ring and a board of bells, 1 MB of the library's private pages, descriptors up to the
1024th beyond the program's limit; and a child that answers one request and ends makes no thread. Idle processors sleep lightly while a client is answered at once, and not a second longer. A missing prerequisite: one line on stderr and exit status 127, or with ZPS_FALLBACK=kernel a
program that runs on the kernel as if nothing was there.
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import os
import pathlib
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
sys.path.insert(0, str(HERE.parent / "redis"))
import bed as beds  # noqa: E402
from resp import Redis  # noqa: E402

PYTHON = "/usr/bin/python3"
TICKS = os.sysconf("SC_CLK_TCK")


def timed(bed, argv, environment):
    start = time.perf_counter()
    code = bed.spawn_sut(argv, name="started", environment=environment).wait(60)
    took = (time.perf_counter() - start) * 1000
    if code != 0:
        raise AssertionError(f"{argv[0]}: exit code {code}: {bed.output('started')}")
    return took


def startup(bed):
    """Native and hooked in turn, so that a busy machine slows both; the budget is for the difference of the medians."""
    native, hooked = beds.clean_environment(), bed.sut_environment(ZPS_LOG="error")
    failures = []
    for argv, rounds, budget in ((["/bin/true"], 31, 15.0), ([PYTHON, "-S", "-c", "pass"], 21, 30.0)):
        plain, added = [], []
        for _ in range(rounds):
            plain.append(timed(bed, argv, native))
            added.append(timed(bed, argv, hooked))
        cost = statistics.median(added) - statistics.median(plain)
        print(f"{argv[0]}: {statistics.median(plain):.2f} ms natively, {statistics.median(added):.2f} ms hooked, {cost:+.2f} ms of {budget:.0f}")
        if cost > budget:
            failures.append(f"{argv[0]} starts {cost:.2f} ms later, budget {budget}")
    return failures


class RedisServer:
    """A redis-server with `clients` connections that have spoken and are now silent."""

    def __init__(self, bed, environment, port, clients):
        self.log = bed.traces / f"redis{port}.log"
        argv = ["redis-server", "--port", port, "--protected-mode", "no", "--save", "", "--dir", bed.scratch, "--logfile", self.log]
        self.process = bed.spawn_sut(argv, name=f"redis{port}", environment=environment)
        beds.wait_until(lambda: self.log.exists() and "eady to accept connections" in self.log.read_text(), 30, "redis-server's start")
        self.address = address = "127.0.0.1" if "LD_PRELOAD" not in environment else bed.sut_address
        self.clients = []
        for _ in range(clients):
            client = socket.create_connection((address, port), 30)
            client.sendall(b"PING\r\n")
            if client.recv(7) != b"+PONG\r\n":
                raise AssertionError("no PONG")
            self.clients.append(client)

    def resident_mb(self):
        """Resident memory with hugetlb pages, which the kernel counts apart."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(number) for number in re.findall(r"^(?:VmRSS|HugetlbPages):\s+(\d+) kB", status, re.MULTILINE)) / 1024

    def work(self, address, port):
        """Fifty connections with 64 KB values there and back at the same time, so that the stack's memory has been in use."""
        clients = [Redis(address, port) for _ in range(50)]
        for turn in range(5):
            for i, client in enumerate(clients):
                client.send("SET", f"key{i}", bytes(65536))
                client.send("GET", f"key{i}")
            for client in clients:
                if client.read() != b"OK" or len(client.read()) != 65536:
                    raise AssertionError(f"turn {turn}: a wrong reply")
        for client in clients:
            client.close()

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self):
        for client in self.clients:
            client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def memory(bed):
    bed.sut_space.enter()
    native = RedisServer(bed, beds.clean_environment(), 6391, 1)
    native.work(native.address, 6391)
    plain = native.resident_mb()
    native.close()
    failures, port = [], 6392
    for name, extra, budget in (("default", {}, 48), ("without hugepages", {"ZPS_HUGEPAGES": "no"}, 48), ("ZPS_MEMORY_MB=16", {"ZPS_MEMORY_MB": 16}, 16)):
        hooked = RedisServer(bed, bed.sut_environment(**extra), port, 1)
        hooked.work(hooked.address, port)
        added = hooked.resident_mb() - plain
        hooked.close()
        port += 1
        print(f"redis-server: {plain:.1f} MB natively, {added:+.1f} MB of {budget} ({name})")
        if added > budget:
            failures.append(f"{name}: the stack adds {added:.1f} MB, budget {budget}")
    return failures


def idle(bed):
    """CPU time over five seconds in which nobody says anything: the passing of time is what is measured."""
    bed.sut_space.enter()
    failures, seconds = [], 5
    for name, environment, port in (("native", beds.clean_environment(), 6391), ("hooked", bed.sut_environment(), 6392)):
        server = RedisServer(bed, environment, port, 10)
        before, start = server.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        share = (server.cpu_seconds() - before) / (time.monotonic() - start) * 100
        server.close()
        print(f"idle redis-server with 10 connections, {name}: {share:.2f} % of a CPU")
        if name == "hooked" and share >= 1.0:
            failures.append(f"an idle server uses {share:.2f} % of a CPU")
    return failures


# A server whose children answer a byte with what a fork has to copy, seen before they answer; the one that is sent a w stays in recv().
FORKING = """
import os, resource, socket
LIMIT = 1024
resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
listener = socket.create_server(('0.0.0.0', 7100))
while True:
    connection, _ = listener.accept()
    if os.fork() == 0:
        asked = connection.recv(1)
        copied, written, resident, ours, name = 0, 0, 0, False, ''
        for line in open('/proc/self/smaps'):
            words = line.split()
            if '-' in words[0]:
                name = words[5] if len(words) > 5 else ''
                ours = 'libzpstack' in name or words[0].startswith('300000000000-') or (ours and name == '')
            elif words[0] == 'Rss:':
                resident = int(words[1])
            elif words[0] == 'Anonymous:' and ours:
                written += int(words[1])
            elif words[0] == 'VmFlags:' and 'mm' in words:
                copied += resident
        highest = max(int(name) for name in os.listdir('/proc/self/fd'))
        connection.send(f'{os.getpid()} {copied} {written} {highest} {len(os.listdir("/proc/self/task"))}'.encode())
        if asked == b'w':
            connection.recv(1)
        os._exit(0)
    connection.close()
"""


def fork(bed):
    bed.sut_space.enter()
    server = bed.spawn_sut([PYTHON, "-S", "-c", FORKING], environment=bed.sut_environment())
    beds.wait_until(lambda: bed.sut_address in bed.output("sut"), 30, "the server's stack")

    def ask(byte):
        connection = socket.create_connection((bed.sut_address, 7100), 30)
        connection.send(byte)
        return connection, [int(word) for word in connection.recv(100).split()]

    _, (_, copied, written, highest, threads) = ask(b"x")
    failures = []
    print(f"a forked child: {copied} kB of ring, {written} kB of private pages, descriptors up to {highest}, {threads} threads")
    if copied > 4096 + 16 or written > 1024 or highest >= 2 * 1024 or threads != 1:
        failures.append("more than 4112 kB, 1024 kB, descriptor 2047, 1 thread")
    waiting, (pid, *_) = ask(b"w")
    beds.wait_until(lambda: len(os.listdir(f"/proc/{pid}/task")) == 2, 30, "the service thread of a child that waits for long")
    waiting.close()
    server.kill()
    server.wait(30)
    return failures


SKIPPED = 77  # CTest's SKIP_RETURN_CODE
QOS = pathlib.Path("/dev/cpu_dma_latency")
ANY_SLEEP = 2_000_000_000  # the kernel's PM_QOS_CPU_LATENCY_DEFAULT_VALUE


def wake_up_time():
    """How fast idle processors have to be awake again, in microseconds, by all requests together."""
    with QOS.open("rb", buffering=0) as device:
        return struct.unpack("i", device.read(4))[0]


def wake_up_times(server, seconds):
    """The wake-up times that are in force while one client asks again and again."""
    client, seen, end = server.clients[0], set(), time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(200):
            client.sendall(b"PING\r\n")
            client.recv(7)
        seen.add(wake_up_time())
    return seen


def processors(bed):
    if not QOS.exists() or not os.access(QOS, os.W_OK) or wake_up_time() != ANY_SLEEP:
        print("skipped: this machine has no /dev/cpu_dma_latency, or somebody else uses it")
        sys.exit(SKIPPED)
    bed.sut_space.enter()
    failures = []
    cases = ((6391, "default", {}, signal.SIGTERM), (6392, "any", {"ZPS_CPU_SLEEP": "any"}, signal.SIGTERM), (6393, "killed", {}, signal.SIGKILL))
    for port, name, extra, end in cases:
        server = RedisServer(bed, bed.sut_environment(**extra), port, 1)
        idle = wake_up_time()
        seen = wake_up_times(server, 1)
        light = any(wake_up <= 2 for wake_up in seen)
        if end == signal.SIGTERM:
            beds.wait_until(lambda: wake_up_time() == ANY_SLEEP, 30, "the end of the request")
        server.process.send_signal(end)
        server.process.wait(30)
        server.close()
        print(f"{name}: {idle} us when idle, {sorted(seen)} with a client, {wake_up_time()} after the end")
        if idle != ANY_SLEEP or light != (name != "any") or wake_up_time() != ANY_SLEEP:
            failures.append(f"{name}: {idle} us when idle, {sorted(seen)} with a client, {wake_up_time()} after the end")
    return failures


# Listens on all addresses and serves itself over loopback: works wherever the kernel does. A number that is no prerequisite's.
PROGRAM = """
import socket
listener = socket.create_server(("", 7009))
client = socket.create_connection(("127.0.0.1", 7009), 20)
server, _ = listener.accept()
client.sendall(b"over loopback")
assert server.recv(100) == b"over loopback"
print("served")
"""

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# What is taken away: (name, command in front, environment).
TAKEN_AWAY = [
    ("no CAP_NET_ADMIN", ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"], {}),
    ("no CAP_NET_RAW", ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"], {}),
    ("no page 0 for a plain user", NOBODY, {}),
    ("no address space", ["prlimit", "--as=60000000"], {}),
    ("a bad address", [], {"ZPS_IP": "300.1.2.3/24"}),
    ("a bad prefix", [], {"ZPS_IP": "198.18.0.2/40"}),
    ("an unknown wire", [], {"ZPS_WIRE": "carrier-pigeon"}),
    ("a device that is not there", [], {"ZPS_WIRE": "af_packet:nodevice0", "ZPS_IP": "198.18.3.2/24"}),
    ("a memif path that cannot be", [], {"ZPS_WIRE": "memif:/nonexistent/dir/x.sock,role=server", "ZPS_IP": "198.18.9.1/24"}),
    ("a memif folder that may not be written", ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"],
     {"ZPS_WIRE": "memif:/proc/tty/driver/x.sock,role=server", "ZPS_IP": "198.18.9.1/24"}),
    ("a gateway elsewhere", [], {"ZPS_GATEWAY": "10.1.2.3"}),
    ("a service's filters", ["{build}/limits_service_filter"], {}),
    ("too little memory", [], {"ZPS_MEMORY_MB": "1"}),
    ("an unknown mode", [], {"ZPS_HOOK": "magic"}),
    ("an unknown setting", [], {"ZPS_NONSENSE": "1"}),
    ("a missing hook library", [], {"ZPS_HOOK_LIBRARY": "/nonexistent/libhook.so"}),
]


def run_deprived(bed, prefix, extra):
    """(exit code, stdout, stderr) of the program, prefixed only after the command in front."""
    environment = {k: v for k, v in bed.sut_environment().items() if not k.startswith("ZPS_")}
    preload = environment.pop("LD_PRELOAD")
    prefix = [word.format(build=bed.build) for word in prefix]
    settings = [f"{key}={value}" for key, value in {"LD_PRELOAD": preload, **extra}.items()]
    process = bed.spawn_sut([*prefix, "env", *settings, PYTHON, "-S", "-c", PROGRAM], environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def prerequisites(bed):
    failures = []
    # Every `env` and `setpriv` on the way to the program is hooked as well if it is started by a hooked one: here none is.
    for name, prefix, extra in TAKEN_AWAY:
        if prefix and prefix[0].startswith("{build}") and not pathlib.Path(prefix[0].format(build=bed.build)).exists():
            continue  # without libseccomp
        code, out, err = run_deprived(bed, prefix, extra)
        lines = [line for line in err.splitlines() if line]
        good = code == 127 and len(lines) == 1 and lines[0].startswith("zpstack: ") and "served" not in out
        print(f"{'ok  ' if good else 'FAIL'} {name}: {code}, {lines}")
        if not good:
            failures.append(f"{name}: exit code {code}, stderr {lines}")
        code, out, err = run_deprived(bed, prefix, {**extra, "ZPS_FALLBACK": "kernel"})
        # What is wrong, and (where the hook library says the first) that the kernel serves.
        good = code == 0 and out == "served\n" and len(err.splitlines()) <= 2 and all(line.startswith("zpstack: ") for line in err.splitlines())
        print(f"{'ok  ' if good else 'FAIL'} {name}, ZPS_FALLBACK=kernel: {code}, {out.strip()!r}, {err.splitlines()}")
        if not good:
            failures.append(f"{name} with ZPS_FALLBACK=kernel: exit code {code}, stdout {out!r}, stderr {err.splitlines()}")
    failures += absent_peer(bed)
    failures += helpers(bed)
    failures += unseen(bed)
    return failures


ABSENT = """
import errno, socket, time
client = socket.socket()
client.settimeout(4)
try:
    client.connect(("198.18.9.2", 7))
except (TimeoutError, OSError) as error:
    print("refused", error)
"""


def absent_peer(bed):
    """A memif whose other end never comes: the program runs, and its connection ends as over a cable that leads nowhere."""
    environment = bed.sut_environment(ZPS_WIRE=f"memif:{bed.scratch}/nobody.sock,role=client", ZPS_IP="198.18.9.1/24")
    process = bed.spawn_sut([PYTHON, "-S", "-c", ABSENT], environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    good = process.returncode in (0, 127) and (out.startswith(b"refused") or process.returncode == 127) and len(err.splitlines()) <= 1
    print(f"{'ok  ' if good else 'FAIL'} an absent memif peer: {process.returncode}, {out!r}, {err!r}")
    return [] if good else [f"an absent memif peer: exit code {process.returncode}, {out!r}, {err!r}"]


def helpers(bed):
    """Programs without any rights that never serve run as they do elsewhere, and nothing is said."""
    environment = bed.sut_environment()
    preload = f"LD_PRELOAD={environment.pop('LD_PRELOAD')}"
    failures = []
    for argv in (["/bin/ls", "/"], ["/bin/sh", "-c", "id -u; ls /"], [PYTHON, "-S", "-c", "import socket; print(socket.socket().fileno())"]):
        expected = subprocess.run([*NOBODY, *argv], capture_output=True, timeout=60)
        process = bed.spawn_sut([*NOBODY, "env", preload, *argv], environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=60)
        good = (process.returncode, out, err) == (0, expected.stdout, b"")
        print(f"{'ok  ' if good else 'FAIL'} no rights and no need of them, {argv[0]}: {process.returncode}, {err!r}")
        failures += [] if good else [f"{argv} without rights: exit code {process.returncode}, {out!r}, {err!r}"]
    return failures


# Turns its descriptors away as daemon(3) does, and listens only then.
DAEMON = """
import os, socket
null = os.open("/dev/null", os.O_RDWR)
for fd in range(3):
    os.dup2(null, fd)
socket.create_server(("", 7009))
"""
# A /dev of its own, where the system's log is a socket of the test's.
OWN_DEV = 'mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && : >/dev/log && mount --bind "$0" /dev/log && exec "$@"'


def unseen(bed):
    """A daemon that is refused its stack when nobody sees its stderr any more: the line is in the system's log."""
    bed.scratch.chmod(0o711)
    environment = bed.sut_environment()
    preload = f"LD_PRELOAD={environment.pop('LD_PRELOAD')}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(bed.scratch / "log"))
        (bed.scratch / "log").chmod(0o666)
        log.setblocking(False)
        front = ["unshare", "--mount", "sh", "-c", OWN_DEV, bed.scratch / "log"]
        process = bed.spawn_sut([*front, *NOBODY, "env", preload, PYTHON, "-S", "-c", DAEMON], environment=environment, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
        try:
            line = log.recv(4096).decode()  # sent before the program ended
        except BlockingIOError:
            line = ""
    good = process.returncode == 127 and line.startswith("<27>zpstack: ") and "CAP_NET_ADMIN" in line and err == b""
    print(f"{'ok  ' if good else 'FAIL'} a daemon without rights: {process.returncode}, {line!r}, {err!r}")
    return [] if good else [f"a daemon without rights: exit code {process.returncode}, logged {line!r}, stderr {err!r}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("startup", "memory", "idle", "fork", "processors", "prerequisites"))
    parser.add_argument("--build", type=pathlib.Path, required=True)
    options = parser.parse_args()
    with beds.Bed("zpstack-veth", options.build, options.build / "test-traces" / f"limits-{options.what}") as bed:
        failures = globals()[options.what](bed)
    for failure in failures:
        print(f"FAIL {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
