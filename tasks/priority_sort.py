"""The priority sort task (Graves et al. 2014, section 4.5)."""

from typing import Any

import numpy as np

from memnet.checks import check_positive

from .base import SequenceBatch
from .sampling import Draws, Sampler
from .sequence import SequenceTask, to_batch


class PrioritySort(SequenceTask):
    """Give back the vectors of highest priority, in order of priority.

    Time steps: ``num_inputs`` random bit vectors, each with a priority from U[-1, 1] on a channel of its own; then
    ``num_outputs`` steps without input, at which the target is the whole vectors from the highest priority downwards.
    Input channels: ``num_bits`` and the priority. Output channels: ``num_bits``.

    Args:
        num_inputs: vectors to sort.
        num_outputs: how many to give back, at most ``num_inputs``.
        num_bits: bits of a vector.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``.

    Raises:
        ValueError: a size is below 1, or num_outputs is larger than num_inputs.
    """

    def __init__(self, num_inputs: int = 20, num_outputs: int = 16, num_bits: int = 8, **settings: Any) -> None:
        check_positive("num_inputs", num_inputs)
        check_positive("num_outputs", num_outputs)
        check_positive("num_bits", num_bits)
        if num_outputs > num_inputs:
            raise ValueError(
                f"num_outputs is {num_outputs}, but must not be larger than num_inputs, which is {num_inputs}."
            )
        super().__init__(**settings)
        self.input_size = num_bits + 1
        self.output_size = num_bits
        self.num_inputs = num_inputs
        self.num_outputs = num_outputs
        self.num_bits = num_bits

    def sample(self, draws: Draws) -> SequenceBatch:
        vectors = draws.bits(self.num_inputs, self.num_bits)
        # Sorted as the float32 numbers the model sees.
        priorities = (2 * draws.uniform(self.num_inputs) - 1).astype(np.float32)
        order = np.argsort(-priorities, axis=1, kind="stable")[:, : self.num_outputs]

        steps = self.num_inputs + self.num_outputs
        inputs = np.zeros((draws.count, steps, self.input_size), np.float32)
        targets = np.zeros((draws.count, steps, self.output_size), np.float32)
        inputs[:, : self.num_inputs, : self.num_bits] = vectors
        inputs[:, : self.num_inputs, self.num_bits] = priorities
        targets[:, self.num_inputs :] = np.take_along_axis(vectors, order[:, :, None], axis=1)
        mask = np.broadcast_to(np.arange(steps) >= self.num_inputs, (draws.count, steps)).copy()
        return to_batch(inputs, targets, mask, np.full(draws.count, steps))

    def ladder(self) -> dict[str, Sampler]:
        return {f"{self.num_inputs} to {self.num_outputs}": self.sample}

    def published(self) -> dict[str, dict[str, float]]:
        """Bits per sequence at the end of training, read off the paper's figure 18."""
        bits = {"bits, paper NTM-LSTM": 17.0, "bits, paper NTM-feedforward": 19.0, "bits, paper LSTM": 55.6}
        return {name: bits for name in self.test_names if name == "20 to 16"}
