"""Training that begins without the softmaxes of a memory network (Sukhbaatar et al. 2015, sec. 4.1, "linear start")."""

from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from memnet.checks import check_positive
from memnet.clipped_sgd import HalvingLR
from memnet.models.memn2n import LateSoftmax
from memnet.training.experiment import Experiment
from tasks.base import Evaluation


class LinearStart(Callback):
    """Puts a network's ``LateSoftmax`` in when the validation loss no longer falls, in an ensemble for each member.

    The learning rate's schedule, if it is a ``memnet.HalvingLR``, stands still until then and starts with it.

    The paper ends the linear start "when the validation loss stopped decreasing"; the authors' program trains linearly
    for 20 epochs whatever the validation says. With a validation each epoch, of the 20 bAbI tasks one (16) is not
    learned when ``patience`` is 3: its loss falls again later.

    Args:
        patience: it ends after so many validations in a row without a new lowest loss.
        longest: it ends after so many validations in any case; None for no such limit.
        monitor: the task's metric that is the loss.

    Raises:
        ValueError: a number is not positive; in training, the network has no ``LateSoftmax``, or the task no such
            metric.
    """

    def __init__(self, patience: int = 6, longest: int | None = 20, monitor: str = "nats"):
        self.patience = check_positive("patience", patience)
        self.longest = None if longest is None else check_positive("longest", longest)
        self.monitor = monitor
        self.validations = 0
        self._lowest: Tensor | None = None
        self._since: Tensor | None = None
        self._sums: Float[Tensor, " member"] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to end it at the same validation."""
        return {"validations": self.validations, "lowest": self._lowest, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.validations = state_dict["validations"]
        self._lowest, self._since = state_dict["lowest"], state_dict["since"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Holds the learning rate's schedule of what is linear."""
        inserted = _inserted(pl_module)
        for schedule in _schedules(trainer):
            schedule.hold(~inserted)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to add up the losses."""
        self._sums = None

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *arguments: Any
    ) -> None:
        """Adds each member's losses."""
        assert isinstance(outputs, Evaluation)
        if self.monitor not in outputs.metrics:
            raise ValueError(f"monitor is {self.monitor!r}, but the task's metrics are {', '.join(outputs.metrics)}.")
        # Sequences of an ensemble are counted member by member.
        losses = outputs.metrics[self.monitor].reshape(len(_inserted(pl_module)), -1).sum(1)
        self._sums = losses if self._sums is None else self._sums + losses

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the softmax in where it is time."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert self._sums is not None
        losses = trainer.strategy.reduce(self._sums, reduce_op="sum").cpu()
        self.validations += 1
        if self._lowest is None or self._since is None:
            self._lowest, self._since = torch.full_like(losses, torch.inf), torch.zeros_like(losses)
        self._since = torch.where(losses < self._lowest, 0, self._since + 1)
        self._lowest = torch.minimum(losses, self._lowest)
        due = self._since >= self.patience
        if self.longest is not None and self.validations >= self.longest:
            due[:] = True
        self._insert(trainer, pl_module, due & ~_inserted(pl_module))

    def _insert(self, trainer: pl.Trainer, pl_module: pl.LightningModule, members: Bool[Tensor, " member"]) -> None:
        if not members.any():
            return
        for softmax in _softmaxes(pl_module):
            softmax.insert(members)
        for schedule in _schedules(trainer):
            schedule.start(members)


def _softmaxes(pl_module: pl.LightningModule) -> list[LateSoftmax]:
    assert isinstance(pl_module, Experiment)
    found = [module for module in pl_module.network.modules() if isinstance(module, LateSoftmax)]
    if not found:
        raise ValueError(
            f"LinearStart is given, but the {type(pl_module.network).__name__} has no LateSoftmax that it could put in."
        )
    return found


def _inserted(pl_module: pl.LightningModule) -> Bool[Tensor, " member"]:
    return _softmaxes(pl_module)[0].inserted.reshape(-1).cpu()


def _schedules(trainer: pl.Trainer) -> list[HalvingLR]:
    configs = trainer.lr_scheduler_configs
    return [config.scheduler for config in configs if isinstance(config.scheduler, HalvingLR)]
