"""Where a decoder looked while it wrote: source across, written symbols down (Bahdanau et al. 2015, figure 3)."""

import functools
import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

_DEFAULT_FONT = "DejaVu Sans"
# Inches for one symbol and for the heading.
_CELL, _MARGIN = 0.22, 1.3
_MOST_COLUMNS = 4


def draw_alignment(
    alignments: Mapping[str, Float[np.ndarray, "head target source"]],
    source_symbols: Sequence[str],
    target_symbols: Sequence[str],
    title: str,
) -> Figure:
    """A heat-map for every head of every layer that looks at the source, white for 0 and black for 1.

    Args:
        alignments: name of an addressing module to its weights.
        source_symbols: what the slots are, one text for each.
        target_symbols: what was written, one text for each step.
        title: what is shown.
    """
    maps = {
        f"{name}, head {head + 1}" if each.shape[0] > 1 else name: weights
        for name, each in alignments.items()
        for head, weights in enumerate(each)
    }
    columns = min(len(maps), _MOST_COLUMNS)
    rows = math.ceil(len(maps) / columns)
    longest = max(map(len, target_symbols), default=1), max(map(len, source_symbols), default=1)
    width = max(3.0, _CELL * len(source_symbols) + 0.09 * longest[0] + 0.4)
    height = _CELL * len(target_symbols) + 0.09 * longest[1] + 0.4
    # Many heads side by side get smaller cells: the figure must still fit a page.
    shrink = min(1.0, 24 / (width * columns))
    size = (max(width * columns * shrink, 4.0), height * rows * shrink + _MARGIN)
    figure = Figure(figsize=size, layout="constrained")
    fonts = fonts_for("".join([*source_symbols, *target_symbols, title]))
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for axis, (name, weights) in zip(axes.flat, maps.items(), strict=False):
        image = axis.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        _label(axis, source_symbols, target_symbols, 9 * max(shrink, 0.5), fonts)
        if len(maps) > 1:
            axis.set_title(name, fontsize=9)
    for axis in axes.flat[len(maps) :]:
        axis.set_visible(False)
    if image is not None:
        figure.colorbar(image, ax=axes.ravel().tolist(), fraction=0.02, pad=0.01, label="weight")
    figure.suptitle(title, fontfamily=fonts, fontsize=10)
    return figure


def fonts_for(text: str) -> list[str]:
    """Font families that between them can show a text: Matplotlib's own, then installed ones for what it lacks.

    Args:
        text: what is to be shown. Where no installed font has a symbol, one warning says so.
    """
    families = [_DEFAULT_FONT]
    missing = {symbol for symbol in text if not symbol.isspace()} - _symbols(font_manager.findfont(_DEFAULT_FONT))
    for family, path in _installed() if missing else ():
        has = missing & _symbols(path)
        if has:
            families.append(family)
            missing -= has
        if not missing:
            break
    if missing:
        shown = " ".join(sorted(missing)[:5])
        warnings.warn(f"no installed font has {shown}; install one (for example Noto) to see it.", stacklevel=2)
    return families


@functools.cache
def _installed() -> list[tuple[str, str]]:
    return sorted({(entry.name, entry.fname) for entry in font_manager.fontManager.ttflist})


@functools.cache
def _symbols(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()  # a font that cannot be opened shows nothing


def _label(axis: Axes, source: Sequence[str], target: Sequence[str], size: float, fonts: list[str]) -> None:
    # Letters stand upright above their column; words would run into one another.
    upright = max(map(len, source), default=1) <= 2
    axis.xaxis.tick_top()
    axis.set_xticks(range(len(source)), map(_visible, source), rotation=0 if upright else 90)
    axis.set_yticks(range(len(target)), map(_visible, target))
    for label in [*axis.get_xticklabels(), *axis.get_yticklabels()]:
        label.set_fontfamily(fonts)
        label.set_fontsize(size)
    axis.tick_params(length=0)


def _visible(symbol: str) -> str:
    # A space between letters would look like nothing; and Matplotlib reads a dollar sign as mathematics.
    return symbol.replace(" ", "␣").replace("$", r"\$")
