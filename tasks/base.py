"""What the training code needs of a task: its batches, its loss and metrics, and how an example is shown."""

import abc
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


class SequenceBatch(NamedTuple):
    """Sequences of different lengths, padded with zeros to the longest.

    Attributes:
        inputs: what the model sees.
        targets: what it should answer, 0 or 1 for bits; 0 wherever ``mask`` is False.
        mask: True at the time steps where the target counts.
        lengths: number of valid time steps of each sequence. Stays on the CPU, where the loop over time reads it.
    """

    inputs: Float[Tensor, "batch time inp"]
    targets: Float[Tensor, "batch time out"]
    mask: Bool[Tensor, "batch time"]
    lengths: Int64[Tensor, " batch"]


class Evaluation(NamedTuple):
    """What a task makes of a model's answer to a batch.

    Attributes:
        loss: what training minimises.
        metrics: name to one value for each sequence, without gradient.
        outputs: the model's outputs (logits), for pictures and for printing.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, " batch"]]
    outputs: Float[Tensor, "batch time out"]


class Task(pl.LightningDataModule, abc.ABC):
    """A data module that also knows its loss, its metrics and how to show an example.

    Models know nothing of tasks and the one LightningModule nothing of either: what differs between tasks is here.

    Attributes:
        monitor: the metric that chooses the best checkpoint; lower is better.
        batches_consumed: where ``train_dataloader`` starts. Training code that resumes a run sets it to the number of
            global batches already trained on.
    """

    monitor: ClassVar[str] = "bits"

    def __init__(self) -> None:
        super().__init__()
        self.batches_consumed = 0
        self.save_hyperparameters()

    @property
    @abc.abstractmethod
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of ``test_dataloader()``."""

    @abc.abstractmethod
    def check_model(self, model: nn.Module) -> None:
        """Refuses a model that does not fit the task.

        Args:
            model: the model that is about to be trained or tested.

        Raises:
            ValueError: the sizes of model and task differ; the message names both.
        """

    @abc.abstractmethod
    def evaluate(self, model: nn.Module, batch: Any) -> Evaluation:
        """Runs the model on a batch and computes loss and metrics.

        Args:
            model: a model that ``check_model`` accepts.
            batch: a batch of one of this task's dataloaders, on the model's device.
        """

    @abc.abstractmethod
    def picture(self, batch: Any, outputs: Tensor, item: int) -> dict[str, np.ndarray]:
        """One example as titled panels (channels x time), for plots.

        Args:
            batch: the batch that holds the example.
            outputs: ``Evaluation.outputs`` of that batch.
            item: which example of the batch.
        """

    @abc.abstractmethod
    def describe(self, batch: Any, outputs: Tensor, item: int) -> str:
        """One example as text, for a terminal.

        Args:
            batch: the batch that holds the example.
            outputs: ``Evaluation.outputs`` of that batch.
            item: which example of the batch.
        """

    def published(self) -> dict[str, dict[str, float]]:
        """The source paper's results: name of a test set to column title to number; empty where it gives none."""
        return {}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves all of a batch but ``lengths``: reading lengths from a GPU would make every step wait for it."""
        if not isinstance(batch, SequenceBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return SequenceBatch(
            batch.inputs.to(device, non_blocking=True),
            batch.targets.to(device, non_blocking=True),
            batch.mask.to(device, non_blocking=True),
            batch.lengths,
        )

    def ranks(self) -> tuple[int, int]:
        """This process's rank and the number of processes that train together."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def check_order(**bounds: int) -> None:
    """Refuses a range whose lower bound exceeds its upper one.

    Args:
        **bounds: the names and values of the lower and the upper bound, in this order.

    Raises:
        ValueError: the first value is larger than the second.
    """
    (low_name, low), (high_name, high) = bounds.items()
    if low > high:
        raise ValueError(f"{low_name} is {low}, but must not be larger than {high_name}, which is {high}.")
