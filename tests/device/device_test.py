#!/usr/bin/env python3
"""Unmodified servers on network cards of their own, in a virtual machine, against this kernel's TCP at the other end of a tap.

  device_test.py --build build/release [--short] [--cards e1000e,vmxnet3,virtio] [--steps serve,sleep,link,workers,again] [--mtu 9000] [--vlan 5]

  serve    redis-server keeps and gives back values of all sizes, over several connections at once
  sleep    an idle server sleeps, and an interrupt wakes it
  link     the link goes and comes back under a connection, which lives on
  workers  nginx with two workers; one is killed while both serve
  locked   a worker dies while it holds the stack's lock: the card is started anew under the others
  again    everything is killed, and the next program has the card at once
  vlan     the program is on a VLAN of the card's link, and deaf to others
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import contextlib
import http.client
import os
import pathlib
import random
import socket
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "redis"))
import machine  # noqa: E402
from machine import beds  # noqa: E402
import vlan as vlans  # noqa: E402
from resp import Redis  # noqa: E402

SHORT = {"e1000e": ("serve", "sleep"), "vmxnet3": ("serve", "workers", "vlan"), "virtio": ("sleep", "link", "locked", "again")}
STEPS = ("serve", "sleep", "link", "workers", "locked", "again", "vlan")
OUR_VLAN, OTHER_VLAN = 5, 6
REDIS, NGINX = "/usr/bin/redis-server", "/usr/sbin/nginx"
REDIS_PORT, HTTP_PORT, ECHO_PORT = 6379, 8080, 7000
# Of an idle server: of the emulated processor, where one that polls takes all, and one that sleeps some on a busy machine, which counts what others take;
# and sleeps in a second, where timed polling makes two thousand.
MOST_IDLE, MOST_SLEEPS = 0.7, 300
PAGE = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz\n", k=200_000))
TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/:/bin/sh\n",
    "/etc/group": "root:x:0:\n",
    "/srv/page": PAGE,
    "/var/lib/nginx/about": "Its folders are made here.\n",
    "/srv/nginx.conf": "user root; worker_processes 2; daemon off; error_log stderr; pid /tmp/nginx.pid; events {}\n"
                       f"http {{ access_log off; server {{ listen {HTTP_PORT}; root /srv; }} }}\n",
}


class Wrong(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Wrong(what)


class Card:
    """One card of the machine and the programs that run on it."""

    def __init__(self, its_machine, number, mtu, vlan):
        self.machine, self.number, self.mtu, self.vlan_number = its_machine, number, mtu, vlan
        self.name = its_machine.cards[number]
        self.address = f"198.18.{40 + number}.2"
        self.log = f"/tmp/{self.name}.log"
        self.pid = 0

    def start(self, command, **more):
        if self.mtu != 1500:
            more["ZPS_MTU"] = self.mtu
        more.setdefault("ZPS_VLAN", self.vlan_number)
        self.machine.run(f"{self.machine.environment(self.number, **more)} {command} >>{self.log} 2>&1 & echo $! >/tmp/pid")
        self.pid = int(self.machine.run("cat /tmp/pid"))

    def start_redis_on(self, vlan):
        self.start(f"{REDIS} --port {REDIS_PORT} --bind 0.0.0.0 --protected-mode no --save ''", ZPS_VLAN=vlan)

    def start_redis(self):
        self.start_redis_on(self.vlan_number)
        return self.connect()

    def connect(self):
        def try_it():
            try:
                return Redis(self.address, REDIS_PORT)
            except OSError:
                return None
        try:
            return beds.wait_until(try_it, 30, f"{self.name}: redis-server's answer", 0.1)
        except TimeoutError:
            raise Wrong(f"{self.name}: redis-server does not answer:\n{self.machine.run(f'cat {self.log}')}") from None

    def said(self, text):
        return text in self.machine.run(f"cat {self.log}")

    def wait_said(self, text, times=1):
        beds.wait_until(lambda: self.machine.run(f"cat {self.log}").count(text) >= times, 30, f"{self.name}: \"{text}\"", 0.1)

    def kill(self):
        self.machine.run(f"kill -9 $(cat /tmp/nginx.pid 2>/dev/null) {self.pid}; for p in /proc/[0-9]*; do grep -q -E '^(nginx|redis-server|echo_server)$' $p/comm && kill -9 ${{p#/proc/}}; done; true", fails=True)

    # ------------------------------------------------------------ steps

    @contextlib.contextmanager
    def peer_on(self, number):
        """This kernel is on a VLAN of the link instead of the link itself."""
        tap, peer = f"tap{self.number}", f"198.18.{40 + self.number}.1/24"
        self.machine.space.run("ip", "address", "del", peer, "dev", tap)
        with contextlib.closing(vlans.Vlan(self.machine.space, tap, number, f"vlan{number}", peer, self.mtu)):
            yield
        self.machine.space.run("ip", "address", "add", peer, "dev", tap)

    def vlan(self):
        with self.peer_on(OTHER_VLAN):
            self.start_redis_on(OUR_VLAN)
            self.wait_said("Ready to accept")
            with contextlib.suppress(OSError), socket.create_connection((self.address, REDIS_PORT), 1):
                raise Wrong(f"{self.name}: a server on VLAN {OUR_VLAN} answers on VLAN {OTHER_VLAN}")
        with self.peer_on(OUR_VLAN):
            self.exchange([self.connect() for _ in range(3)])
            expect(self.said(f"VLAN {OUR_VLAN} by the device"), f"{self.name}: the start line does not say who tags")

    def serve(self):
        several = [self.start_redis()] + [self.connect() for _ in range(3)]
        segment = several[0].socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        expect(self.mtu - 80 < segment < self.mtu, f"{self.name}: segments of {segment} bytes")
        self.exchange(several)

    def exchange(self, several):
        source = random.Random(7)
        for round_number, size in enumerate((1, 100, 1447, 1448, 1449, 9000, 70_000, 300_000)):
            values = [source.randbytes(size) for _ in several]
            for index, connection in enumerate(several):
                connection.send("SET", f"k{index}", values[index])
            for connection in several:
                expect(connection.read() == b"OK", f"{self.name}: SET in round {round_number}")
            for index, connection in enumerate(several):
                connection.send("GET", f"k{index}")
            for index, connection in enumerate(several):
                expect(connection.read() == values[index], f"{self.name}: GET of {size} bytes differs")

    def ticks(self):
        fields = self.machine.run(f"cat /proc/{self.pid}/stat").rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def uptime(self):
        return float(self.machine.run("cat /proc/uptime").split()[0])

    def sleeps(self):
        return sum(map(int, self.machine.run(f"cat /proc/{self.pid}/task/*/status | grep ^voluntary | cut -f 2").split()))

    def interrupts(self):
        lines = [line.split() for line in self.machine.run("cat /proc/interrupts").splitlines() if f"({self.machine.address(self.number)})" in line]
        return sum(int(line[1]) for line in lines)

    def sleep(self):
        connection = self.start_redis()
        expect(self.said("sleeps by interrupt"), f"{self.name}: does not sleep by interrupt")
        before, slept, begin = self.ticks(), self.sleeps(), self.uptime()
        self.machine.run("sleep 2")
        taken, slept = self.ticks() - before, self.sleeps() - slept
        seconds = self.uptime() - begin
        busy, slept = taken / 100 / seconds, slept / seconds
        expect(busy < MOST_IDLE and slept < MOST_SLEEPS, f"{self.name}: an idle server takes {busy:.0%} of the processor and sleeps {slept:.0f} times a second")
        before = self.interrupts()
        expect(connection.ask("PING") == b"PONG", f"{self.name}: PING")
        expect(self.interrupts() > before, f"{self.name}: no interrupt has woken the server")
        print(f"     {self.name}: idle, {busy:.1%} of the processor, {slept:.0f} sleeps a second", flush=True)

    def link(self):
        connection = self.start_redis()
        expect(connection.ask("SET", "before", "1") == b"OK", f"{self.name}: SET")
        self.machine.monitor(f"set_link card{self.number} off")
        self.wait_said("link is down")
        connection.send("GET", "before")
        self.machine.monitor(f"set_link card{self.number} on")
        self.wait_said("link is up")
        expect(connection.read() == b"1", f"{self.name}: GET after the link was down")

    def fetch(self):
        link = http.client.HTTPConnection(self.address, HTTP_PORT, timeout=30)
        link.request("GET", "/page")
        expect(link.getresponse().read().decode() == PAGE, f"{self.name}: nginx's page differs")
        link.close()

    def start_nginx(self, **more):
        self.start(f"{NGINX} -c /srv/nginx.conf -e stderr", **more)

        def serves():
            try:
                self.fetch()
                return True
            except OSError:
                return False
        beds.wait_until(serves, 30, f"{self.name}: nginx", 0.1)

    def locked(self):
        self.start(f"/echo_server prefork {ECHO_PORT} /tmp/ready", ZPS_TEST_DIE_LOCKED="/tmp/die")
        beds.wait_until(self.echoes, 30, f"{self.name}: echo_server", 0.1)
        for _ in range(4):
            self.machine.run("touch /tmp/die")
            tried = 0
            while "die" in self.machine.run("ls /tmp").split():
                tried += 1
                expect(tried < 20, f"{self.name}: nobody has died")
                self.echoes()
            beds.wait_until(self.echoes, 20, f"{self.name}: echo_server after a death")
            for _ in range(5):
                expect(self.echoes(), f"{self.name}: a connection after a death")
        expect(self.said("a process died inside the stack"), f"{self.name}: the death was not inside")

    def echoes(self):
        """Whether a new connection gives back what it was sent."""
        text = random.randbytes(16000)
        try:
            with socket.create_connection((self.address, ECHO_PORT), 15) as link:
                link.sendall(text)
                got = b""
                while len(got) < 4 + len(text) and (piece := link.recv(65536)):
                    got += piece
        except OSError:
            return False
        expect(not got or len(got) < 4 + len(text) or got[4:] == text, f"{self.name}: the echo differs")
        return len(got) == 4 + len(text)

    def workers(self):
        self.start_nginx()
        for round_number in range(4):
            self.fetch()
            children = self.machine.run(f"cat /proc/{self.pid}/task/{self.pid}/children; for p in /proc/[0-9]*; do test \"$(cat $p/comm)\" = nginx && echo ${{p#/proc/}}; done; true").splitlines()
            others = [pid for pid in children[1:] if pid in children[0].split()]
            expect(len(others) >= 1, f"{self.name}: nginx has no workers: {children}")
            self.machine.run(f"kill -9 {others[round_number % len(others)]}")
            for _ in range(3):
                self.fetch()

    def again(self):
        for _ in range(3):
            connection = self.start_redis()
            connection.send("SET", "x", b"x" * 300_000)
            self.kill()
        expect(self.start_redis().ask("PING") == b"PONG", f"{self.name}: PING after kill -9")


def take_steps(card, steps):
    for step in steps:
        begin = time.monotonic()
        getattr(card, step)()
        card.kill()
        card.machine.run(f"rm -f {card.log}.old; mv {card.log} {card.log}.old")
        print(f"ok   {card.name} {step} {time.monotonic() - begin:.1f} s", flush=True)


def run(options, traces):
    space = beds.Namespace()
    its_machine = None
    try:
        begin = time.monotonic()
        its_machine = machine.Machine(space, traces, options.build, options.cards, {REDIS: REDIS, NGINX: NGINX, "/echo_server": options.build / "echo_server"}, TEXTS, options.mtu)
        print(f"     the machine is up after {time.monotonic() - begin:.1f} s", flush=True)
        space.enter()
        if options.mtu > 4000:
            its_machine.run("echo 40 >/proc/sys/vm/nr_hugepages")
        for number in range(len(options.cards)):
            its_machine.take_card(number)
            card = Card(its_machine, number, options.mtu, options.vlan)
            with card.peer_on(options.vlan) if options.vlan else contextlib.nullcontext():
                take_steps(card, SHORT[card.name] if options.short else options.steps)
        return None
    except (Wrong, RuntimeError, OSError) as problem:
        if its_machine is not None:
            with contextlib.suppress(RuntimeError, OSError):
                (traces / "programs.log").write_text(its_machine.run("dmesg | tail -n 5; tail -n 30 /tmp/*.log", 10))
        return f"{type(problem).__name__}: {problem}"
    finally:
        if its_machine is not None:
            its_machine.close()
        space.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=lambda text: pathlib.Path(text).resolve(), required=True)
    parser.add_argument("--cards", type=lambda text: text.split(","), default=list(machine.CARDS))
    parser.add_argument("--steps", type=lambda text: text.split(","), default=list(STEPS))
    parser.add_argument("--short", action="store_true", help="some of the steps on each card")
    parser.add_argument("--mtu", type=int, default=1500)
    parser.add_argument("--vlan", type=int, default=0, help="everything happens there")
    options = parser.parse_args()
    lacking = machine.missing()
    if lacking is not None:
        raise SystemExit(f"{lacking} is missing: scripts/install-deps, as root")
    traces = options.build / "test-traces" / f"device-{'-'.join(options.cards)}"
    traces.mkdir(parents=True, exist_ok=True)
    for old in traces.iterdir():
        if old.is_file():
            os.unlink(old)
    problem = run(options, traces)
    return beds.conclude(problem, traces, "*.log")


if __name__ == "__main__":
    sys.exit(main())
