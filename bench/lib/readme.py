"""README's table: the rows of docs/measured.json that say most, between two marks in README.md; scripts/update-docs writes it and a test compares."""
# SPDX-License-Identifier: BSD-3-Clause
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEASURED = ROOT / "docs" / "measured.json"
BEGIN, END = "<!-- measured: written by scripts/update-docs from docs/measured.json -->\n", "<!-- measured: end -->\n"
# What is said of a case, and the cases' names; of each wire those that were measured.
SHOWN = (
    ("Redis GET, {c} client{s}", r"get c(?P<c>\d+) P1"), ("Redis SET, {c} client{s}", r"set c(?P<c>\d+) P1"),
    ("Redis GET, {c} clients, pipeline of {p}", r"get c(?P<c>\d+) P(?P<p>16)"), ("Redis SET, {c} clients, pipeline of {p}", r"set c(?P<c>\d+) P(?P<p>16)"),
    ("nginx, short answer, {c} clients", r"hello c(?P<c>50|4000)"), ("nginx, file of 1 KB, {c} clients", r"1k c(?P<c>50)"), ("nginx, file of 100 KB, {c} clients", r"100k c(?P<c>50)"),
    ("nginx, 1 KB by TLS, {c} clients", r"tls 1k c(?P<c>50)"), ("a connection for each request, {c} clients", r"connrate c(?P<c>50)"),
    ("bulk to the server, {c} connection{s}", r"bulk (?P<c>\d+) up"), ("bulk from the server, {c} connection{s}", r"bulk (?P<c>\d+) down"),
)
WIRES = (("memif", "**both programs prefixed, over memif**"), ("default", "**an ordinary client, over the default wire**"))


def name_of(case):
    for text, pattern in SHOWN:
        match = re.fullmatch(pattern, case)
        if match:
            return text.format(**match.groupdict(), s="" if match["c"] == "1" else "s")
    return None


def figure(value, unit):
    return "" if value is None else f"{value:,.0f}" if unit != "Gbit/s" else f"{value:.1f} Gbit/s"


def times(value):
    return "" if value is None else f"{value:.2f}" if value < 2 else f"{value:.1f}"


def lines_of(row):
    cells = [name_of(row["case"]), figure(row["zpstack"], row["unit"]), figure(row["kernel_loopback"], row["unit"]), times(row["ratio_loopback"]), times(row["ratio_veth"])]
    return "| " + " | ".join(cells) + " |"


def machine(host):
    """Where the figures are from, in a sentence."""
    where = host.get("said_as") or ", ".join(str(part) for part in (host.get("machine"), host.get("distribution"), host.get("kernel")) if part)
    rounds = f"; medians of {host['rounds']} interleaved rounds" if host.get("rounds") else ""
    return f"Requests per second where no other unit stands, on {where}, server and client on a core each{rounds}:"


def block(told):
    """The text between the marks."""
    lines = [machine(told["host"]), "", "| case | zpstack | kernel loopback | ratio | to veth |", "|---|---|---|---|---|"]
    for wire, title in WIRES:
        rows = [row for row in told["rows"] if row.get("wire") == wire and name_of(row["case"]) and "bound" not in row]
        if rows:
            lines += [f"| {title} | | | | |", *map(lines_of, rows)]
    return "\n".join(lines) + "\n"


def filled(page, told):
    """README's text with the block in its place."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError("README.md has no marks for the table")
    return before + BEGIN + block(told) + END + after
