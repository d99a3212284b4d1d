#!/usr/bin/env python3
"""A prefixed redis-server behind the network card of a virtual machine: the card's device is the program, its driver the machine's kernel.

Of both roles at the socket: values large and small, the program's death and return under the running machine, and a driver that is taken out and
put in again. The machine's kernel must find no segment bad.

  vhost_test.py --build build/release [--roles server,client]
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import machine  # noqa: E402
from machine import beds  # noqa: E402

OWN, GUEST, PORT = "198.18.9.1", "198.18.9.2", 6379
CLI = f"/usr/bin/redis-cli -h {OWN} -p {PORT}"
BYTES = 1_000_000


def options(path, role):
    """QEMU's. Without vectors: its emulation of a processor, unlike KVM, does not bear a vhost-user device with message-signalled interrupts (7.2)."""
    chardev = f"socket,id=vhost,path={path}," + ("reconnect=1" if role == "server" else "server=on,wait=off")
    return ["-object", "memory-backend-memfd,id=memory,size=768M,share=on", "-numa", "node,memdev=memory", "-chardev", chardev,
            "-netdev", "vhost-user,id=net,chardev=vhost", "-device", "virtio-net-pci,netdev=net,vectors=0,bus=pcie.0,addr=9"]


def serve(bed, path, role, name):
    environment = bed.sut_environment(ZPS_WIRE=f"vhost:{path},role={role}", ZPS_IP=f"{OWN}/24")
    argv = ["redis-server", "--port", PORT, "--bind", OWN, "--protected-mode", "no", "--save", ""]
    server = bed.spawn_sut(argv, name=name, environment=environment)
    beds.wait_until(lambda: "Ready to accept" in bed.output(name) or server.poll() is not None, 30, "redis' start")
    return server


def exchange(guest):
    """A value there and back, and many small ones."""
    def reached():
        return "PONG" in guest.run(f"timeout 3 {CLI} ping", fails=True)

    beds.wait_until(reached, 60, "an answer of redis")
    guest.run(f"head -c {BYTES} /dev/urandom > /tmp/value; {CLI} -x set value < /tmp/value")
    guest.run(f"{CLI} --raw get value | head -c {BYTES} | cmp - /tmp/value")
    done = guest.run(f"/usr/bin/redis-benchmark -h {OWN} -p {PORT} -q -t set,get -n 200 -c 5")
    if done.count("requests per second") != 2:
        raise AssertionError(f"redis-benchmark: {done}")


def bring_up(guest):
    guest.run(f"ip address add {GUEST}/24 dev eth0 && ip link set eth0 up")


def run(bed, options_, role, traces):
    path = bed.scratch / f"{role}.sock"
    server = serve(bed, path, role, f"redis-{role}")
    programs = {"/usr/bin/redis-cli": "/usr/bin/redis-cli", "/usr/bin/redis-benchmark": "/usr/bin/redis-benchmark"}
    guest = machine.Machine(bed.peer_space, traces, options_.build, [], programs, {}, modules=machine.VIRTIO_MODULES, options=options(path, role))
    try:
        bring_up(guest)
        exchange(guest)
        server.kill()
        server.wait()
        server = serve(bed, path, role, f"redis-{role}-again")
        exchange(guest)
        guest.run("rmmod virtio_net && insmod /modules/virtio_net.ko")
        bring_up(guest)
        exchange(guest)
        errors = guest.run("grep Tcp: /proc/net/snmp | tail -n 1").split()
        if errors[13] != "0":  # InErrs
            raise AssertionError(f"the machine's kernel found bad segments: {errors}")
    finally:
        guest.close()
        server.kill()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--roles", default="server,client")
    options_ = parser.parse_args()
    if machine.missing() is not None:
        raise SystemExit(f"{machine.missing()} is missing: scripts/install-deps, as root")
    traces = options_.build / "test-traces" / "vhost-guest"
    problem = None
    with beds.Bed("zpstack-veth", options_.build, traces) as bed:
        try:
            for role in options_.roles.split(","):
                run(bed, options_, role, traces)
        except (OSError, RuntimeError, AssertionError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
    return beds.conclude(problem, traces, "*.???")


if __name__ == "__main__":
    sys.exit(main())
