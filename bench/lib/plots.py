"""The plots of bench/report, each as SVG from the rows and sides of a run's JSON (rows.py). A plot without data is None and has no place on the page.

Every bar and line has an id with `mark` in it: a test counts them in a browser.
"""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import io
import re

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

COLOURS = {"memif": "#0b6e99", "default": "#e0762f", "loopback": "#7d8590", "veth": "#b9bfc7", "unix": "#5d9c59", "io-threads": "#b59a2d", "peer": "#8759a5", "free": "#2b2f36"}
NAMES = {"memif": "zpstack, memif", "default": "zpstack, default wire", "loopback": "kernel, loopback", "veth": "kernel, veth", "unix": "kernel, Unix socket",
         "io-threads": "kernel, io-threads", "peer": "peer", "free": "reads and writes that cost nothing"}
STAGE_COLOURS = {"program": "#3d444d", "libc": "#7d8590", "hook": "#c03a2b", "system calls": "#e0762f", "sockets and epoll": "#efae62", "memory": "#d9a5b3", "waiting, locks": "#f6dfa4", "TCP beside lwIP": "#7fc0c9",
                 "lwIP": "#0b6e99", "stack's turn": "#4f9fbd", "wire": "#8759a5", "copying": "#5d9c59"}
LESS_IS_BETTER = ("MB", "% of a processor", "ns", "ms", "s", "instructions")
SETTINGS = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa1ab",
            "axes.grid": True, "grid.color": "#e4e7eb", "grid.linewidth": 0.8, "axes.axisbelow": True, "xtick.color": "#57606a", "ytick.color": "#24292f", "legend.frameon": False}


@dataclasses.dataclass
class Plot:
    name: str
    title: str
    says: str  # how it is to be read
    svg: str


def drawn(name, title, says, figure):
    """The figure as an SVG element whose ids are its own among all on the page."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    svg = out.getvalue()[out.getvalue().index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    width = re.search(r'width="([\d.]+)pt"', svg)[1]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
    return Plot(name, title, says, svg.replace("<svg", f'<svg role="img" aria-label="{title}" style="max-width: {float(width) * 4 / 3:.0f}px"', 1))


def marked(artists, first):
    for number, artist in enumerate(artists, first):
        artist.set_gid(f"mark-{number}")


def colour(side):
    return COLOURS.get(side, "#444")


def short(value):
    """At most three digits that count: 1.2M, 950k, 12.5."""
    for limit, divisor, letter in ((1e6, 1e6, "M"), (1e3, 1e3, "k")):
        if value >= limit:
            return f"{value / divisor:.3g}{letter}"
    return f"{value:.3g}"


def wires_in(rows):
    return [wire for wire in ("memif", "default") if any(row["wire"] == wire for row in rows)]


def grouped_bars(axes, labels, groups, text):
    """Horizontal bars: groups is {side: [value or None for each label]}; text(value) stands behind each bar."""
    height = 0.8 / len(groups)
    count = 0
    for place, (side, values) in enumerate(groups.items()):
        there = [(at + place * height - 0.4 + height / 2, value) for at, value in enumerate(values) if value is not None]
        bars = axes.barh([at for at, _ in there], [value for _, value in there], height * 0.92, color=colour(side), label=NAMES.get(side, side))
        marked(bars, count)
        count += len(bars)
        for at, value in there:
            axes.annotate(text(value), (value, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color="#57606a")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def speedups(rows, _):
    rows = [row for row in rows if row["ratio_loopback"] and row["unit"] not in LESS_IS_BETTER and not row["case"].startswith(("price", "compare")) and "bound" not in row]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    if not cases:
        return None
    by_key = {(row["case"], row["wire"]): row["ratio_loopback"] for row in rows}
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.34 * len(cases)))
    grouped_bars(axes, cases, {wire: [by_key.get((case, wire)) for case in cases] for wire in wires_in(rows)}, lambda value: f"{value:.2f}")
    axes.set_xscale("log")
    axes.axvline(1, color="#24292f", linewidth=1)
    low, high = min(by_key.values()), max(by_key.values())
    axes.set_xlim(min(0.5, low * 0.8), max(2, high * 1.4))
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("zpstack / kernel loopback")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=2)
    return drawn("speedup", "Times the kernel's loopback", "Bars beyond the line at 1 are faster than the same two programs over the kernel's loopback. Logarithmic.", figure)


FAMILIES = {"redis GET": r"get c(\d+) P1", "nginx, short answer": r"hello c(\d+)", "echo of 64 bytes": r"(?:scale|echo 64) c(\d+)"}


def apart(ticks):
    """Those of ascending ticks whose numbers do not run into each other on a logarithmic axis."""
    kept = []
    for tick in ticks:
        if not kept or tick >= 4 * kept[-1]:
            kept.append(tick)
    return kept


def throughput(_, sides):
    """{family: {side: [(connections, median, least, most)]}}"""
    found = {}
    for one in sides:
        for family, pattern in FAMILIES.items():
            match = re.fullmatch(pattern, one["case"])
            if match and "rate" in one and one["side"] in ("memif", "default", "loopback", "veth"):
                found.setdefault(family, {}).setdefault(one["side"], {})[int(match[1])] = (one["rate"], one["min"], one["max"])
    found = {family: lines for family, lines in found.items() if max(len(points) for points in lines.values()) > 1}
    if not found:
        return None
    figure, all_axes = pyplot.subplots(1, len(found), figsize=(4.6 * len(found), 3.8), squeeze=False)
    for axes, (family, lines) in zip(all_axes[0], found.items()):
        for number, (side, points) in enumerate(lines.items()):
            connections = sorted(points)
            rates, low, high = zip(*(points[at] for at in connections))
            marked(axes.plot(connections, rates, marker="o", markersize=4, color=colour(side), label=NAMES[side]), number)
            if None not in (*low, *high):
                axes.fill_between(connections, low, high, color=colour(side), alpha=0.15, linewidth=0)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = apart(sorted({at for points in lines.values() for at in points}))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
        axes.set_xlabel("connections")
        axes.set_title(family, fontsize=11)
    all_axes[0][0].set_ylabel("requests/s")
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=4)
    figure.tight_layout()
    return drawn("throughput", "Throughput over connections", "Medians; the band is from the least to the most of the rounds. Both axes logarithmic.", figure)


LATENCY_CASES = ("get c1 P1", "get c50 P1", "get c512 P1", "hello c1", "hello c50", "1k c50", "100k c50", "tls 1k c50", "close c50", "connrate c50", "echo 64 c1", "echo 64 c50")
MOST_DISTRIBUTIONS = 6


def latency(_, sides):
    """Times over percentages, as HDR histograms are drawn: each step to the right is ten times rarer."""
    found = {}
    for one in sides:
        points = [(percent, us) for percent, us in one.get("latency_us", []) if 0 < percent < 100 and us > 0]
        if one["case"] in LATENCY_CASES and one["side"] in NAMES and len(points) > 2:
            found.setdefault(one["case"], {})[one["side"]] = points
    chosen = [case for case in LATENCY_CASES if case in found][:MOST_DISTRIBUTIONS]
    if not chosen:
        return None
    across = min(3, len(chosen))
    figure, all_axes = pyplot.subplots(-(-len(chosen) // across), across, figsize=(4.6 * across, 3.4 * -(-len(chosen) // across)), squeeze=False)
    for axes in all_axes.flat[len(chosen):]:
        axes.remove()
    for axes, case in zip(all_axes.flat, chosen):
        for number, (side, points) in enumerate(found[case].items()):
            marked(axes.plot([100 / (100 - percent) for percent, _ in points], [us for _, us in points], color=colour(side), label=NAMES[side], linewidth=1.8), number)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([2, 10, 100, 1000, 10000], ["50", "90", "99", "99.9", "99.99"])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{short(value)} us" if value < 1000 else f"{value / 1000:g} ms")
        axes.set_title(case, fontsize=11)
        axes.set_xlabel("per cent of the answers")
    handles, labels = all_axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=5)
    figure.tight_layout()
    return drawn("latency", "Times to the answer", "How long the given share of the answers took at most. Clients ask again when they have their answer: throughput and times belong together.", figure)


def processor_cost(_, sides):
    known = [one for one in sides if one.get("server", {}).get("cpu_us") and one["client"].get("cpu_us") and one["unit"] == "requests/s" and one["side"] in ("memif", "default", "loopback", "veth")]
    wanted = [case for case in (*LATENCY_CASES, "1m c8") if any(one["case"] == case for one in known)][:8]
    bars = [(case, side) for case in wanted for side in ("memif", "default", "loopback", "veth") if any((one["case"], one["side"]) == (case, side) for one in known)]
    if not bars:
        return None
    by_key = {(one["case"], one["side"]): one for one in known}
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.24 * len(bars)))
    parts = [(by_key[key]["server"]["cpu_us"], by_key[key]["client"]["cpu_us"]) for key in bars]
    places = [at + 0.5 * wanted.index(case) for at, (case, _) in enumerate(bars)]
    marked(axes.barh(places, [sum(both) for both in parts], 0.8, color=[colour(side) for _, side in bars]), 0)
    for place, (one, other) in zip(places, parts):
        axes.annotate(f"{one:.2f} + {other:.2f}", (one + other, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color="#57606a")
    axes.set_yticks(places, [f"{case}   {side}" for case, side in bars], fontsize=8)
    axes.set_ylim(places[-1] + 0.7, -0.7)
    axes.grid(axis="y", visible=False)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlabel("us of processor time for a request; at the right server + client")
    return drawn("processor", "Processor time of a request", "Server and client together, in the middle half of each measurement. A waiting side that spins pays for it. Logarithmic.", figure)


def stages(rows, _):
    rows = [row for row in rows if row.get("stages")]
    if not rows:
        return None
    bars = [(row["case"].removeprefix("stages "), side, row[key]) for row in rows for side, key in (("zpstack", "stages"), ("kernel", "stages_loopback"))]
    order = [stage for stage in STAGE_COLOURS if any(stage in taken for _, _, taken in bars)]
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.34 * len(bars)))
    ends = [0] * len(bars)
    totals = [sum(taken.values()) for _, _, taken in bars]
    for number, stage in enumerate(order):
        shares = [taken.get(stage, 0) / total * 100 for (_, _, taken), total in zip(bars, totals)]
        drawn_bars = axes.barh(range(len(bars)), shares, 0.78, left=ends, color=STAGE_COLOURS[stage], label=stage)
        marked([bar for bar, share in zip(drawn_bars, shares) if share], number * len(bars))
        ends = [end + share for end, share in zip(ends, shares)]
    for place, total in enumerate(totals):
        axes.annotate(f"{total:,}", (100, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color="#57606a")
    axes.set_yticks(range(len(bars)), [f"{case}   {side}" for case, side, _ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("per cent of the server's instructions for a request; their number at the right")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=6, fontsize=8)
    return drawn("stages", "Work for a request, stage by stage", "Instructions of the server's process. What the kernel does natively is not among the kernel's: its share of a request is not in this plot.", figure)


def price(rows, _):
    rows = [row for row in rows if row["case"].startswith("price ") and row.get("loss_percent") is not None and not row["case"].startswith("price symbols")]
    if not rows:
        return None
    by_key = {tuple(row["case"].split()[1:3]): row["loss_percent"] for row in rows}
    hooks, loads = list(dict.fromkeys(hook for hook, _ in by_key)), list(dict.fromkeys(load for _, load in by_key))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.3 * len(by_key)))
    shades = ("#0b6e99", "#4f9fbd", "#9cc9da")
    height = 0.8 / len(loads)
    for place, load in enumerate(loads):
        values = [by_key.get((hook, load), 0) for hook in hooks]
        places = [at + place * height - 0.4 + height / 2 for at in range(len(hooks))]
        marked(axes.barh(places, values, height * 0.92, color=shades[place % len(shades)], label=load.replace("c", "") + (" client" if load == "c1" else " clients")), place * len(hooks))
        for at, value in zip(places, values):
            axes.annotate(f"{value:.1f} %", (max(value, 0), at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8, color="#57606a")
    axes.set_yticks(range(len(hooks)), hooks)
    axes.set_ylim(len(hooks) - 0.4, -0.6)
    axes.set_xlim(min(0, *by_key.values()) - 2, 108)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("per cent of redis-server's rate that the hook costs, beside an exchange of libc's functions")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3)
    return drawn("price", "The price of the hook", "The same program on the same stack; only how its system calls reach the stack differs. Below zero is noise.", figure)


def bounds(rows, _):
    rows = [row for row in rows if row.get("bound")]
    if not rows:
        return None
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.5 * len(rows)))
    groups = {"memif": [row["zpstack"] for row in rows], "loopback": [row["kernel_loopback"] for row in rows], "free": [row["bound"] for row in rows]}
    grouped_bars(axes, [row["case"] for row in rows], groups, short)
    axes.xaxis.set_major_formatter(lambda value, _: short(value) if value else "0")
    axes.set_xlabel("requests/s")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3)
    return drawn("bound", "What no stack can exceed", "The dark bar is the program alone: all connections always have a request, every answer is taken at once.", figure)


PLOTS = (speedups, throughput, latency, processor_cost, stages, price, bounds)


def all_of(told):
    """The plots for which a run's JSON has data."""
    with matplotlib.rc_context(SETTINGS):
        made = [plot(told["rows"], told.get("sides", [])) for plot in PLOTS]
    return [plot for plot in made if plot]
