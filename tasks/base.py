"""What the training code needs of a task: its batches, its loss and metrics, and how an example is shown."""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        outputs: what the model answered (logits, symbols, or a NamedTuple of several), for pictures and for printing.
        answers: the model's answer and the right one as texts, one pair for each sequence, where there is something
            that can only be measured over a whole set (see ``Task.corpus_metrics``).
        loss_count: how many things the loss is the mean over, where that is not the same in every batch, such as
            symbols; several processes then weigh their losses by it. None where every process has equally many.
    """

    loss: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, " batch"]]
    outputs: Any
    answers: list[tuple[str, str]] | None = None
    loss_count: Int64[Tensor, ""] | None = None


class Task(pl.LightningDataModule, abc.ABC):
    """A data module that also knows its loss, its metrics and how to show an example.

    Models know nothing of tasks and the one LightningModule nothing of either: what differs between tasks is here.

    Attributes:
        monitor: the metric that chooses the best checkpoint; lower is better.
        curve: the metric of the learning curve, and what its axis is called.
        epoch_size: how many training sequences an epoch has; None where every sequence is new.
        batches_consumed: where ``train_dataloader`` starts. Training code that resumes a run sets it to the number of
            global batches already trained on.
    """

    monitor: ClassVar[str] = "bits"
    curve: ClassVar[tuple[str, str]] = ("bits", "bits per sequence")
    epoch_size: int | None = None

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
    def draw(self, network: nn.Module, batch: Any, title: str) -> "dict[str, Figure]":
        """Pictures of a batch's first example: what the network answers, and where it looks.

        Args:
            network: a trained network, on the CPU.
            batch: the batch that holds the example, on the CPU.
            title: what it is, for the heading.

        Returns:
            Kind of picture, such as ``example`` or ``weights``, to picture.
        """

    @abc.abstractmethod
    def describe(self, batch: Any, outputs: Any, item: int) -> str:
        """One example as text, for a terminal.

        Args:
            batch: the batch that holds the example.
            outputs: ``Evaluation.outputs`` of that batch.
            item: which example of the batch.
        """

    def published(self) -> dict[str, dict[str, float]]:
        """The source paper's results: name of a test set to column title to number; empty where it gives none."""
        return {}

    def summary(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows below the table of the test sets, such as means over them; none by default.

        Args:
            rows: of the test sets: ``test``, the name, and each metric, each published number by its column's title.

        Returns:
            Rows with ``test``, what the row says, and any of these columns or new ones.
        """
        return []

    def notes(self) -> list[str]:
        """What must be said beside the test sets' numbers, such as how exactly they were computed; none by default."""
        return []

    def corpus_metrics(self, answers: list[tuple[str, str]], means: dict[str, float]) -> dict[str, float]:
        """Metrics of a whole set that are no means over its sequences, such as BLEU; none by default.

        Args:
            answers: the model's answer and the right one, for each sequence of the set.
            means: the set's other metrics, each the mean over its sequences.
        """
        return {}

    def batch_of(self, text: str) -> Any:
        """A batch of one example that a person has typed.

        Args:
            text: the example.

        Raises:
            ValueError: the text does not do, or this task's examples are nothing that can be typed.
        """
        raise ValueError(f"--input is {text!r}, but the examples of {type(self).__name__} are no text.")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves all of a batch but its lengths: reading lengths from a GPU would make every step wait for it."""
        if not (isinstance(batch, tuple) and hasattr(batch, "_fields")):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return type(batch)(
            *(
                part.to(device, non_blocking=True)
                if isinstance(part, Tensor) and not name.endswith("lengths")
                else part
                for name, part in zip(batch._fields, batch, strict=True)
            )
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
