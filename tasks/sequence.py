"""Tasks on sequences of bits: the streams, the loss and the metrics they share (Graves et al. 2014, section 4)."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from . import show
from .base import Evaluation, SequenceBatch
from .streams import StreamTask


class SequenceTask(StreamTask):
    """A task whose answer is a sequence of bits: all a new one needs is ``sample`` and ``ladder``.

    Inputs and targets hold the data bits first and the control channels (delimiter, count, priority) after them. The
    loss is the cross-entropy of the sigmoid outputs with the targets, counted only where the mask is True, summed over
    a sequence and averaged over the batch. Metrics of a sequence: ``bits``, the same cross-entropy in bits, and
    ``wrong_bits``, how many target bits the outputs have on the wrong side of one half.

    Args:
        batch_size: training sequences in a batch, over all processes.
        eval_batch_size: validation and test sequences in a batch, over all processes.
        num_val: sequences in the validation set.
        num_test: sequences in each test set.
        seed: the training stream, 0 or larger. Validation and test are the same for every seed.

    Raises:
        ValueError: a size or a number of sequences is below 1, or seed is below 0.
    """

    def extra_metrics(
        self, batch: SequenceBatch, wrong: Bool[Tensor, "batch time out"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """A task's own metrics beside ``bits`` and ``wrong_bits``.

        Args:
            batch: the batch.
            wrong: True where an output that counts is on the wrong side of one half.
        """
        return {}

    def score(self, outputs: Float[Tensor, "batch time out"], batch: SequenceBatch, extra: bool = True) -> Evaluation:
        """Loss and metrics of a model's outputs.

        Args:
            outputs: logits.
            batch: the batch they answer.
            extra: whether to compute the task's own metrics too, which may cost more than a small training step.
        """
        # Sums over hundreds of bits want float32 even where the model ran in less.
        nats = F.binary_cross_entropy_with_logits(outputs.float(), batch.targets.float(), reduction="none")
        nats = torch.where(batch.mask, nats.sum(2), 0.0).sum(1)
        with torch.no_grad():
            wrong = ((outputs > 0) != (batch.targets > 0.5)) & batch.mask.unsqueeze(2)
            metrics = {"bits": nats / math.log(2), "wrong_bits": wrong.sum((1, 2)).float()}
            if extra:
                metrics |= self.extra_metrics(batch, wrong)
        return Evaluation(nats.mean(), metrics, outputs)

    def picture(self, batch: SequenceBatch, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        """One example as titled panels, channels by time steps.

        Args:
            batch: the batch that holds the example.
            outputs: ``Evaluation.outputs`` of that batch.
            item: which example of the batch.
        """
        return show.panels(batch, outputs, item)

    def describe(self, batch: SequenceBatch, outputs: Tensor, item: int) -> str:
        return show.text(batch, outputs, item)


def place(sequence: np.ndarray, length: np.ndarray | int, into: np.ndarray, start: np.ndarray | int) -> np.ndarray:
    """Writes the first ``length[b]`` vectors of ``sequence[b]`` to ``into[b]`` from time ``start[b]`` on.

    Args:
        sequence: ``(batch, steps, features)``.
        length: how many vectors of each sequence, ``(batch,)`` or one for all.
        into: ``(batch, time, channels)``, changed in place: its first ``features`` channels.
        start: where each sequence begins, ``(batch,)`` or one for all.

    Returns:
        ``(batch, time)``, True where something was written.
    """
    batch, steps, features = sequence.shape
    length, start = (np.broadcast_to(number, batch)[:, None] for number in (length, start))
    time = np.arange(into.shape[1])
    written = (time >= start) & (time < start + length)
    into[..., :features][written] = sequence[np.arange(steps) < length]
    return written


def to_batch(inputs: np.ndarray, targets: np.ndarray, mask: np.ndarray, lengths: np.ndarray) -> SequenceBatch:
    """The arrays of a batch as tensors, without a copy.

    Args:
        inputs: ``(batch, time, input channels)`` of float32.
        targets: ``(batch, time, output channels)`` of float32.
        mask: ``(batch, time)`` of bool.
        lengths: ``(batch,)`` of int64.
    """
    return SequenceBatch(*map(torch.from_numpy, (inputs, targets, mask, lengths)))
