"""The rows of the one table, for people and as JSON: a row for each case and wire, with the kernel's figures beside ours.

    {"case": "get c50 P1", "wire": "memif", "unit": "requests/s", "zpstack": .., "min": .., "max": .., "kernel_loopback": .., "kernel_veth": ..,
     "ratio_loopback": .., "ratio_veth": .., "p50_us": .., "p99_us": .., "cpu_s": .., "switches": ..}

`zpstack` is the median of the rounds, `min` and `max` are its extremes; a ratio is ours to the kernel's. `cpu_s` and `switches` are those of server and
client together, for one of what the unit counts. What was not measured is null. Wire `host`: no wire is part of it. A baseline that only some programs
have adds a key of its own (`kernel_unix`, `kernel_io_threads`, `peer`). What each side did by itself is a list beside the rows (`side`).
"""
# SPDX-License-Identifier: BSD-3-Clause
from figures import distribution, rounded, summary

KEYS = ("case", "wire", "unit", "zpstack", "min", "max", "kernel_loopback", "kernel_veth", "ratio_loopback", "ratio_veth", "p50_us", "p99_us", "cpu_s",
        "switches")
OURS = ("memif", "default")
BASELINES = {"loopback": "kernel_loopback", "veth": "kernel_veth", "unix": "kernel_unix", "io-threads": "kernel_io_threads", "peer": "peer"}


def row(case, wire, unit, **figures):
    """A row with all keys of the shape; what is not given is null."""
    return {**dict.fromkeys(KEYS), "case": case, "wire": wire, "unit": unit, **figures}


def both(figures, name):
    """The price that server and client pay together, or None if one of them is not known."""
    parts = (figures[name], figures[f"client_{name}"])
    return None if None in parts else sum(parts)


def ratio(ours, theirs):
    return round(ours / theirs, 3) if ours is not None and theirs else None


def shaped(case, unit, measured):
    """The rows of a case: `measured` has lists of Figures by the side's name (sides.py)."""
    summaries = {name: summary(figures) for name, figures in measured.items() if figures}
    beside = {key: summaries[name]["rate"] for name, key in BASELINES.items() if name in summaries}
    out = []
    for wire in OURS:
        if wire not in summaries:
            continue
        ours = summaries[wire]
        cpu_us = both(ours, "cpu_us")
        ratios = {key.replace("kernel_", "ratio_") if key != "peer" else "ratio_peer": ratio(ours["rate"], rate) for key, rate in beside.items()}
        out.append(row(case, wire, unit, zpstack=ours["rate"], min=ours["min"], max=ours["max"], p50_us=ours["p50_us"], p99_us=ours["p99_us"],
                       cpu_s=None if cpu_us is None else float(f"{cpu_us * 1e-6:.4g}"), switches=both(ours, "switches"), **beside, **ratios))
    return out


def side(case, name, unit, figures):
    """What one side did in one case: for the report."""
    told = summary(figures)
    return {"case": case, "side": name, "unit": unit, **{key: told[key] for key in ("rate", "min", "max", "p50_us", "p99_us")},
            "rounds": [rounded(one.rate) for one in figures],
            "server": {"cpu_us": told["cpu_us"], "switches": told["switches"]},
            "client": {"cpu_us": told["client_cpu_us"], "switches": told["client_switches"]},
            "latency_us": distribution(figures)}


HEADING = (f"{'case':<22}{'wire':<9}{'zpstack':>12}  {'(least to most)':<23}{'loopback':>12}{'veth':>12}{'/loopback':>10}{'/veth':>7}{'p50 us':>9}{'p99 us':>9}"
           f"{'CPU us':>8}{'switches':>9}  unit")


def cell(value, width, digits=0):
    return f"{'-' if value is None else format(value, f',.{digits}f'):>{width}}"


def digits_of(value):
    return 0 if value is None or abs(value) >= 1000 else 2


def tell(one):
    """Prints a row; what else it was compared with below it."""
    spread = f"({one['min']:,.{digits_of(one['min'])}f} to {one['max']:,.{digits_of(one['max'])}f})" if one["min"] is not None else ""
    cpu_us = None if one["cpu_s"] is None else one["cpu_s"] * 1e6
    print(f"{one['case']:<22}{one['wire']:<9}{cell(one['zpstack'], 12, digits_of(one['zpstack']))}  {spread:<23}"
          f"{cell(one['kernel_loopback'], 12, digits_of(one['kernel_loopback']))}{cell(one['kernel_veth'], 12, digits_of(one['kernel_veth']))}"
          f"{cell(one['ratio_loopback'], 10, 2)}{cell(one['ratio_veth'], 7, 2)}{cell(one['p50_us'], 9)}{cell(one['p99_us'], 9)}{cell(cpu_us, 8, 2)}"
          f"{cell(one['switches'], 9, 2)}  {one['unit']}", flush=True)
    for name, key in BASELINES.items():
        if key in one and key not in KEYS:
            print(f"{'':<31}{one[key]:>12,.0f}  over {name}: {one[key.replace('kernel_', 'ratio_') if key != 'peer' else 'ratio_peer']:.2f}")
