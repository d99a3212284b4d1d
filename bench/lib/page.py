"""The page of bench/report: plots, the table, the machine, in one HTML file (page.html has the frame)."""
# SPDX-License-Identifier: BSD-3-Clause
import hashlib
import html
import json
import pathlib

import plots

FRAME = pathlib.Path(__file__).with_name("page.html")
# Heading, key of the row, digits behind the point (None: as it is).
COLUMNS = (("case", "case", None), ("wire", "wire", None), ("zpstack", "zpstack", 2), ("least", "min", 2), ("most", "max", 2), ("loopback", "kernel_loopback", 2),
           ("veth", "kernel_veth", 2), ("/ loopback", "ratio_loopback", 2), ("/ veth", "ratio_veth", 2), ("p50 us", "p50_us", 1), ("p99 us", "p99_us", 1),
           ("CPU us", "cpu_s", 2), ("switches", "switches", 3), ("unit", "unit", None))


def cell(row, key, digits):
    value = row.get(key)
    if key == "cpu_s" and value is not None:
        value *= 1e6
    if value is None:
        return '<td data-value=""></td>'
    text = html.escape(str(value)) if digits is None else f"{value:,.{0 if abs(value) >= 1000 else digits}f}"
    good = ""
    if key.startswith("ratio") and row["unit"] not in plots.LESS_IS_BETTER:
        good = ' class="better"' if value >= 1.05 else ' class="worse"' if value < 0.95 else ""
    return f'<td data-value="{html.escape(str(value))}"{good}>{text}</td>'


def facts(told, prefix=""):
    """Pairs of names and texts; what is nested has its way for a name."""
    for key, value in told.items():
        if isinstance(value, dict):
            yield from facts(value, f"{prefix}{key} ")
        elif value is not None:
            yield f"{prefix}{key}".replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def summary(host):
    """One line: where the figures are from."""
    where = host.get("topology", {})
    known = [host.get("machine"), f"{where['processors']} processors" if "processors" in where else None, host.get("distribution"), host.get("kernel"),
             f"medians of {host['rounds']} interleaved rounds" if host.get("rounds") else None,
             f"server on processor {listed(where['server_on'])}, client on {listed(where['client_on'])}" if "server_on" in where else None]
    return "; ".join(str(part) for part in known if part)


def listed(processors):
    return ", ".join(map(str, processors)) if isinstance(processors, list) else processors


def digest(text):
    """Says on the page which JSON it is from."""
    return hashlib.sha256(text.encode()).hexdigest()


def render(measured):
    """The page's text, from the JSON's."""
    told = json.loads(measured)
    told["rows"] = [row for row in told["rows"] if "failed" not in row]
    made = plots.all_of(told)
    parts = {
        "digest": digest(measured),
        "summary": html.escape(summary(told["host"])),
        "links": "".join(f'<a href="#{plot.name}">{html.escape(plot.title)}</a>' for plot in made) + '<a href="#table">The table</a>',
        "plots": "\n".join(f'<section id="{plot.name}" class="plot">\n<h2>{html.escape(plot.title)}</h2>\n<p>{html.escape(plot.says)}</p>\n{plot.svg}</section>' for plot in made),
        "headings": "".join(f"<th>{html.escape(heading)}</th>" for heading, _, _ in COLUMNS),
        "rows": "\n".join("<tr>" + "".join(cell(row, key, digits) for _, key, digits in COLUMNS) + "</tr>" for row in told["rows"]),
        "facts": "\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts(told["host"])),
    }
    text = FRAME.read_text()
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text
