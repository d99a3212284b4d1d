"""Processes of a measurement: started pinned and at one priority, ended by pid, in a network namespace of their own."""
# SPDX-License-Identifier: BSD-3-Clause
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """What went wrong, for a person; may have several lines."""


def enter_own_namespace():
    """Puts this process into a new, nameless network namespace; it vanishes with its last process."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise Failure(f"cannot make a network namespace ({os.strerror(ctypes.get_errno())}): run this as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


class Namespace:
    """One more network namespace, joined to this process's by a veth pair with an address at each end; close() removes both."""

    def __init__(self, name, here, there):
        made = []
        thread = threading.Thread(target=lambda: made.append(_namespace_of_this_thread()))
        thread.start()
        thread.join()
        self._file = made[0]
        if self._file is None:
            raise Failure("cannot make a network namespace: run this as root")
        self._interface = name + "0"
        path = f"/proc/{os.getpid()}/fd/{self._file}"
        try:
            for command in (f"ip link add {name}0 type veth peer name {name}1 netns {path}", f"ip addr add {here}/24 dev {name}0", f"ip link set {name}0 up"):
                subprocess.run(command.split(), check=True)
            for command in (f"ip addr add {there}/24 dev {name}1", f"ip link set {name}1 up", "ip link set lo up"):
                subprocess.run(command.split(), check=True, preexec_fn=self.enter)
        except subprocess.CalledProcessError as error:
            os.close(self._file)
            raise Failure(f"cannot make a veth pair: {error}") from None

    def enter(self):
        """Puts the calling thread into it."""
        if _libc.setns(self._file, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def close(self):
        subprocess.run(["ip", "link", "del", self._interface], check=True)
        os.close(self._file)


def _namespace_of_this_thread():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC) if _libc.unshare(CLONE_NEWNET) == 0 else None


def raise_descriptor_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _prepare_child(processors, namespace):
    # In the child, before exec: it has a session and so a scheduling group of its own; all sides get the same priority.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if namespace is not None:
        namespace.enter()
    if processors is not None:
        os.sched_setaffinity(0, processors)
    try:
        with open("/proc/self/autogroup", "w") as group:
            group.write("-20")
    except OSError:
        pass  # no autogroups, or not permitted: all sides are alike in that, too


def cpus():
    """The processors for server and client, each a set of one; None twice when there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return ({allowed[0]}, {allowed[1]}) if len(allowed) > 1 else (None, None)


class Process:
    """A child on the given processors (a set; None: all), whose output goes to a temporary file."""

    def __init__(self, name, command, processors=None, namespace=None, **environment):
        self.name = name
        self.command = [str(word) for word in command]
        self._log = tempfile.TemporaryFile()
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ZPS_") and key != "LD_PRELOAD"}
        self._process = subprocess.Popen(
            self.command, env={**kept, **environment}, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=lambda: _prepare_child(processors, namespace))
        self._environment = environment

    def output(self):
        # Read with a position of our own: the file's belongs to the child.
        descriptor = self._log.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def explain(self, what):
        """A Failure that says what happened and shows the command and the end of the output."""
        settings = " ".join(f"{key}={value}" for key, value in self._environment.items())
        tail = "".join(f"    | {line}\n" for line in self.output().splitlines()[-25:])
        return Failure(f"{self.name} {what}\n    {settings} {' '.join(self.command)}\n{tail}")

    def stack_address(self):
        """The address that the library announces on stderr: of a server that is about to listen, or does."""
        def announced():
            return re.search(r"zpstack: .*?\b(198\.1[89]\.\d+\.\d+)\b", self.output())

        self.wait_for(announced, 10, "said at which address it can be reached")
        return announced()[1]

    def pid(self):
        return self._process.pid

    def status(self):
        """The exit status, or None while it runs."""
        return self._process.poll()

    def wait_for(self, condition, seconds, what):
        """Polls until condition() holds; a child that ends first, or too much time, is a Failure."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.status() is not None:
                raise self.explain(f"ended with status {self.status()} before it {what}")
            if time.monotonic() > deadline:
                raise self.explain(f"has not {what} within {seconds} s")
            time.sleep(0.01)

    def wait(self, seconds):
        """Waits for a good end and returns the output."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.explain(f"has not ended within {seconds} s") from None
        if status != 0:
            raise self.explain(f"ended with status {status}")
        return self.output()

    def end(self):
        """Ends it: politely, then with SIGKILL."""
        if self.status() is None:
            self._process.terminate()
            try:
                self._process.wait(3)
            except subprocess.TimeoutExpired:
                print(f"{self.name} (pid {self._process.pid}) did not end on SIGTERM: killed", file=sys.stderr)
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()
