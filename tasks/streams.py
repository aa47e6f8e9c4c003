"""What tasks on random sequences share: the streams that examples come from, and their pictures."""

import abc
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from memnet.addressing import Addressing
from memnet.checks import check_positive, check_seed
from memnet.recording import record

from .base import Evaluation, SequenceBatch, Task
from .sampling import TEST, TRAIN, VALIDATION, BatchStream, Draws, Sampler, stream_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class StreamTask(Task):
    """A task whose every sequence is new: a concrete one draws examples, and says what an answer is worth.

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

    def train_sample(self, draws: Draws) -> SequenceBatch:
        """Samples to train on, where a task offers others than those of ``sample``, which validation asks.

        Args:
            draws: the samples' random numbers.
        """
        return self.sample(draws)

    @abc.abstractmethod
    def ladder(self) -> dict[str, Sampler]:
        """The test sets of the paper, by name: like ``sample``, but often longer than anything trained on."""

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

    @abc.abstractmethod
    def score(self, outputs: Float[Tensor, "batch time out"], batch: SequenceBatch, extra: bool = True) -> Evaluation:
        """Loss and metrics of a model's outputs.

        Args:
            outputs: logits.
            batch: the batch they answer.
            extra: whether to compute what takes longer than a small training step too.
        """

    @abc.abstractmethod
    def picture(self, batch: SequenceBatch, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        """One example as titled panels, channels by time steps, among them ``target``.

        Args:
            batch: the batch that holds the example.
            outputs: ``Evaluation.outputs`` of that batch.
            item: which example of the batch.
        """

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

    def train_dataloader(self) -> BatchStream:
        """The endless training stream, from batch ``batches_consumed`` on."""
        rank, num_ranks = self.ranks()
        return BatchStream(
            self.train_sample,
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
