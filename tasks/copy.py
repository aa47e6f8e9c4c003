"""The copy task (Graves et al. 2014, section 4.1)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from memnet.checks import check_positive

from .base import SequenceBatch, check_order
from .curriculum import GrowingTask
from .sampling import Draws, Sampler
from .sequence import SequenceTask, place, to_batch


class Copy(GrowingTask, SequenceTask):
    """Store a sequence of random vectors and give it back.

    Time steps for a sequence of length L: L random bit vectors; one step with the delimiter, alone on its channel; L
    steps without input, at which the target is the vectors. Input channels: ``num_bits`` and the delimiter. Output
    channels: ``num_bits``.

    Args:
        min_length: the shortest sequence, in vectors.
        max_length: the longest; lengths are uniform from one to the other.
        num_bits: bits of a vector.
        test_lengths: the test sets' lengths; by default those of the paper's figure 4.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size or test length is below 1, or min_length is larger than max_length.
    """

    def __init__(
        self,
        min_length: int = 1,
        max_length: int = 20,
        num_bits: int = 8,
        test_lengths: Sequence[int] = (10, 20, 30, 50, 120),
        **settings: Any,
    ) -> None:
        check_positive("min_length", min_length)
        check_positive("max_length", max_length)
        check_positive("num_bits", num_bits)
        for length in test_lengths:
            check_positive("test_lengths", length)
        check_order(min_length=min_length, max_length=max_length)
        super().__init__(**settings)
        self.input_size = num_bits + 1
        self.output_size = num_bits
        self.min_length = min_length
        self.max_length = max_length
        self.num_bits = num_bits
        self.test_lengths = tuple(test_lengths)

    def sample(self, draws: Draws, lengths: tuple[int, int] | None = None) -> SequenceBatch:
        low, high = lengths or (self.min_length, self.max_length)
        length = draws.integers(low, high)
        vectors = draws.bits(high, self.num_bits)

        steps = 2 * length + 1
        inputs = np.zeros((draws.count, steps.max(), self.input_size), np.float32)
        targets = np.zeros((draws.count, steps.max(), self.output_size), np.float32)
        place(vectors, length, into=inputs, start=0)
        inputs[np.arange(draws.count), length, self.num_bits] = 1
        mask = place(vectors, length, into=targets, start=length + 1)
        return to_batch(inputs, targets, mask, steps)

    def up_to(self, longest: int) -> Sampler:
        return partial(self.sample, lengths=(min(self.min_length, longest), longest))

    def ladder(self) -> dict[str, Sampler]:
        return {f"length {length}": partial(self.sample, lengths=(length, length)) for length in self.test_lengths}
