"""Characters made of a few random strokes, and how they are drawn as small images."""

import numpy as np

from .sampling import Draws

STROKES, POINTS = 3, 16
"""Strokes of a character, and points by which a stroke is drawn."""

MAX_TURN = np.pi / 16
MAX_SHIFT = 0.1
"""How far an instance is turned either way, and moved, as a part of the image (Santoro et al. 2016, sec. 4.1)."""


class Characters:
    """A set of characters, each a function of (key, number) only.

    A character is three strokes, each a quadratic Bézier curve through the square; the second begins where the first
    ends, so that most characters hang together.

    Args:
        key: the set, from ``stream_key``.
        count: how many there are.
    """

    def __init__(self, key: np.ndarray, count: int) -> None:
        self.count = count
        draws = Draws(key, np.arange(count))
        corners = draws.uniform(STROKES * 3 * 2).reshape(count, STROKES, 3, 2) * 1.7 - 0.85
        corners[:, :, 1] *= 1.8  # a curve does not reach the corner in its middle
        corners[:, 1, 0] = corners[:, 0, 2]
        t = np.linspace(0, 1, POINTS)[:, None]
        bends = np.concatenate([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
        # (character, stroke, point, axis), in the square from -1 to 1.
        self.points = (bends @ corners).reshape(count, STROKES * POINTS, 2).astype(np.float32)

    def draw(self, numbers: np.ndarray, moves: np.ndarray, size: int) -> np.ndarray:
        """Images with values from 0 to 1.

        Every point leaves a small Gaussian spot. A spot is the product of one over the rows and one over the columns,
        so that all points of an image are one matrix product.

        Args:
            numbers: which characters, ``(*image)`` of whole numbers.
            moves: how each is turned and moved, ``(*image, 3)`` from 0 to 1: the turn, the shifts down and right.
            size: pixels on a side.

        Returns:
            ``(*image, size, size)`` of float32.
        """
        moves = (2 * moves - 1).astype(np.float32)
        angle, shift = MAX_TURN * moves[..., 0], 2 * MAX_SHIFT * moves[..., None, 1:]
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        points = self.points[numbers] @ np.swapaxes(turn, -1, -2) + shift
        pixels = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1)[:, None]
        width = np.float32(1 / size)  # of a spot: half a pixel
        down, right = (np.exp(-(((pixels - points[..., None, :, axis]) / width) ** 2) / 2) for axis in (0, 1))
        return np.minimum(down @ np.swapaxes(right, -1, -2), 1)
