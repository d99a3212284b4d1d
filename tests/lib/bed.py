"""A test bed: one or two network namespaces of its own, the processes that run in them, and the traces they leave.

Modes
  kernel        the program under test natively in a namespace of its own, its peer at the other end of a kernel veth pair
  zpstack-veth  the program under test prefixed with the library, its peer a plain kernel process reached over the default wire
  zpstack-memif both prefixed, a memif between them
  zpstack-host  as `kernel`, with the program under test prefixed: its wire is the kernel's end of the pair, whose address it shares
  zpstack-afxdp the same, by sockets of AF_XDP

Addresses are the same in all but `zpstack-memif`: the program under test is at 198.18.0.2, its peer at 198.18.0.1.

A namespace lives as long as a process in it: a holder that dies with the harness keeps it, so it vanishes however that ends. When a bed closes, whatever still runs in its namespaces was started there and is ended by pid.
"""
# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import loss

MODES = ("kernel", "zpstack-veth", "zpstack-memif", "zpstack-host", "zpstack-afxdp")
SHARED_WIRES = {"zpstack-host": "host:zps0p", "zpstack-afxdp": "af_xdp:zps0p"}
SOURCE = pathlib.Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """A network namespace with its loopback up."""

    def __init__(self):
        ready_read, ready_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                die_with_parent()
                _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET), needs root")
                os.write(ready_write, b"1")
                signal.pause()
            except OSError as error:
                print(error, file=sys.stderr)
            os._exit(0)
        os.close(ready_write)
        ready = os.read(ready_read, 1)
        os.close(ready_read)
        if not ready:
            raise RuntimeError("no network namespace: run as root")
        self.file = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        self.inode = os.fstat(self.file).st_ino
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *argv):
        """Runs a set-up command inside, which must succeed."""
        subprocess.run(argv, check=True, preexec_fn=self.enter, stdout=subprocess.DEVNULL)

    def enter(self):
        _check(_libc.setns(self.file, CLONE_NEWNET), "setns")

    def members(self):
        """Pids of the processes inside, without the holder and ourselves."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in (self.pid, os.getpid()):
                with contextlib.suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/net").st_ino == self.inode:
                        found.append(int(entry))
        return found

    def close(self):
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.file)


class Bed:
    """The namespaces and processes of one test in one mode. Use as a context manager."""

    def __init__(self, mode, build, traces, pcap=False, detects_duplicates=True):
        if mode not in MODES:
            raise ValueError(f"mode {mode}: one of {', '.join(MODES)}")
        self.mode = mode
        self.build = pathlib.Path(build).resolve()
        self.library = self.build / "libzpstack.so"
        self.traces = pathlib.Path(traces).resolve()
        self.pcap = pcap
        self.detects_duplicates = detects_duplicates  # of link-local addresses of the kernel's, which takes a second
        self.processes = []
        self._namespaces = []
        self._loss = None
        memif = mode == "zpstack-memif"
        self.sut_address = "198.18.9.1" if memif else "198.18.0.2"
        self.peer_address = "198.18.9.2" if memif else "198.18.0.1"
        network6 = "fdc6:1200:0:ff" if memif else "fdc6:1200:0:0"  # what the wire chooses: its server is ::1
        self.sut_address6 = f"{network6}::1" if memif else f"{network6}::2"
        self.peer_address6 = f"{network6}::2" if memif else f"{network6}::1"
        self.hooked = mode != "kernel"

    def __enter__(self):
        if self.hooked and not self.library.exists():
            raise SystemExit(f"{self.library} is not built")
        shutil.rmtree(self.traces, ignore_errors=True)
        self.traces.mkdir(parents=True)
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="zpstest-"))
        self.peer_space = self._namespace()
        apart = self.mode in ("kernel", *SHARED_WIRES)
        self.sut_space = self._namespace() if apart else self.peer_space
        if apart:
            self._join_by_veth()
        return self

    def _namespace(self):
        space = Namespace()
        self._namespaces.append(space)
        if not self.detects_duplicates:
            space.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        return space

    def _join_by_veth(self):
        near, far = self.peer_space, self.sut_space
        near.run("ip", "link", "add", "zps0", "type", "veth", "peer", "name", "zps0p", "netns", str(far.pid))
        for space, device, address, address6 in (
            (near, "zps0", self.peer_address, self.peer_address6),
            (far, "zps0p", self.sut_address, self.sut_address6),
        ):
            space.run("ip", "address", "add", f"{address}/24", "dev", device)
            space.run("ip", "address", "add", f"{address6}/64", "dev", device, "nodad")
            space.run("ip", "link", "set", device, "up")

    def sut_environment(self, **extra):
        """The environment of the program under test."""
        environment = self._environment(self.hooked, "server", self.sut_address, extra)
        libraries = [environment.get("LD_PRELOAD"), os.environ.get("ZPS_TEST_PRELOAD")]  # of a whole run: tests/allocators/suite
        if any(libraries):
            environment["LD_PRELOAD"] = " ".join(filter(None, libraries))
        return environment

    def peer_environment(self, **extra):
        return self._environment(self.mode == "zpstack-memif", "client", self.peer_address, extra)

    def _environment(self, prefixed, role, address, extra):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ZPS_") and k != "LD_PRELOAD"}
        environment.update(
            ZPS_TEST_MODE=self.mode, ZPS_TEST_SELF=self.sut_address, ZPS_TEST_PEER=self.peer_address, ZPS_TEST_SCRATCH=str(self.scratch)
        )
        environment.update(ZPS_TEST_SELF6=self.sut_address6, ZPS_TEST_PEER6=self.peer_address6)
        environment.update(ZPS_TEST_OWN=address, ZPS_TEST_HOOKED=str(int(prefixed)))
        if "ZPS_TEST_FAMILY" in os.environ:
            environment["ZPS_TEST_FAMILY"] = os.environ["ZPS_TEST_FAMILY"]
        if prefixed:
            environment["LD_PRELOAD"] = str(self.library)
            for key, value in os.environ.items():
                if key in ("ZPS_LOG", "ZPS_HOOK", "ZPS_SPIN_US", "ZPS_MEMORY_MB", "ZPS_HUGEPAGES", "ZPS_LEDGER", "ZPS_UDP"):
                    environment[key] = value
            if self.mode == "zpstack-memif":
                environment["ZPS_WIRE"] = f"memif:{self.scratch}/memif.sock,role={role}"
                environment["ZPS_IP"] = f"{address}/24"
            if self.mode in SHARED_WIRES:
                environment["ZPS_WIRE"] = SHARED_WIRES[self.mode]
        environment.update({k: str(v) for k, v in extra.items()})
        return environment

    def spawn_sut(self, argv, name="sut", environment=None, **options):
        """Starts the program under test, its output in traces/<name>.out and .err."""
        return self._spawn(argv, name, self.sut_space, environment or self.sut_environment(), options)

    def spawn_peer(self, argv, name="peer", environment=None, **options):
        return self._spawn(argv, name, self.peer_space, environment or self.peer_environment(), options)

    def _spawn(self, argv, name, space, environment, options):
        def prepare():
            die_with_parent()
            space.enter()

        for stream, suffix in (("stdout", "out"), ("stderr", "err")):
            options.setdefault(stream, open(self.traces / f"{name}.{suffix}", "ab"))
        process = subprocess.Popen([str(a) for a in argv], env=environment, preexec_fn=prepare, start_new_session=True, **options)
        for stream in ("stdout", "stderr"):
            if hasattr(options[stream], "close"):
                options[stream].close()
        process.name = name
        self.processes.append(process)
        return process

    def capture(self):
        """Starts tcpdump on every device of the peer's namespace (a memif has none: its frames are not seen)."""
        return self.spawn_peer(["tcpdump", "-i", "any", "-U", "-w", self.traces / "wire.pcap"], name="tcpdump", environment=dict(os.environ))

    def lose(self, per_mille):
        """From now on so many frames of a thousand get lost in each direction between the two sides (not on a memif). OSError where the kernel cannot do it."""
        made = []

        def inside():  # a thread has a network namespace of its own
            self.peer_space.enter()
            try:
                made.append(loss.Loss("zps0", per_mille))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        self._loss = made[0]

    def output(self, name):
        text = ""
        for suffix in ("out", "err"):
            path = self.traces / f"{name}.{suffix}"
            if path.exists():
                text += path.read_text(errors="replace")
        return text

    def explain_hang(self):
        """Writes where every process of the bed stands: wait channels and, if gdb is there, backtraces."""
        for space in self._namespaces:
            for pid in space.members():
                with open(self.traces / f"hang.{pid}", "wb") as out, contextlib.suppress(OSError, subprocess.SubprocessError):
                    out.write(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") + b"\n")
                    out.write(pathlib.Path(f"/proc/{pid}/status").read_bytes())
                    out.flush()
                    if shutil.which("gdb"):
                        command = ["gdb", "-p", str(pid), "-batch", *image_symbols(pid), "-ex", "thread apply all bt 20"]
                        subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=60, env=clean_environment())

    def __exit__(self, kind, value, trace):
        for space in self._namespaces:
            space.close()
        for process in self.processes:
            process.wait()
        if self._loss:
            self._loss.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
        return False


def image_symbols(pid):
    """Tells gdb where the stack's image lies: ld.so has not loaded it."""
    words = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split()
        if fields[-1].endswith("/libzpstack-stack.so") and fields[2] == "00000000":
            words += ["-ex", f"add-symbol-file {fields[-1]} -o 0x{fields[0].split('-')[0]}"]
    return words


def children(pid):
    """The program's own: without the process that stays to tell the peers."""
    found = []
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # reaped in the meantime
            if pathlib.Path(f"/proc/{child}/comm").read_text() != "zpstack-keeper\n":
                found.append(int(child))
    return found


def clean_environment():
    """The environment without anything of the library's."""
    return {k: v for k, v in os.environ.items() if not k.startswith("ZPS_") and k != "LD_PRELOAD"}


def wait_until(condition, seconds, what, step=0.01):
    """Asks `condition` until it is true; raises after `seconds`. The pause between two looks only spares the processor."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(step)


def conclude(problem, traces, logs):
    """The end of a test: removes its traces, or says what went wrong (`problem`), the last lines of the files `logs`, and how to repeat it. The exit code."""
    if problem is None:
        shutil.rmtree(traces)
        return 0
    print(f"FAIL {problem}")
    for path in sorted(traces.glob(logs)):
        print("".join(f"  {path.name}: {line}\n" for line in path.read_text(errors="replace").splitlines()[-20:]), end="")
    print(f"  traces: {traces}\n  repeat: {' '.join(sys.argv)} --pcap")
    return 1
