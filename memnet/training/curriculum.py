"""Short examples first: their greatest length doubles each time they are learned (Rae et al. 2016, sec. 4.2)."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from memnet.checks import check_greater_than_zero, check_positive
from tasks.base import SequenceBatch, check_order
from tasks.curriculum import GrowingTask, Growth


class Curriculum(Callback):
    """Doubles the training examples' greatest length when a target channel's mean training loss falls below a bound.

    It looks at so many batches at a time, and begins anew with each new length. Validation and test sets stay as they
    are. A resumed run draws the very examples of one that was never interrupted.

    Args:
        start: the greatest length at first, in what the task counts: vectors of ``tasks.Copy``, items of
            ``tasks.AssociativeRecall``, vectors and repeats of ``tasks.RepeatCopy``, edges of the paths of
            ``tasks.ShortestPath`` and ``tasks.GraphTraversal``, whose graphs grow with them.
        stop: where it ends.
        bound: greater than 0, in nats for each channel of the targets; a guess costs 0.69 where each is a bit, and 0.23
            where ten channels are a digit.
        num_batches: how many batches are looked at.

    Raises:
        ValueError: a number is not positive, or ``start`` is larger than ``stop``; in training, the task's examples
            cannot be limited.
    """

    def __init__(self, start: int, stop: int, bound: float = 0.01, num_batches: int = 100):
        self.start = check_positive("start", start)
        self.stop = check_positive("stop", stop)
        check_order(start=start, stop=stop)
        self.bound = check_greater_than_zero("bound", bound)
        self.num_batches = check_positive("num_batches", num_batches)
        self.growth = Growth(start)
        self._batches = 0
        self._looked_at = 0
        self._sum = torch.zeros(2)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to grow at the same batches."""
        return {
            "longest": dict(self.growth.longest),
            "batches": self._batches,
            "looked_at": self._looked_at,
            "sum": self._sum.cpu(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.growth.longest = dict(state_dict["longest"])
        self._batches, self._looked_at = state_dict["batches"], state_dict["looked_at"]
        self._sum = state_dict["sum"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Limits the task's training examples, before any is drawn."""
        if stage != "fit":
            return
        task = getattr(trainer, "datamodule", None)
        if not isinstance(task, GrowingTask):
            raise ValueError(
                f"Curriculum is given, but the examples of {type(task).__name__} cannot be limited in length: it must "
                "be a tasks.curriculum.GrowingTask, such as tasks.Copy."
            )
        task.growth = self.growth

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the batch's loss, and doubles the length if it is time."""
        assert isinstance(batch, SequenceBatch)
        self._batches += 1
        longest = self.growth.at(self._batches + 1)
        if longest >= self.stop:
            return
        first = max(self.growth.longest)
        if self._batches <= first:
            return  # drawn before the length last grew
        self._sum = self._sum.to(batch.mask.device) + _nats_and_bits(outputs["loss"], batch)
        self._looked_at += 1
        if self._looked_at < self.num_batches:
            return
        nats, bits = trainer.strategy.reduce(self._sum, reduce_op="sum").tolist()
        if nats / bits < self.bound:
            # The next batch may have been drawn already, and will not be drawn again where a run is resumed.
            self.growth.longest[self._batches + 1] = min(2 * longest, self.stop)
        self._looked_at, self._sum = 0, torch.zeros(2)


def _nats_and_bits(loss: Tensor, batch: SequenceBatch) -> Tensor:
    """The batch's loss in all, and how many target bits it is for."""
    bits = batch.mask.sum() * batch.targets.shape[-1]
    return torch.stack([loss.detach().float() * len(batch.targets), bits.float()])
