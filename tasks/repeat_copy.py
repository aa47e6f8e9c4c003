"""The repeat copy task (Graves et al. 2014, section 4.2)."""

import math
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from memnet.checks import check_fraction, check_positive

from .base import SequenceBatch, check_order
from .curriculum import GrowingTask
from .sampling import Draws, Sampler
from .sequence import SequenceTask, place, to_batch


class RepeatCopy(GrowingTask, SequenceTask):
    """Give back a sequence of random vectors a given number of times, then say that this was all.

    Time steps for length L and R repeats: L random bit vectors; one step with the count, alone on its channel; L * R
    steps without input, at which the target is the vectors, R times over; one step at which the target is the end
    marker, alone on its channel. Input channels: ``num_bits`` and the count. Output channels: ``num_bits`` and the end
    marker.

    The count is (R - mean) / deviation, with mean and standard deviation of the repeats trained on; more repeats than
    that are shown on the same scale. Should there be only one number of repeats, the count is 0.

    Args:
        min_length: the shortest sequence, in vectors.
        max_length: the longest; lengths are uniform from one to the other.
        min_repeats: the fewest repeats.
        max_repeats: the most; repeats are uniform from one to the other.
        num_bits: bits of a vector.
        zero_vectors: chance of each vector to train on to be all zeros, whatever was drawn for it; from 0, the paper's
            task, to less than 1. A vector of zeros looks like no input at all, and one in 256 is rarely enough to learn
            that it counts. Validation and test stay as they are.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size is below 1, a minimum is larger than its maximum, or zero_vectors is not a fraction.
    """

    def __init__(
        self,
        min_length: int = 1,
        max_length: int = 10,
        min_repeats: int = 1,
        max_repeats: int = 10,
        num_bits: int = 8,
        zero_vectors: float = 0.0,
        **settings: Any,
    ) -> None:
        check_positive("min_length", min_length)
        check_positive("max_length", max_length)
        check_positive("num_bits", num_bits)
        check_positive("min_repeats", min_repeats)
        check_positive("max_repeats", max_repeats)
        check_order(min_length=min_length, max_length=max_length)
        check_order(min_repeats=min_repeats, max_repeats=max_repeats)
        check_fraction("zero_vectors", zero_vectors)
        super().__init__(**settings)
        self.input_size = num_bits + 1
        self.output_size = num_bits + 1
        self.min_length = min_length
        self.max_length = max_length
        self.min_repeats = min_repeats
        self.max_repeats = max_repeats
        self.num_bits = num_bits
        self.zero_vectors = zero_vectors

    def train_sample(self, draws: Draws) -> SequenceBatch:
        return self.sample(draws, zero_vectors=self.zero_vectors)

    def sample(
        self,
        draws: Draws,
        lengths: tuple[int, int] | None = None,
        repeats: tuple[int, int] | None = None,
        zero_vectors: float = 0.0,
    ) -> SequenceBatch:
        shortest, longest = lengths or (self.min_length, self.max_length)
        length = draws.integers(shortest, longest)
        repeat = draws.integers(*(repeats or (self.min_repeats, self.max_repeats)))
        vectors = draws.bits(longest, self.num_bits)
        if zero_vectors:
            vectors[draws.uniform(longest) < zero_vectors] = 0
        row = np.arange(draws.count)

        end = length + 1 + length * repeat
        inputs = np.zeros((draws.count, end.max() + 1, self.input_size), np.float32)
        targets = np.zeros((draws.count, end.max() + 1, self.output_size), np.float32)
        place(vectors, length, into=inputs, start=0)
        inputs[row, length, self.num_bits] = self.normalize(repeat)
        position = np.arange((length * repeat).max()) % length[:, None]
        mask = place(vectors[row[:, None], position], length * repeat, into=targets, start=length + 1)
        targets[row, end, self.num_bits] = 1
        mask[row, end] = True
        return to_batch(inputs, targets, mask, end + 1)

    def up_to(self, longest: int) -> Sampler:
        """Training samples of up to so many vectors, repeated up to as many times."""
        lengths, repeats = (
            (min(least, longest), min(most, longest))
            for least, most in ((self.min_length, self.max_length), (self.min_repeats, self.max_repeats))
        )
        return partial(self.sample, lengths=lengths, repeats=repeats, zero_vectors=self.zero_vectors)

    def normalize(self, repeats: np.ndarray) -> np.ndarray:
        """The count as the model sees it: mean 0 and variance 1 over the repeats trained on.

        Args:
            repeats: numbers of repeats.
        """
        # The variance of n consecutive whole numbers, all equally likely, is (n^2 - 1) / 12.
        variance = ((self.max_repeats - self.min_repeats + 1) ** 2 - 1) / 12
        return (repeats - (self.min_repeats + self.max_repeats) / 2) / (math.sqrt(variance) or 1.0)

    def extra_metrics(
        self, batch: SequenceBatch, wrong: Bool[Tensor, "batch time out"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """``end_wrong``: at how many of the time steps that count the end marker is wrong."""
        return {"end_wrong": wrong[:, :, self.num_bits].sum(1).float()}

    def ladder(self) -> dict[str, Sampler]:
        """The training distribution, and the lengths and repeats of the paper's figure 8."""
        rungs: dict[str, Sampler] = {"training distribution": self.sample}
        for length, repeats in [(10, 10), (20, 10), (10, 20)]:
            name = f"length {length}, {repeats} repeats"
            rungs[name] = partial(self.sample, lengths=(length, length), repeats=(repeats, repeats))
        return rungs
