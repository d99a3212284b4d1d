"""A virtual machine with PCI network cards behind an IOMMU: QEMU's own emulation, Debian's kernel, and all that runs in it in an initramfs.

The cards' other ends are taps in a network namespace of the test's. Commands go over a serial line to a shell that is the machine's
init; what the kernel says goes into a file. Nothing of it needs KVM.
"""
# SPDX-License-Identifier: BSD-3-Clause
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/lib"))
import bed as beds  # noqa: E402

GUEST = SOURCE / ".deps/guest"  # scripts/install-deps
MODULES = ("irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci")
LIBRARIES = ("libzpstack.so", "libzpstack-core.so", "libzpstack-stack.so", "libzpstack-device.so")
# By name: QEMU's device, and what it is told beside.
CARDS = {"e1000e": "e1000e", "vmxnet3": "vmxnet3", "virtio": "virtio-net-pci,iommu_platform=on,disable-legacy=on"}
FIRST_SLOT = 5
LOADER = "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
QEMU = "qemu-system-x86_64"

# For a card that the machine's own kernel drives.
VIRTIO_MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "failover", "net_failover", "virtio_net")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /tmp /run; mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mkdir -p /dev/shm; mount -t tmpfs tmp /tmp; mount -t tmpfs shm /dev/shm
for module in MODULES; do insmod /modules/$module.ko; done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo '::0' >&3
serve() {  # not init itself, whom the end of each orphan would interrupt in the middle of a line
  while read -r line <&3; do
    (eval "$line") >&3 2>&1 </dev/null 3>&-
    echo "::$?" >&3
  done
}
serve &
wait
"""


def missing():
    """What of the prerequisites is not here, or None."""
    if os.getuid() != 0:
        return "root"
    if shutil.which(QEMU) is None:
        return QEMU
    if not (GUEST / "vmlinuz").exists():
        return str(GUEST)
    return None if os.path.exists("/dev/net/tun") else "/dev/net/tun"


class Archive:
    """A cpio archive in the form that the kernel unpacks."""

    def __init__(self, path):
        self._file, self._number, self._known = open(path, "wb"), 0, set()

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        self._number += 1
        encoded = name.encode() + b"\0"
        head = "070701" + "".join(f"{v:08x}" for v in (self._number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0))
        for part in (head.encode() + encoded, data):
            self._file.write(part + b"\0" * (-self._file.tell() - len(part) & 3))

    def folder(self, path):
        path = pathlib.PurePath(path)
        if str(path) in ("/", ".") or path in self._known:
            return
        self.folder(path.parent)
        self._known.add(path)
        self._entry(str(path).lstrip("/"), stat.S_IFDIR | 0o755)

    def text(self, path, text, mode=0o644):
        self.folder(pathlib.PurePath(path).parent)
        self._entry(path.lstrip("/"), stat.S_IFREG | mode, text.encode())

    def node(self, path, major, minor):
        self.folder(pathlib.PurePath(path).parent)
        self._entry(path.lstrip("/"), stat.S_IFCHR | 0o600, b"", (major, minor))

    def file(self, path, source):
        if path in self._known:
            return
        self._known.add(path)
        self.folder(pathlib.PurePath(path).parent)
        self._entry(str(path).lstrip("/"), stat.S_IFREG | 0o755, pathlib.Path(source).read_bytes())

    def program(self, path, source):
        """With the libraries that it is linked to."""
        self.file(path, source)
        for word in subprocess.run(["ldd", source], capture_output=True, text=True, check=True).stdout.split():
            if word.startswith("/"):
                self.file(word, word)

    def close(self):
        self._entry("TRAILER!!!", 0)
        self._file.close()


def make_initramfs(path, build, programs, texts, modules):
    archive = Archive(path)
    archive.node("/dev/console", 5, 1)
    archive.node("/dev/null", 1, 3)
    archive.file("/bin/busybox", GUEST / "busybox")
    archive.text("/init", INIT.replace("MODULES", " ".join(modules)), 0o755)
    for module in modules:
        archive.file(f"/modules/{module}.ko", GUEST / f"modules/{module}.ko")
    for name in LIBRARIES:
        bare = path.parent / name
        subprocess.run(["strip", "-g", "-o", bare, build / name], check=True)
        archive.file(f"/zps/{name}", bare)
        bare.unlink()
    for path, source in programs.items():
        archive.program(path, source)
    archive.file(LOADER, LOADER)  # where the core looks for it
    for name, text in texts.items():
        archive.text(name, text)
    archive.close()


class Machine:
    """Runs until it is closed. `programs` and `texts`: what is in it, by path. `cards`: names out of CARDS; the Nth is at 0000:00:0(5+N).0, its tap is tapN with the address 198.18.(40+N).1/24. `modules` are loaded, `options` are QEMU's."""

    def __init__(self, space, traces, build, cards, programs, texts, mtu=1500, modules=MODULES, options=()):
        self.space, self.traces, self.cards = space, traces, cards
        self.folder = traces / "machine"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        initramfs = self.folder / "initramfs"
        make_initramfs(initramfs, build, programs, texts, modules)
        argv = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-M", "q35,kernel-irqchip=split", "-cpu", "max", "-smp", "1", "-m", "768", "-no-reboot",
                "-accel", "tcg", "-device", "intel-iommu,intremap=on", "-kernel", GUEST / "vmlinuz", "-initrd", initramfs,
                "-append", "console=ttyS0 intel_iommu=on panic=-1 quiet mitigations=off random.trust_cpu=on no_timer_check tsc=reliable",
                "-chardev", f"file,id=console,path={self.traces / 'console.log'}", "-serial", "chardev:console",
                "-chardev", f"socket,id=shell,path={self.folder / 'shell'},server=on,wait=off", "-serial", "chardev:shell",
                "-monitor", f"unix:{self.folder / 'monitor'},server=on,wait=off"]
        argv += options
        for number, card in enumerate(cards):
            argv += ["-netdev", f"tap,id=net{number},ifname=tap{number},script=no,downscript=no", "-device", f"{CARDS[card]},netdev=net{number},id=card{number},bus=pcie.0,addr={FIRST_SLOT + number}"]
        for number in range(len(cards)):
            space.run("ip", "tuntap", "add", f"tap{number}", "mode", "tap")
            space.run("ip", "address", "add", f"198.18.{40 + number}.1/24", "dev", f"tap{number}")
            space.run("ip", "link", "set", f"tap{number}", "mtu", str(mtu), "up")
        with open(traces / "qemu.err", "wb") as err:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=err, stderr=err, preexec_fn=self._prepare, start_new_session=True)
        self._pending = b""
        try:
            self._shell = self._connect("shell")
            self._answer(150)  # its init is there; 4 s where nobody else has the processors
        except Exception:
            self.close()
            raise

    def _prepare(self):
        beds.die_with_parent()
        self.space.enter()

    def _connect(self, name):
        link = socket.socket(socket.AF_UNIX)

        def reached():
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU ended: {(self.traces / 'qemu.err').read_text()}")
            return link.connect_ex(str(self.folder / name)) == 0  # bound, it may not listen yet

        beds.wait_until(reached, 20, "QEMU's socket")
        return link

    def _answer(self, seconds):
        left = seconds  # in looks of a second: a machine that is stopped for a while is not late
        while True:
            lines = self._pending.split(b"\n")
            for index, line in enumerate(lines[:-1]):
                if line.startswith(b"::"):
                    self._pending = b"\n".join(lines[index + 1:])
                    return int(line[2:]), b"\n".join(lines[:index]).decode(errors="replace")
            self._shell.settimeout(1)
            try:
                got = self._shell.recv(65536)
            except TimeoutError:
                left -= 1
                if left < 0:
                    raise TimeoutError(f"no answer in {seconds} s, but {self._pending.decode(errors='replace')}") from None
                continue
            if not got:
                raise RuntimeError(f"the machine ended: {(self.traces / 'console.log').read_text()[-2000:]}")
            self._pending += got

    def run(self, command, seconds=60, fails=False):
        """One line for the machine's shell; what it printed. An exit code that is not 0 raises, unless it may fail."""
        self._shell.sendall(command.encode() + b"\n")
        code, output = self._answer(seconds)
        if code != 0 and not fails:
            raise RuntimeError(f"{command}: exit code {code}\n{output}")
        return output

    def monitor(self, command):
        link = self._connect("monitor")
        link.settimeout(10)
        text = b""
        for words in (None, command):
            if words is not None:
                link.sendall(words.encode() + b"\n")
                text = b""
            while not text.endswith(b"(qemu) "):
                text += link.recv(4096)
        link.close()
        return text.decode(errors="replace")

    def address(self, number):
        return f"0000:00:{FIRST_SLOT + number:02x}.0"

    def take_card(self, number):
        """Gives it to vfio-pci."""
        device = f"/sys/bus/pci/devices/{self.address(number)}"
        self.run(f"echo vfio-pci > {device}/driver_override && echo {self.address(number)} > /sys/bus/pci/drivers_probe && readlink {device}/driver")

    def environment(self, number, **more):
        settings = {"LD_PRELOAD": "/zps/libzpstack.so", "ZPS_WIRE": f"device:{self.address(number)}", "ZPS_IP": f"198.18.{40 + number}.2/24", "ZPS_GATEWAY": f"198.18.{40 + number}.1", **more}
        return " ".join(f"{key}={value}" for key, value in settings.items())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
