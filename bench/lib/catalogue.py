"""The programs that are measured: one file of TOML each in bench/programs and bench/cases, and what its keys mean.

    # The first line says what is measured.
    needs = ["nginx", "wrk"]            # commands without which the file is skipped
    server = "nginx -c @folder@/conf"   # stays in the foreground; SIGTERM ends it
    where = "-h @address@ -p @port@"    # what stands for @where@ in clients
    unit = "Gbit/s"                     # of the client's rate; without it requests/s
    beside = ["..."]                    # commands that run beside it and are never prefixed (what a proxy asks)
    prepare = ["..."]                   # shell commands, once per side, natively, before its first start
    fill = ["..."]                      # shell commands after each start, natively, over loopback (the server's own)
    environment = { ZPS_UDP = "stack" } # of server and client where they are prefixed
    [ways.unix]                         # bench/run NAME: one more baseline, natively: its server (@server@: the one above), its @where@,
    server = "@server@ --unix ..."      # and wide = true if it may use all processors
    [files]                             # written into the folder, values filled in
    [rows."name"]                       # one row each
    client = "wrk -d@seconds@s http://@address@:@port@/"
    with = { workers = "2" }            # values for the places of that name, in the commands and files above

Filled in everywhere: @build@, @bench@ (this folder's parent), @folder@ (the side's own), @port@, @beside_port@; in clients also @address@ and
@seconds@ (whole ones), @exact_seconds@ or @requests@.
"""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import fnmatch
import os
import pathlib
import shlex
import shutil
import tomllib

BENCH = pathlib.Path(__file__).resolve().parents[1]
FOLDER = BENCH / "programs"
CASES = BENCH / "cases"
# Where Debian puts servers, and where PostgreSQL's packages put theirs.
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))])


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    client: str
    values: tuple = ()  # pairs; rows with the same ones share a start of the server


@dataclasses.dataclass(frozen=True)
class Program:
    name: str
    server: str
    rows: tuple
    needs: tuple = ()
    beside: tuple = ()
    prepare: tuple = ()
    fill: tuple = ()
    files: tuple = ()
    where: str = ""
    unit: str = "requests/s"
    environment: dict = dataclasses.field(default_factory=dict)
    ways: dict = dataclasses.field(default_factory=dict)

    def missing(self):
        return [command for command in self.needs if not shutil.which(command, path=SEARCHED)]

    def starts(self):
        """The rows in groups that share a start of the server, by the values of each."""
        groups = {}
        for row in self.rows:
            groups.setdefault(row.values, []).append(row)
        return groups.items()


def fill_in(text, values):
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def split(command, values):
    return [fill_in(word, values) for word in shlex.split(command)]


def read(path):
    entry = tomllib.loads(path.read_text())
    rows = tuple(Row(name, row["client"], tuple(sorted(row.get("with", {}).items()))) for name, row in entry.pop("rows").items())
    files = tuple(entry.pop("files", {}).items())
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Program(name=path.stem, rows=rows, files=files, **lists)


def programs(patterns, folder=FOLDER):
    """All that have rows whose names match one of the patterns, with these rows only."""
    chosen = []
    for path in sorted(folder.glob("*.toml")):
        program = read(path)
        rows = tuple(row for row in program.rows if any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns))
        if rows:
            chosen.append(dataclasses.replace(program, rows=rows))
    return chosen
