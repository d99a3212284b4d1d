"""What a figure depends on beside the code: the machine, its settings, the versions of the programs, who ran where."""
# SPDX-License-Identifier: BSD-3-Clause
import os
import pathlib
import platform
import re
import shutil
import subprocess

from sides import apart

ROOT = pathlib.Path(__file__).resolve().parents[2]
SETTINGS = ("net/core/somaxconn", "net/core/rmem_max", "net/core/wmem_max", "net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem", "net/ipv4/tcp_congestion_control",
            "net/ipv4/tcp_tw_reuse", "net/ipv4/ip_local_port_range", "vm/mmap_min_addr", "vm/nr_hugepages", "kernel/sched_autogroup_enabled")
VERSIONS = {
    "redis-server": "--version", "redis-benchmark": "--version", "nginx": "-v", "wrk": "-v", "memcached": "--version", "haproxy": "-v", "openssl": "version",
    "postgres": "--version", "mariadbd": "--version", "varnishd": "-V",
}


def read(path):
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return None


def first(pattern, text):
    found = re.search(pattern, text or "", re.MULTILINE)
    return found[1].strip() if found else None


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout + done.stderr).strip() or None


def versions(programs):
    told = {}
    for program in programs:
        if shutil.which(program):
            lines = [line for line in (output(program, VERSIONS[program]) or "").splitlines() if re.search(r"\d+\.\d+", line)]
            told[program] = lines[0][:100] if lines else None
    return told


def topology():
    """Processors, which of them share a core, their caches and how deeply they may sleep."""
    base = pathlib.Path("/sys/devices/system/cpu")
    caches = {f"L{read(index / 'level')} {read(index / 'type')}": read(index / "size") for index in sorted((base / "cpu0/cache").glob("index*"))}
    server, client = apart()
    return {"processors": os.cpu_count(), "share_a_core": sorted({read(path) or "?" for path in base.glob("cpu[0-9]*/topology/thread_siblings_list")}),
            "caches": caches, "idle_driver": read(base / "cpuidle/current_driver"), "governor": read(base / "cpu0/cpufreq/scaling_governor"),
            "numa_nodes": len(list(pathlib.Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1,
            "server_on": sorted(server) if server else "all", "client_on": sorted(client) if client else "all"}


def facts(options):
    """For "host" of the JSON, and for who reads the table."""
    cpuinfo, memory = read("/proc/cpuinfo"), read("/proc/meminfo")
    return {
        "machine": first(r"^model name\s*:(.*)", cpuinfo), "mhz": first(r"^cpu MHz\s*:(.*)", cpuinfo), "virtual": output("systemd-detect-virt") or "unknown",
        "memory_mb": int(first(r"^MemTotal:\s+(\d+)", memory) or 0) // 1024, "kernel": f"{platform.system()} {platform.release()}",
        "distribution": first(r'^PRETTY_NAME="(.*)"', read("/etc/os-release")), "load_at_start": os.getloadavg()[0], "topology": topology(),
        "zpstack": output("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown",
        "versions": {**versions(VERSIONS), "dpdk": output("pkg-config", "--modversion", "libdpdk"), "libc": " ".join(platform.libc_ver())},
        "settings": {name.replace("/", "."): read(f"/proc/sys/{name}") for name in SETTINGS} | {key: value for key, value in os.environ.items() if key.startswith("ZPS_")},
        "rounds": options.rounds, "seconds": options.seconds,
    }


def tell(told):
    """One paragraph above the tables, and the versions and settings below it."""
    where = told["topology"]
    print(f"{told['machine']}, {where['processors']} processors, {told['memory_mb']} MB ({told['virtual']}); {told['distribution']}, {told['kernel']}; zpstack {told['zpstack']}; "
          f"server on {where['server_on']}, client on {where['client_on']}; {told['rounds']} rounds of {told['seconds']:g} s; load {told['load_at_start']:.1f}")
    for what in ("versions", "settings"):
        print(f"{what}: " + ", ".join(f"{name} {' '.join(str(value).split())}" for name, value in told[what].items() if value is not None))
    print(flush=True)
