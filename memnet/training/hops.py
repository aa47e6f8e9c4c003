"""Where a memory network looked for an answer: a story's sentences down, the hops across (Sukhbaatar et al. 2015)."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

# Inches for a sentence, a hop, a letter of a sentence, one of the heading, and all else.
_ROW, _HOP, _LETTER, _HEADING_LETTER, _MARGIN = 0.24, 0.62, 0.075, 0.09, 1.5


def draw_hops(
    sentences: Sequence[str],
    supports: Bool[np.ndarray, " sentence"],
    weights: Float[np.ndarray, "hop sentence"],
    title: str,
) -> Figure:
    """The paper's table as a picture: each hop's weight on each sentence, supporting sentences marked.

    Args:
        sentences: the story.
        supports: True at the sentences that the answer follows from.
        weights: of at least one hop.
        title: what is shown.
    """
    hops, rows = weights.shape
    letters = max((len(sentence) for sentence in sentences), default=1)
    width = max(_HOP * hops + _LETTER * letters + 1.2, 5.0)
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, int(width / _HEADING_LETTER))]
    figure = Figure(figsize=(width, _ROW * rows + 0.2 * len(lines) + _MARGIN), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(weights.T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axis.xaxis.tick_top()
    axis.set_xticks(range(hops), [f"hop {hop + 1}" for hop in range(hops)])
    labels = [f"{sentence} ●" if support else sentence for sentence, support in zip(sentences, supports, strict=True)]
    # Matplotlib would read a dollar sign as mathematics.
    axis.set_yticks(range(rows), [label.replace("$", r"\$") for label in labels])
    for label, support in zip(axis.get_yticklabels(), supports, strict=True):
        label.set_fontweight("bold" if support else "normal")
    axis.tick_params(length=0, labelsize=9)
    axis.set_xticks(np.arange(1, hops) - 0.5, minor=True)
    axis.set_yticks(np.arange(1, rows) - 0.5, minor=True)
    axis.grid(which="minor", color="lightgrey", linewidth=0.5)
    axis.tick_params(which="minor", length=0)
    for hop, row in np.ndindex(hops, rows):
        weight = weights[hop, row]
        if abs(weight) >= 0.005:
            axis.text(
                hop, row, f"{weight:.2f}", ha="center", va="center", fontsize=8,
                color="white" if weight > 0.6 else "black",
            )  # fmt: skip
    figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02, label="weight")
    if supports.any():
        axis.set_xlabel("● supports the answer", fontsize=8)
    figure.suptitle("\n".join(line.replace("$", r"\$") for line in lines), fontsize=10)
    return figure
