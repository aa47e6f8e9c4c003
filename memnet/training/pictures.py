"""Figures: an example with its answer and error, where the heads looked, how learning went.

Figures are made without pyplot, which would keep them all alive and pick a backend for the whole process.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

Panel = Float[np.ndarray, "row time"]

_WIDTH = 7.0
# Weights below this are the soft background; the picture shows the slots that were ever really used.
_USED = 0.1
# Positive numbers are black on white, as the bits are.
_SIGNED = LinearSegmentedColormap.from_list("signed", ["tab:blue", "white", "black"])
# Matplotlib's own Reds are pink at zero, which looks like an error everywhere.
_ERRORS = LinearSegmentedColormap.from_list("errors", ["white", "tab:red"])


def draw_example(panels: Mapping[str, Panel], title: str) -> Figure:
    """Panels below one another on a common time axis: input, target, output and error (Graves et al. 2014, figure 4).

    Args:
        panels: name to image, channels by time steps; the time steps are the same.
        title: what is shown.
    """
    heights = [max(panel.shape[0], 3) for panel in panels.values()]
    figure = Figure(figsize=(_WIDTH, 1.0 + 0.11 * sum(heights) + 0.25 * len(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        image = _show_panel(axis, name, panel)
        figure.colorbar(image, ax=axis, fraction=0.02, pad=0.01, ticks=_bar_ticks(image))
    axes[-1].set_xlabel("time step")
    figure.suptitle(title)
    return figure


def draw_weights(
    panels: Mapping[str, Panel], weights: Mapping[str, Float[np.ndarray, "time head slot"]], title: str
) -> Figure:
    """Where every head looked, time to the right and location upwards (Graves et al. 2014, figure 6).

    Writing stands on the left below the input, reading on the right below the output. Where most locations are never
    used, only the span of those that are is shown.

    Args:
        panels: as for ``draw_example``; ``input`` and ``output`` are shown.
        weights: name of an addressing module to its weights for one example.
        title: what is shown.
    """
    outer = {name: each for name, each in weights.items() if not any(name.startswith(f"{other}.") for other in weights)}
    writing = {name: each for name, each in outer.items() if "write" in name}
    reading = {name: each for name, each in outer.items() if "write" not in name}
    columns = [
        (panel, heads)
        for panel, heads in [("input", _heads(writing, "write")), ("output", _heads(reading, "read"))]
        if heads
    ]
    first, last = _used_slots(list(outer.values()))
    rows = max(len(heads) for _, heads in columns)
    above = max(panels[panel].shape[0] for panel, _ in columns)
    height = 2.2 if rows <= 2 else 1.5
    size = (_WIDTH if len(columns) == 1 else 10.0, 1.3 + 0.12 * above + height * rows)
    figure = Figure(figsize=size, layout="constrained")
    heights = [0.12 * above, *[height] * rows]
    axes = figure.subplots(rows + 1, len(columns), sharex=True, squeeze=False, height_ratios=heights)
    image = None
    for column, (panel, heads) in enumerate(columns):
        _show_panel(axes[0, column], panel, panels[panel])
        for axis in axes[1 + len(heads) :, column]:
            axis.set_visible(False)
        for axis, (name, each) in zip(axes[1:, column], heads.items(), strict=False):
            extent = (-0.5, each.shape[0] - 0.5, first - 0.5, last + 0.5)
            shown = each.take(range(first, last + 1), axis=1, mode="wrap").T
            image = axis.imshow(
                shown, origin="lower", aspect="auto", interpolation="nearest", cmap="magma",
                vmin=0, vmax=1, extent=extent,
            )  # fmt: skip
            axis.set_title(name, fontsize="medium")
            axis.set_ylabel("location")
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
            axis.yaxis.set_major_formatter(lambda slot, _, slots=each.shape[1]: f"{round(slot) % slots}")
        bottom = axes[len(heads), column]
        bottom.set_xlabel("time step")
        bottom.tick_params(labelbottom=True)
    if image is not None:
        figure.colorbar(
            image, ax=axes[1:, :].ravel().tolist(), fraction=0.03, pad=0.01, aspect=15 * rows, label="weight"
        )
    figure.suptitle(title)
    return figure


def draw_learning_curve(
    rows: list[dict[str, float]],
    metric: str,
    label: str,
    title: str,
    threshold: float | None = None,
    epoch_size: int | None = None,
) -> Figure | None:
    """A metric in training and validation against epochs or thousands of sequences; None when nothing was written yet.

    Args:
        rows: of ``metrics.csv``.
        metric: which one.
        label: what it is called.
        title: what is shown.
        threshold: the value that counts as solved.
        epoch_size: sequences in an epoch; None where every sequence is new.
    """
    curves = {split: curve(rows, f"{split}/{metric}", epoch_size) for split in ("train", "val")}
    if not any(len(points) for points in curves.values()):
        return None
    figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
    axis = figure.subplots()
    if len(curves["train"]):
        axis.plot(*_thin(curves["train"]).T, color="0.65", linewidth=1.0, label="training")
    if len(curves["val"]):
        marker = "o" if len(curves["val"]) <= 60 else ""
        axis.plot(*curves["val"].T, color="tab:blue", marker=marker, markersize=4, linewidth=1.6, label="validation")
    if threshold is not None:
        axis.axhline(threshold, color="tab:green", linestyle="--", linewidth=1.0, label=f"solved at {threshold:g}")
    _finish_curve(axis, label, epoch_size)
    axis.set_title(f"{title}: {label} while learning")
    return figure


def draw_comparison(
    runs: Mapping[str, list[dict[str, float]]], metric: str, label: str, epoch_size: int | None = None
) -> Figure | None:
    """A validation metric of several runs in one picture; None when none of them has written it.

    Args:
        runs: name of a run to the rows of its ``metrics.csv``.
        metric: which one.
        label: what it is called.
        epoch_size: sequences in an epoch; None where every sequence is new.
    """
    curves = {name: curve(rows, f"val/{metric}", epoch_size) for name, rows in runs.items()}
    if not any(len(points) for points in curves.values()):
        return None
    figure = Figure(figsize=(_WIDTH, 4.0), layout="constrained")
    axis = figure.subplots()
    # A marker of its own for each run, for those who do not see the colours.
    for (name, points), marker in zip(curves.items(), itertools.cycle("osv^Dx*P"), strict=False):
        if len(points):
            axis.plot(*points.T, marker=marker, markersize=4, linewidth=1.6, label=name)
    _finish_curve(axis, label, epoch_size)
    return figure


def curve(rows: list[dict[str, float]], metric: str, epoch_size: int | None) -> Float[np.ndarray, "point 2"]:
    """What was written of a metric, against epochs, or against thousands of sequences where there are none.

    Args:
        rows: of ``metrics.csv``.
        metric: with its split, such as ``val/bits``.
        epoch_size: sequences in an epoch.
    """
    unit = epoch_size or 1000
    points = [(row["sequences"] / unit, row[metric]) for row in rows if metric in row]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _finish_curve(axis: Axes, label: str, epoch_size: int | None) -> None:
    axis.set_xlabel("epochs" if epoch_size else "thousands of sequences")
    axis.set_ylabel(label)
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)


def _show_panel(axis: Axes, name: str, panel: Panel) -> AxesImage:
    low, high = float(panel.min()), float(panel.max())
    if low < 0:
        # Some inputs are signed (a priority, a count); zero keeps the neutral colour.
        scale: dict[str, Any] = {"cmap": _SIGNED, "vmin": -max(-low, high), "vmax": max(-low, high)}
    else:
        scale = {"cmap": _ERRORS if name == "error" else "Greys", "vmin": 0, "vmax": max(high, 1.0)}
    image = axis.imshow(panel, aspect="auto", interpolation="nearest", **scale)
    axis.set_ylabel(f"{name}\nchannel")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return image


def _bar_ticks(image: AxesImage) -> list[float]:
    low, high = image.get_clim()
    return [low, high] if low == 0 else [low, 0.0, high]


def _heads(weights: Mapping[str, np.ndarray], verb: str) -> dict[str, np.ndarray]:
    heads = {}
    for name, each in weights.items():
        what = f"{verb} weights" if len(weights) == 1 and verb in name else name
        for head in range(each.shape[1]):
            heads[f"{what}, head {head + 1}" if each.shape[1] > 1 else what] = each[:, head]
    return heads


def _used_slots(weights: list[np.ndarray]) -> tuple[int, int]:
    """First and last slot worth showing, with a margin; all of them where the use is spread out.

    A shift leads from the last slot to the first, so the span may too: its end then exceeds the number of slots.
    """
    slots = max(each.shape[2] for each in weights)
    used = sorted({int(slot) for each in weights for slot in np.nonzero((each > _USED).any((0, 1)))[0]})
    if not used:
        return 0, slots - 1
    gaps = [(after - before, after) for before, after in itertools.pairwise([*used, used[0] + slots])]
    widest, after = max(gaps)
    first, last = after % slots - 2, after % slots + slots - widest + 2
    return (first, last) if last - first < slots // 2 else (0, slots - 1)


def _thin(points: np.ndarray, most: int = 400) -> np.ndarray:
    """Means over neighbours, so that a long run's noise does not hide its curve."""
    if len(points) <= most:
        return points
    return np.stack([part.mean(0) for part in np.array_split(points, most)])
