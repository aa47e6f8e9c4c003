"""The dynamic N-grams task (Graves et al. 2014, section 4.4)."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from memnet.checks import check_positive

from .base import SequenceBatch
from .sampling import Draws, Sampler
from .sequence import SequenceTask, to_batch


class NGrams(SequenceTask):
    """Predict each next bit of a random Markov chain whose table has to be learned from the sequence itself.

    For each sequence a table is drawn: for each of the 2^context contexts, the probability of a 1 from
    Beta(1/2, 1/2). The first ``context`` bits are fair coin flips, each other bit is drawn with the probability that
    the table has for the bits before it. At time step t the input is bit t and the target bit t + 1, so a sequence of
    ``length`` bits has ``length`` - 1 steps and all of them count. One input and one output channel.

    The best that can be done is ``optimal_probabilities``. It costs 132.3 bits per sequence on average (240,000
    sequences of 200 bits, standard error 0.07), and 128.3 from the first bit drawn from the table on. From one sequence
    to another the cost varies with a standard deviation of 36 bits, so ``bits`` should be compared with
    ``optimal_bits`` on the same sequences.

    Args:
        length: bits of a sequence.
        context: how many bits the next one depends on, the paper's N - 1.
        **settings: batch sizes, numbers of sequences and seed, as for ``SequenceTask``; test sets of 1,000 sequences
            as in the paper.

    Raises:
        ValueError: a size is below 1, context is above 10, or length is not larger than context.
    """

    def __init__(self, length: int = 200, context: int = 5, num_test: int = 1000, **settings: Any) -> None:
        check_positive("length", length)
        check_positive("context", context)
        if context > 10:
            raise ValueError(f"context is {context}, but must be at most 10: the table has 2^context entries.")
        if length <= context:
            raise ValueError(f"length is {length}, but must be larger than context, which is {context}.")
        super().__init__(num_test=num_test, **settings)
        self.input_size = 1
        self.output_size = 1
        self.length = length
        self.context = context

    def sample(self, draws: Draws) -> SequenceBatch:
        # Beta(1/2, 1/2) is the arcsine distribution, whose quantile function is sin^2(pi u / 2).
        table = np.sin(0.5 * np.pi * draws.uniform(2**self.context)) ** 2
        chance = np.ascontiguousarray(draws.uniform(self.length).T)
        bits = np.empty((self.length, draws.count), np.float32)
        bits[: self.context] = chance[: self.context] < 0.5

        # The context's bits as a binary number, the latest bit last, beside the row of the sample's own table.
        own_table = np.arange(draws.count) << self.context
        code = own_table.copy()
        for past in range(self.context):
            code += bits[past].astype(np.int64) << (self.context - 1 - past)
        low_bits = (1 << (self.context - 1)) - 1
        table = table.ravel()
        for time in range(self.context, self.length):
            bit = chance[time] < table[code]
            bits[time] = bit
            code = own_table + ((code & low_bits) << 1) + bit

        steps = self.length - 1
        sequence = np.ascontiguousarray(bits.T)[:, :, None]
        mask = np.ones((draws.count, steps), bool)
        return to_batch(sequence[:, :-1], sequence[:, 1:], mask, np.full(draws.count, steps))

    def extra_metrics(
        self, batch: SequenceBatch, wrong: Bool[Tensor, "batch time out"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """``optimal_bits``: what the optimal estimator pays on the same sequences."""
        bits = torch.cat([batch.inputs[:, :1, 0], batch.targets[:, :, 0]], dim=1)
        probability = optimal_probabilities(bits, self.context)
        # Not F.binary_cross_entropy, which refuses to run under autocast.
        cost = -torch.where(bits > 0.5, probability, 1 - probability).log2()
        return {"optimal_bits": cost[:, 1:].sum(1)}

    def ladder(self) -> dict[str, Sampler]:
        return {f"{self.length} bits": self.sample}

    def published(self) -> dict[str, dict[str, float]]:
        """Bits per sequence at the end of training, read off the paper's figure 13."""
        bits = {"bits, paper NTM-LSTM": 133.5, "bits, paper NTM-feedforward": 133.0, "bits, paper LSTM": 135.7}
        return {name: bits for name in self.test_names if name == "200 bits"}


def optimal_probabilities(bits: Float[Tensor, "batch time"], context: int) -> Float[Tensor, "batch time"]:
    """The Bayesian estimate that a bit is 1, given all bits before it and the Beta(1/2, 1/2) prior.

    P(1) = (N1 + 1/2) / (N0 + N1 + 1), where N1 and N0 count the ones and zeros that followed the same context so far
    (Graves et al. 2014, equation 10). One half for the first ``context`` bits.

    Args:
        bits: sequences of 0 and 1.
        context: how many bits the next one depends on.
    """
    powers = 2.0 ** torch.arange(context - 1, -1, -1, device=bits.device)
    code = (bits[:, :-1].unfold(1, context, 1) * powers).sum(2).long()
    following = bits[:, context:].long()
    # Sorted by context and, within one, by time: the visits so far are the places since the context's first.
    code, order = code.sort(dim=1, stable=True)
    first = torch.searchsorted(code, code)
    visits = torch.arange(code.shape[1], device=bits.device) - first
    ones = following.gather(1, order)
    ones_before = ones.cumsum(1) - ones
    ones_since = ones_before - ones_before.gather(1, first)
    estimate = (ones_since + 0.5) / (visits + 1)
    fair = torch.full_like(bits[:, :context], 0.5, dtype=estimate.dtype)
    return torch.cat([fair, torch.empty_like(estimate).scatter(1, order, estimate)], dim=1)
