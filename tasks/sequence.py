"""Tasks on sequences of bits: the streams, the loss and the metrics they share (Graves et al. 2014, section 4)."""

import abc
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.addressing import Addressing
from memnet.checks import check_positive, check_seed
from memnet.recording import record

from . import show
from .base import Evaluation, SequenceBatch, Task
from .sampling import TEST, TRAIN, VALIDATION, BatchStream, Draws, Sampler, stream_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SequenceTask(Task):
    """A task whose answer is a sequence of bits: all a new one needs is ``sample`` and ``ladder``.

    Inputs and targets hold the data bits first and the control channels (delimiter, count, priority) after them. The
    loss is the cross-entropy of the sigmoid outputs with the targets, counted only where the mask is True, summed over
    a sequence and averaged over the batch. Metrics of a sequence: ``bits``, the same cross-entropy in bits, and
    ``wrong_bits``, how many target bits the outputs have on the wrong side of one half.

    Attributes:
        input_size: number of input channels, set by the concrete task.
        output_size: number of output channels, set by the concrete task.

    Args:
        batch_size: training sequences in a batch, over all processes.
        eval_batch_size: validation and test sequences in a batch, over all processes.
        num_val: sequences in the validation set.
        num_test: sequences in each test set.
        seed: the training stream, 0 or larger. Validation and test are the same for every seed.

    Raises:
        ValueError: a size or a number of sequences is below 1, or seed is below 0.
    """

    input_size: int
    output_size: int

    def __init__(
        self,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        num_val: int = 512,
        num_test: int = 512,
        seed: int = 1,
    ) -> None:
        check_positive("batch_size", batch_size)
        check_positive("eval_batch_size", eval_batch_size)
        check_positive("num_val", num_val)
        check_positive("num_test", num_test)
        check_seed(seed)
        super().__init__()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_val = num_val
        self.num_test = num_test
        self.seed = seed

    @abc.abstractmethod
    def sample(self, draws: Draws) -> SequenceBatch:
        """Samples of the training distribution, padded to the longest among them.

        Args:
            draws: the samples' random numbers, and nothing else random.
        """

    @abc.abstractmethod
    def ladder(self) -> dict[str, Sampler]:
        """The test sets of the paper, by name: like ``sample``, but often longer than anything trained on."""

    def extra_metrics(
        self, batch: SequenceBatch, wrong: Bool[Tensor, "batch time out"]
    ) -> dict[str, Float[Tensor, " batch"]]:
        """A task's own metrics beside ``bits`` and ``wrong_bits``.

        Args:
            batch: the batch.
            wrong: True where an output that counts is on the wrong side of one half.
        """
        return {}

    @property
    def test_names(self) -> list[str]:
        return list(self.ladder())

    def check_model(self, model: nn.Module) -> None:
        sizes = (getattr(model, "input_size", None), getattr(model, "output_size", None))
        if sizes != (self.input_size, self.output_size):
            raise ValueError(
                f"{type(model).__name__} has input_size {sizes[0]} and output_size {sizes[1]}, "
                f"but {type(self).__name__} needs input_size {self.input_size} and output_size {self.output_size}."
            )

    def evaluate(self, model: nn.Module, batch: SequenceBatch) -> Evaluation:
        outputs, _ = model(batch.inputs, lengths=batch.lengths)
        return self.score(outputs, batch, extra=not model.training)

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

    @torch.no_grad()
    def draw(self, network: nn.Module, batch: SequenceBatch, title: str) -> "dict[str, Figure]":
        from memnet.training.pictures import draw_example, draw_weights  # matplotlib is not needed before

        first = SequenceBatch(*(part[:1] for part in batch))
        has_memory = any(isinstance(module, Addressing) for module in network.modules())
        listening: AbstractContextManager[dict[str, Tensor]] = record(network) if has_memory else nullcontext({})
        with listening as trace:
            evaluation = self.evaluate(network, first)
        panels = self.picture(first, evaluation.outputs, 0)
        steps = panels["target"].shape[1]
        score = ", ".join(f"{name.replace('_', ' ')} {float(each[0]):.3g}" for name, each in evaluation.metrics.items())
        figures = {"example": draw_example(panels, f"{title}: {score}")}
        if trace:
            weights = {name: each[0, :steps].numpy() for name, each in trace.items()}
            figures["weights"] = draw_weights(panels, weights, title)
        return figures

    def describe(self, batch: SequenceBatch, outputs: Tensor, item: int) -> str:
        return show.text(batch, outputs, item)

    def train_dataloader(self) -> BatchStream:
        """The endless training stream, from batch ``batches_consumed`` on."""
        rank, num_ranks = self.ranks()
        return BatchStream(
            self.sample,
            stream_key(TRAIN, self.seed),
            self.batch_size,
            first_batch=self.batches_consumed,
            rank=rank,
            num_ranks=num_ranks,
        )

    def val_dataloader(self) -> BatchStream:
        """The validation set: the training distribution, the same sequences in every run."""
        return self._fixed(self.sample, VALIDATION, 0, self.num_val)

    def test_dataloader(self) -> list[BatchStream]:
        """The test sets of ``ladder``, the same sequences in every run."""
        return [self._fixed(rung, TEST, number, self.num_test) for number, rung in enumerate(self.ladder().values())]

    def predict_dataloader(self) -> BatchStream:
        """The first batch of the validation set."""
        return self._fixed(self.sample, VALIDATION, 0, min(self.num_val, self.eval_batch_size))

    def _fixed(self, sample: Sampler, split: int, number: int, num_samples: int) -> BatchStream:
        rank, num_ranks = self.ranks()
        key = stream_key(split, number)
        return BatchStream(sample, key, self.eval_batch_size, num_samples, rank=rank, num_ranks=num_ranks)


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
