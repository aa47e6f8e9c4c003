"""Generated texts of which none occurs in both training and a held-out set, whatever their sizes and the seed.

A text's own checksum says where it belongs: one in ten to validation, one in ten to the test set, the others to
training. Every example is a function of (stream, index): it is the first of the texts drawn for this index that belongs
where it is wanted. Within a set, texts may be drawn twice.
"""

import zlib
from collections.abc import Callable

import numpy as np

from .sampling import TEST, TRAIN, VALIDATION, Draws, stream_key

_PARTS = 10
_HELD_OUT = {0: VALIDATION, 1: TEST}


def split_of(text: str) -> int:
    """Where a text belongs: TRAIN, VALIDATION or TEST. It does not depend on upper and lower case.

    Args:
        text: the source text.
    """
    return _HELD_OUT.get(zlib.crc32(text.lower().encode()) % _PARTS, TRAIN)


def draw_pairs(
    write: Callable[[list[float]], tuple[str, str]], size: int, split: int, number: int, count: int
) -> list[tuple[str, str]]:
    """The first pairs of a stream.

    Args:
        write: makes a source and a target text of random numbers from U[0, 1).
        size: how many random numbers it takes.
        split: TRAIN, VALIDATION or TEST.
        number: the seed of a training stream.
        count: how many pairs.
    """
    draws = Draws(stream_key(split, number), np.arange(count))
    found: dict[int, tuple[str, str]] = {}
    missing = np.arange(count)
    while len(missing):
        for index, numbers in zip(missing.tolist(), draws.uniform(size)[missing].tolist(), strict=True):
            pair = write(numbers)
            if split_of(pair[0]) == split:
                found[index] = pair
        missing = np.array([index for index in missing.tolist() if index not in found], dtype=np.int64)
    return [found[index] for index in range(count)]
