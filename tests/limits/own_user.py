#!/usr/bin/env python3
"""mariadbd and squid as their services start them: root at first, a user of their own before they listen.

They are asked from the other end of the wire, and ended by SIGTERM.

  own_user.py --build build/release --mode kernel|zpstack-veth mariadb|squid
"""
# SPDX-License-Identifier: BSD-3-Clause
import argparse
import pathlib
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import bed as beds  # noqa: E402

PORT = 7014
ORIGIN_PORT = 7015
ROUNDS = 8


class Daemon:
    """What it is started with, and what a client at the other end of the wire is told."""

    def __init__(self, bed, user):
        self.bed = bed
        bed.scratch.chmod(0o711)  # its folder lies there
        self.folder = bed.scratch / user
        self.folder.mkdir()
        shutil.chown(self.folder, user)

    def ask(self, *words, text=None):
        """Runs the client; its output, or None if it fails."""
        client = self.bed.spawn_peer([*self.client, *words], name="client", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        out, _ = client.communicate(text, timeout=30)
        return out if client.returncode == 0 else None


class Mariadb(Daemon):
    def __init__(self, bed):
        super().__init__(bed, "mysql")
        small = ["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-data-file-path=ibdata1:10M:autoextend"]
        own = [f"--datadir={self.folder}", f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"]
        self.argv = ["/usr/sbin/mariadbd", "--no-defaults", "--user=mysql", *own, *small, "--skip-grant-tables", "--skip-name-resolve",
                     "--bind-address=0.0.0.0", f"--port={PORT}"]
        self.client = ["mariadb", "--no-defaults", "-N", "-h", bed.sut_address, "-P", PORT, "-u", "root"]

    def answers(self):
        return self.ask(text=b"create database a; create table a.t (i int primary key, t longtext) engine=innodb") is not None

    def problem(self):
        for i in range(ROUNDS):
            told = self.ask(text=f"insert into a.t values ({i}, repeat('{i % 10}', 100000)); select count(*), sum(length(t)) from a.t".encode())
            if told != f"{i + 1}\t{(i + 1) * 100000}\n".encode():
                return f"after {i + 1} rows: {told}"
        told = self.ask(text=b"select t from a.t where i = 7")
        return None if told == b"7" * 100000 + b"\n" else "a wrong row"


SQUID_SETTINGS = """
http_port 0.0.0.0:{port}
http_access allow all
cache_mem 8 MB
max_filedescriptors 1024
cache_log {folder}/cache.log
access_log none
pid_filename {folder}/squid.pid
coredump_dir {folder}
visible_hostname squid.test
pinger_enable off
dns_nameservers 127.0.0.1
shutdown_lifetime 0 seconds
"""

# A page says how many have been asked for: a proxy that has it does not ask again.
ORIGIN = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    count = 0
    def do_GET(self):
        Page.count += 1
        page = str(Page.count).encode().rjust(200000)
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(page)
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Page).serve_forever()
"""


class Squid(Daemon):
    def __init__(self, bed):
        super().__init__(bed, "proxy")
        settings = self.folder / "squid.conf"
        settings.write_text(SQUID_SETTINGS.format(port=PORT, folder=self.folder))
        self.argv = ["/usr/sbin/squid", "--foreground", "-YC", "-f", settings]
        bed.spawn_peer([sys.executable, "-S", "-c", ORIGIN, ORIGIN_PORT], name="origin")
        self.client = ["curl", "-s", "-S", "-f", "-m", "10", "-x", f"http://{bed.sut_address}:{PORT}"]

    def page(self, name):
        return self.ask(f"http://{self.bed.peer_address}:{ORIGIN_PORT}/{name}")

    def answers(self):
        return self.page("first") is not None

    def problem(self):
        for i in range(ROUNDS):
            told = self.page(i // 2)
            if told != str(2 + i // 2).encode().rjust(200000):
                return f"page {i // 2}: {told[-10:] if told else told}"
        return None


DAEMONS = {"mariadb": Mariadb, "squid": Squid}


def run(bed, which):
    daemon = DAEMONS[which](bed)
    process = bed.spawn_sut(daemon.argv, name="daemon", cwd=daemon.folder)
    beds.wait_until(lambda: process.poll() is not None or daemon.answers(), 30, "the first answer", step=0.1)
    if process.poll() is not None:
        return f"it ended with {process.returncode}"
    if problem := daemon.problem():
        return problem
    process.send_signal(signal.SIGTERM)
    code = process.wait(30)
    return f"after SIGTERM it ended with {code}" if code != 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=DAEMONS)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--mode", choices=beds.MODES, required=True)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    traces = options.build / "test-traces" / f"own-user-{options.which}-{options.mode}"
    with beds.Bed(options.mode, options.build, traces, options.pcap) as bed:
        try:
            problem = run(bed, options.which)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            problem = str(error)
            bed.explain_hang()
    return beds.conclude(problem, traces, "*.err")


if __name__ == "__main__":
    sys.exit(main())
