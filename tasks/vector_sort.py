"""Plain sorting of vectors by value: the priority sort of Graves et al. 2014, section 4.5, without priorities."""

from functools import partial
from typing import Any

import numpy as np

from memnet.checks import check_positive

from .base import SequenceBatch, check_order
from .sampling import Draws, Sampler
from .sequence import SequenceTask, place, to_batch


class VectorSort(SequenceTask):
    """Give random vectors back in the order of their values.

    A vector's value is that of its bits as a binary number, the first bit counting most. Whole vectors move: the target
    is the same vectors from the smallest value up, equal ones as often as they were given. Time steps for n vectors:
    the n vectors; one step with the delimiter, alone on its channel; n steps without input, at which the target is the
    sorted vectors. Input channels: ``num_bits`` and the delimiter. Output channels: ``num_bits``.

    Args:
        min_length: the fewest vectors.
        max_length: the most; their number is uniform from one to the other.
        num_bits: bits of a vector, at most 62.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size is below 1, num_bits is above 62, or min_length is larger than max_length.
    """

    def __init__(self, min_length: int = 1, max_length: int = 20, num_bits: int = 8, **settings: Any) -> None:
        check_positive("min_length", min_length)
        check_positive("max_length", max_length)
        check_positive("num_bits", num_bits)
        check_order(min_length=min_length, max_length=max_length)
        if num_bits > 62:
            raise ValueError(f"num_bits is {num_bits}, but must be at most 62 for a value to be a 64-bit number.")
        super().__init__(**settings)
        self.input_size = num_bits + 1
        self.output_size = num_bits
        self.min_length = min_length
        self.max_length = max_length
        self.num_bits = num_bits

    def sample(self, draws: Draws, lengths: tuple[int, int] | None = None) -> SequenceBatch:
        low, high = lengths or (self.min_length, self.max_length)
        length = draws.integers(low, high)
        vectors = draws.bits(high, self.num_bits)
        values = vectors @ (1 << np.arange(self.num_bits - 1, -1, -1, dtype=np.int64))
        values[np.arange(high) >= length[:, None]] = np.iinfo(np.int64).max
        in_order = np.take_along_axis(vectors, np.argsort(values, axis=1, kind="stable")[:, :, None], axis=1)

        steps = 2 * length + 1
        inputs = np.zeros((draws.count, steps.max(), self.input_size), np.float32)
        targets = np.zeros((draws.count, steps.max(), self.output_size), np.float32)
        place(vectors, length, into=inputs, start=0)
        inputs[np.arange(draws.count), length, self.num_bits] = 1
        mask = place(in_order, length, into=targets, start=length + 1)
        return to_batch(inputs, targets, mask, steps)

    def ladder(self) -> dict[str, Sampler]:
        """Lengths up to half as many again as the longest that is trained on by default."""
        return {f"length {length}": partial(self.sample, lengths=(length, length)) for length in (10, 20, 30)}
