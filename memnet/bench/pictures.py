"""What was measured of works of different sizes, as curves."""

import re
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from memnet.bench.measuring import Comparison
from memnet.bench.report import quantity

_SIZED = re.compile(r"(?P<size>[\d,]+) (?P<unit>[a-z]+)(, (?P<what>.+))?")
_NAMES = {"s": "time", "B": "memory"}
_PANEL = 4.2, 3.6  # inches
DOTS_PER_INCH = 150

Curves = dict[str, list[tuple[float, float]]]
"""Each way's sizes and medians."""


def draw(results: Mapping[str, Sequence[Comparison]]) -> Figure | None:
    """A panel for all works of a benchmark that differ in size only, both axes logarithmic.

    A work has a size if its title begins with one: ``1,024 slots, time of a step``.

    Args:
        results: the benchmarks' comparisons.

    Returns:
        The picture; None if there are no two works to be joined by a line.
    """
    panels: dict[tuple[str, str, str, str], Curves] = {}
    for name, comparisons in results.items():
        for comparison in comparisons:
            sized = _SIZED.fullmatch(comparison.work)
            if sized is None or comparison.unit not in _NAMES:
                continue
            key = name, sized["unit"], sized["what"] or _NAMES[comparison.unit], comparison.unit
            for row in comparison.rows:
                points = panels.setdefault(key, {}).setdefault(row.way, [])
                points.append((float(sized["size"].replace(",", "")), row.median))
    panels = {key: curves for key, curves in panels.items() if max(map(len, curves.values())) > 1}
    if not panels:
        return None
    width, height = _PANEL
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    ways = list(dict.fromkeys(way for curves in panels.values() for way in curves))
    shown: dict[str, Line2D] = {}
    for axes, ((name, unit, what, measured), curves) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for way, points in curves.items():
            sizes, medians = zip(*sorted(points), strict=True)
            number = ways.index(way)
            (shown[way],) = axes.plot(
                sizes, medians, f"C{number}", marker="osD^v*"[number % 6], markersize=4, label=way
            )
        _scale(axes, measured)
        axes.set(title=f"{name}: {what}", xlabel=unit)
    figure.legend(handles=[*shown.values()], loc="outside lower center", ncols=1 + len(panels), fontsize="small")
    return figure


def _scale(axes: Axes, unit: str) -> None:
    binary = unit == "B"
    axes.set_xscale("log")
    axes.set_yscale("log", base=2 if binary else 10)
    axes.yaxis.set_major_locator(LogLocator(base=4) if binary else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda median, _: quantity(median, unit)))
    axes.grid(alpha=0.3)
