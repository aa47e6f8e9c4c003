"""An average over training's last weights: it is validated, kept and loaded, while training itself goes on as ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from memnet.checks import check_fraction
from memnet.training.experiment import Experiment

_PREFIX = "network."


class AveragedWeights(Callback):
    """Validates and saves an exponential moving average of the weights (Polyak and Juditsky 1992).

    At small batches the weights keep trembling around what they have learned, and one bad step spoils a validation;
    their average does not. Torch's own averaging in place of Lightning's callback, which cannot copy a module whose
    trainer shows progress, saves the last weights as the best, and loses its place when validation is interrupted.

    ``state_dict`` in a checkpoint is the average; ``last.ckpt`` also holds the weights that training goes on from.

    Args:
        decay: how much of the average a step keeps, from 0 to below 1; the average is over some 1 / (1 - decay) steps.

    Raises:
        ValueError: ``decay`` is out of range.
    """

    def __init__(self, decay: float = 0.999):
        self.decay = check_fraction("decay", decay)
        self._average: AveragedModel | None = None
        self._applied = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Makes the average, on the network's device."""
        assert isinstance(pl_module, Experiment)
        if self._average is None:
            self._average = AveragedModel(pl_module.network, multi_avg_fn=get_ema_multi_avg_fn(self.decay))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any) -> None:
        """Takes in the weights after a step of the optimiser."""
        assert isinstance(pl_module, Experiment) and self._average is not None
        if trainer.global_step > int(self._average.n_averaged):  # gradients of several batches may make one step
            self._average.update_parameters(pl_module.network)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the average into the network."""
        if self._average is not None and not trainer.sanity_checking:
            self._swap(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts training's own weights back."""
        if self._applied:
            self._swap(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Puts them back when validation is interrupted, before anything is saved."""
        if self._applied:
            self._swap(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the average in the network, now that everything is saved."""
        self._swap(pl_module)

    @contextmanager
    def applied(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """The average stands in the network while the block runs, as during validation.

        Args:
            pl_module: what is trained.
        """
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Saves the average as the weights, and the weights that training goes on from beside them."""
        if self._average is not None:
            checkpoint["training_weights"] = checkpoint["state_dict"]
            average = self._average.module.state_dict()
            checkpoint["state_dict"] = {f"{_PREFIX}{name}": value for name, value in average.items()}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Goes on from the saved weights and average; a checkpoint without them begins an average of its own."""
        if trainer.state.fn != "fit" or "training_weights" not in checkpoint:
            return
        assert isinstance(pl_module, Experiment)
        self._average = AveragedModel(pl_module.network, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
        self._average.n_averaged.fill_(checkpoint["global_step"])
        pl_module.load_state_dict(checkpoint["training_weights"])

    @torch.no_grad()
    def _swap(self, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Experiment) and self._average is not None
        if int(self._average.n_averaged) == 0:
            return
        for own, average in zip(_tensors(pl_module.network), _tensors(self._average.module), strict=True):
            kept = own.clone()
            own.copy_(average)
            average.copy_(kept)
        self._applied = not self._applied


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
