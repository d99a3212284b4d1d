"""What one measurement yields, and what several come to: medians, least and most."""
# SPDX-License-Identifier: BSD-3-Clause
import dataclasses
import statistics

FIGURES = ("rate", "p50_us", "p99_us", "cpu_us", "switches", "client_cpu_us", "client_switches")


@dataclasses.dataclass
class Figures:
    """One measurement; per request (or what else the rate counts) where it is a price. None: not known."""
    rate: float
    p50_us: float = None
    p99_us: float = None
    cpu_us: float = None  # of the server
    switches: float = None
    client_cpu_us: float = None
    client_switches: float = None
    latency_us: tuple = ()  # pairs: per cent of all answers, microseconds that they did not exceed


def interleave(cases, rounds, measure):
    """measure(case) -> figure or None; every round takes all cases once."""
    figures = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            figure = measure(case)
            if figure is not None:
                figures[case].append(figure)
    return figures


def rounded(value):
    """Two digits behind the point; small values three that count."""
    return round(value, 2) if abs(value) >= 1 else float(f"{value:.3g}")


def middle(values):
    return None if not values or None in values else rounded(statistics.median(values))


def summary(measured):
    """Medians of the rounds; of the rate also least and most."""
    out = {figure: middle([getattr(figures, figure) for figures in measured]) for figure in FIGURES}
    rates = [figures.rate for figures in measured]
    return {**out, "min": rounded(min(rates)), "max": rounded(max(rates))}


def distribution(measured):
    """The medians of the rounds at each of the percentages that all of them tell."""
    percents = [percent for percent, _ in measured[0].latency_us]
    rounds = [dict(figures.latency_us) for figures in measured]
    return [[percent, middle([one[percent] for one in rounds])] for percent in percents if all(percent in one for one in rounds)]
