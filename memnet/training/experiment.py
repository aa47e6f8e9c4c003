"""The one LightningModule: it trains any network on any task and knows neither."""

import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tasks.base import Evaluation, Task


class NonFiniteError(ValueError):
    """Training met a NaN or an infinity; nothing trained from here on would be worth keeping."""


class Experiment(pl.LightningModule):
    """Trains ``network`` on the task that is the trainer's datamodule.

    Built by the command line or ``memnet.training.experiment_from_config``, its checkpoints hold the class paths and
    arguments of everything in it as plain values, so that ``memnet.load`` needs no pickled code. One built by hand
    trains as well, but its checkpoints hold weights only.

    Args:
        network: the model that is trained.
        optimizer: makes the optimiser from the parameters; ``torch.optim.Adam`` with learning rate 1e-3 by default.
        scheduler: makes the learning-rate scheduler from the optimiser. It is stepped once after every training step.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable], Optimizer] | None = None,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    ):
        super().__init__()
        with warnings.catch_warnings():
            # Lightning would have modules ignored here, but a checkpoint saved so cannot be rebuilt.
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module` and is already saved.*")
            self.save_hyperparameters(logger=False)
        if not isinstance(self.hparams.get("network"), dict):
            self.hparams.clear()  # built by hand: the arguments are live objects, which would be pickled whole
        self.network = network
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.run_name: str | None = None
        self.sequences = 0
        self.seconds = 0.0
        self._pending: list[tuple[Tensor, dict[str, Tensor]]] = []
        self._latest: tuple[Tensor, dict[str, Tensor]] = (torch.zeros(()), {})
        self._written: dict[str, Tensor] = {}
        self._answers: dict[str, list[tuple[str, str]]] = {}
        self._started = time.monotonic()

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some forty times a step, and a module's own way of setting is slow.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def task(self) -> Task:
        """The trainer's datamodule."""
        task = getattr(self.trainer, "datamodule", None)
        if not isinstance(task, Task):
            raise ValueError(
                f"the trainer's datamodule is {type(task).__name__}, but an Experiment needs a tasks.Task."
            )
        return task

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network answers."""
        return self.network(*args, **kwargs)

    def setup(self, stage: str) -> None:
        """Refuses a network that does not fit the task."""
        self.task.check_model(self.network)

    def configure_optimizers(self) -> Any:
        """The optimiser and, where there is one, the scheduler."""
        parameters = self.network.parameters()
        optimizer = self.make_optimizer(parameters) if self.make_optimizer else Adam(parameters, lr=1e-3)
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("model.scheduler is a ReduceLROnPlateau, but it must be one that needs no metric.")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Goes on counting the time where the checkpoint left off."""
        self._started = time.monotonic() - self.seconds
        # What a resumed checkpoint holds was read to the CPU.
        self._pending = [
            (loss.to(self.device), {name: values.to(self.device) for name, values in metrics.items()})
            for loss, metrics in self._pending
        ]
        self._written_step = self.trainer.global_step
        self._task = self.task
        # Where reading the loss makes nobody wait: an accelerator would, and so would the other processes.
        self._check_every_step = self.device.type == "cpu" and self.trainer.world_size == 1

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The task's loss. Metrics are kept as they are: Lightning's ``self.log`` costs more than a small model."""
        try:
            evaluation = self._task.evaluate(self.network, batch)
        except ValueError as error:
            if _is_finite(batch):
                raise
            # The network has seen it, but knows no step.
            raise self._non_finite(math.nan, batch, self.trainer.global_step + 1) from error
        loss = evaluation.loss.detach()
        if self._check_every_step and not math.isfinite(loss.item()):
            raise self._non_finite(loss, batch, self.trainer.global_step + 1)
        self._latest = (loss, evaluation.metrics)
        return evaluation.loss

    # Lightning asks for the signature anew at every step.
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts sequences, and every ``log_every_n_steps`` writes the means since the last time."""
        self._pending.append(self._latest)
        self.sequences += _num_sequences(self._latest[1]) * self.trainer.world_size
        every, step = self.trainer.log_every_n_steps, self.trainer.global_step  # type: ignore[attr-defined]
        # When gradients are accumulated, several batches end at the same step.
        if every and step % every == 0 and step != self._written_step:
            self._written_step = step
            self._log_training(batch)
        elif not every and len(self._pending) >= 1000:
            self._pending.clear()

    def _log_training(self, batch: Any) -> None:
        self._written = self.running_means()
        self._pending.clear()
        reduce = self.trainer.strategy.reduce
        means = {f"train/{name}": float(reduce(mean, reduce_op="mean")) for name, mean in self._written.items()}
        if not math.isfinite(means["train/loss"]):
            raise self._non_finite(means["train/loss"], batch, self.trainer.global_step)
        if self.make_scheduler is not None:
            means["lr"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._write(means)

    def running_means(self) -> dict[str, Tensor]:
        """Means over the sequences since metrics were last written, or those; empty before the first step."""
        if not self._pending:
            return self._written
        return {name: values.mean() for name, values in self._gathered().items()}

    def _gathered(self) -> dict[str, Tensor]:
        names = self._pending[0][1]
        metrics = {name: torch.cat([metrics[name] for _, metrics in self._pending]) for name in names}
        return {"loss": torch.cat([loss.reshape(-1) for loss, _ in self._pending])} | metrics

    def elapsed(self) -> float:
        """Seconds of training so far, those before a resumed checkpoint included."""
        return time.monotonic() - self._started

    def on_train_end(self) -> None:
        """Stops counting the time."""
        self.seconds = self.elapsed()

    def _write(self, metrics: dict[str, float]) -> None:
        row = metrics | {"sequences": self.sequences, "seconds": round(self.elapsed(), 3)}
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.trainer.global_step)
            logger.save()

    def _non_finite(self, loss: Tensor | float, batch: Any, step: int) -> NonFiniteError:
        where = f"at step {step} ({self.sequences:,} sequences)"
        if not _is_finite(batch):
            return NonFiniteError(f"the training batch holds NaN or infinite values {where}.")
        return NonFiniteError(
            f"the training loss became {float(loss)} {where}; a lower learning rate or tighter clipping may help."
        )

    def validation_step(self, batch: Any, batch_idx: int) -> Evaluation:  # type: ignore[override]
        """Adds a validation batch to the means over sequences; callbacks get what the task made of it."""
        evaluation = self.task.evaluate(self.network, batch)
        self._log_evaluation("val", evaluation)
        return evaluation

    def on_validation_epoch_end(self) -> None:
        """Adds what the task measures over the whole validation set."""
        self._log_corpus()

    def on_validation_end(self) -> None:
        """Writes the validation means beside the count of sequences, in ``fit`` only."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            metrics = self.trainer.callback_metrics
            self._write({name: float(value) for name, value in metrics.items() if name.startswith("val/")})

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch of one of the task's test sets to that set's means over sequences."""
        name = self.task.test_names[dataloader_idx]
        self._log_evaluation(f"test/{name}", self.task.evaluate(self.network, batch))

    def on_test_epoch_end(self) -> None:
        """Adds what the task measures over each whole test set."""
        self._log_corpus()

    def _log_evaluation(self, prefix: str, evaluation: Evaluation) -> None:
        if self.trainer.received_sigterm and self.trainer.state.fn != "fit":
            raise SIGTERMException  # fit stops at the end of a step; Lightning's other loops would run to their end
        means = {f"{prefix}/{name}": values.float().mean() for name, values in evaluation.metrics.items()}
        self.log_dict(
            {f"{prefix}/loss": evaluation.loss} | means,
            on_step=False,
            on_epoch=True,
            batch_size=_num_sequences(evaluation.metrics),
            sync_dist=True,
            logger=False,
            add_dataloader_idx=False,
        )
        if evaluation.answers is not None:
            self._answers.setdefault(prefix, []).extend(evaluation.answers)

    def _log_corpus(self) -> None:
        answers, self._answers = self._answers, {}
        for prefix, own in answers.items():
            parts: list[Any] = [own]
            if self.trainer.world_size > 1:
                parts = [None] * self.trainer.world_size
                torch.distributed.all_gather_object(parts, own)
            measured = self.trainer.callback_metrics.items()
            means = {key.removeprefix(f"{prefix}/"): float(x) for key, x in measured if key.startswith(f"{prefix}/")}
            metrics = self.task.corpus_metrics([answer for part in parts for answer in part], means)
            self.log_dict({f"{prefix}/{name}": float(value) for name, value in metrics.items()}, logger=False)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[str]:
        """Every example of the batch and the network's answer to it, as text."""
        evaluation = self.task.evaluate(self.network, batch)
        items = range(_num_sequences(evaluation.metrics))
        return [self.task.describe(batch, evaluation.outputs, item) for item in items]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps how far training has come."""
        checkpoint["run_name"] = self.run_name
        checkpoint["pending_metrics"] = self._gathered() if self._pending else {}
        checkpoint["sequences"] = self.sequences
        checkpoint["seconds"] = self.elapsed() if self.trainer.state.fn == "fit" else self.seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on from there."""
        self.sequences = checkpoint.get("sequences", 0)
        self.seconds = checkpoint.get("seconds", 0.0)
        pending = dict(checkpoint.get("pending_metrics", {}))
        self._pending = [(pending.pop("loss"), pending)] if pending else []


def _num_sequences(metrics: dict[str, Tensor]) -> int:
    return len(next(iter(metrics.values())))


def _is_finite(batch: Any) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in _floats(batch))


def _floats(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        if batch.is_floating_point():
            yield batch
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _floats(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _floats(value)
