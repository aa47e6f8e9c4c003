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
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tasks.base import Evaluation, Task

# Attributes that are set at every step and hold neither modules nor parameters.
HIGHEST_RATE = 1e30
"""Beyond it the steps of PyTorch's optimisers leave float32."""

_PLAIN = frozenset({"_current_fx_name", "latest_loss", "gradient_norm", "_latest", "sequences", "_unsettled"})


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

    Raises:
        ValueError: the optimiser refuses its arguments, or a learning rate is above 1e30.

    Attributes:
        watched: whether a callback looks at every loss and gradient (``memnet.training.NumericalHealth``).
        latest_loss: of the last training batch.
        gradient_norm: of this step before clipping, where somebody has computed it.
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
        self.provenance: dict[str, Any] = {}
        self.sequences = 0
        self._unsettled = 0
        self.seconds = 0.0
        self._pending: list[tuple[Tensor, dict[str, Tensor]]] = []
        self.watched = False
        self.latest_loss = torch.zeros(())
        self.gradient_norm: Tensor | None = None
        self._latest: dict[str, Tensor] | None = None
        self._written: dict[str, Tensor] = {}
        self._answers: dict[str, list[tuple[str, str]]] = {}
        self._totals: dict[str, Tensor] = {}
        self._started = time.monotonic()
        self._optimizer()  # made once before anything is written, to see whether it can be

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the running hook some forty times a step, and a module's own way of setting is slow.
        if name in _PLAIN:
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
        optimizer = self._optimizer()
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError("model.scheduler is a ReduceLROnPlateau, but it must be one that needs no metric.")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _optimizer(self) -> Optimizer:
        parameters = self.network.parameters()
        if self.make_optimizer is None:
            return Adam(parameters, lr=1e-3)
        try:
            optimizer = self.make_optimizer(parameters)
        except ValueError as error:
            raise ValueError(f"model.optimizer cannot be made: {str(error).rstrip('.')}.") from error
        for group in optimizer.param_groups:
            if group.get("lr", 0) > HIGHEST_RATE:
                raise ValueError(f"model.optimizer.lr is {group['lr']:g}, but must be at most {HIGHEST_RATE:g}.")
        return optimizer

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
        self.gradient_norm = None
        # Where reading the loss makes nobody wait: an accelerator would, and so would the other processes.
        self._check_every_step = self.device.type == "cpu" and self.trainer.world_size == 1 and not self.watched

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The task's loss. Metrics are kept as they are: Lightning's ``self.log`` costs more than a small model."""
        try:
            evaluation = self._task.evaluate(self.network, batch)
        except ValueError as error:
            if _is_finite(batch):
                raise
            # The network has seen it, but knows no step.
            if not self.watched:
                raise self._non_finite(math.nan, batch, self.trainer.global_step + 1) from error
            # Who watches says so, after all processes have exchanged their gradients: none may leave on its own.
            loss = math.nan * torch.stack([each.sum() for each in self.network.parameters()]).sum()
            self.latest_loss, self._latest = loss.detach(), None
            return loss
        loss = evaluation.loss
        if evaluation.loss_count is not None and self.trainer.world_size > 1:
            # Gradients are averaged over processes as if each had as many symbols as the others.
            total = self.trainer.strategy.reduce(evaluation.loss_count.clone(), reduce_op="sum")
            loss = loss * (evaluation.loss_count * self.trainer.world_size / total)
        self.latest_loss = loss.detach()
        if self._check_every_step and not math.isfinite(self.latest_loss.item()):
            raise self._non_finite(self.latest_loss, batch, self.trainer.global_step + 1)
        self._latest = evaluation.metrics
        return loss

    # Lightning asks for the signature anew at every step.
    training_step.__signature__ = inspect.signature(training_step)  # type: ignore[attr-defined]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts sequences, and every ``log_every_n_steps`` writes the means since the last time."""
        if self._latest is not None:
            self._pending.append((self.latest_loss, self._latest))
            own = _num_sequences(self._latest)
            self.sequences += own * self.trainer.world_size
            self._unsettled += own
        every, step = self.trainer.log_every_n_steps, self.trainer.global_step  # type: ignore[attr-defined]
        # When gradients are accumulated, several batches end at the same step.
        if every and step % every == 0 and step != self._written_step and self._pending:
            self._written_step = step
            self._log_training(batch)
        elif not every and len(self._pending) >= 1000:
            self._pending.clear()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as Lightning does, but by the norm that was already computed where there is one."""
        norm = self.gradient_norm
        if norm is None or not gradient_clip_val or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def leave_out(self) -> None:
        """The batch at hand is not learned from, so it does not count."""
        self._latest = None

    def forget_pending(self) -> None:
        """Drops the metrics that were not written yet, as training went back to before them."""
        self._pending.clear()

    def _log_training(self, batch: Any) -> None:
        self._written = self.running_means()
        means = {f"train/{name}": float(mean) for name, mean in self._means_of_all().items()}
        self._pending.clear()
        self._settle()
        if not math.isfinite(means["train/loss"]):
            raise self._non_finite(means["train/loss"], batch, self.trainer.global_step)
        if self.make_scheduler is not None:
            means["lr"] = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self._write(means)

    def _means_of_all(self) -> dict[str, Tensor]:
        """The means over all processes, of which one may have a sequence more than another."""
        if self.trainer.world_size == 1:
            return self._written
        own = self._gathered()
        parts = torch.stack([torch.stack([each.sum(), each.new_tensor(len(each))]) for each in own.values()])
        sums, counts = self.trainer.strategy.reduce(parts.double(), reduce_op="sum").unbind(1)
        return dict(zip(own, sums / counts, strict=True))

    def _settle(self) -> None:
        """Counts sequences exactly, where a process may have had one more or less than the first."""
        if self.trainer.world_size > 1 and self._unsettled:
            own = torch.tensor(float(self._unsettled), device=self.device, dtype=torch.float64)
            total = self.trainer.strategy.reduce(own.clone(), reduce_op="sum")
            self.sequences += int(total.item()) - self._unsettled * self.trainer.world_size
        self._unsettled = 0

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

    def on_validation_epoch_start(self) -> None:
        """Forgets what an interrupted validation has left."""
        self._totals.clear()
        self._answers.clear()

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
        sequences = _num_sequences(evaluation.metrics)
        counts = dict.fromkeys(evaluation.metrics, sequences)
        counts["loss"] = sequences if evaluation.loss_count is None else int(evaluation.loss_count)
        sums = {name: values.detach().to(self._wide).sum() for name, values in evaluation.metrics.items()}
        sums["loss"] = evaluation.loss.detach().to(self._wide) * counts["loss"]
        for name, total in sums.items():
            part = torch.stack([total, total.new_tensor(counts[name])])
            key = f"{prefix}/{name}"
            self._totals[key] = self._totals[key] + part if key in self._totals else part
        if evaluation.answers is not None:
            self._answers.setdefault(prefix, []).extend(evaluation.answers)

    @property
    def _wide(self) -> torch.dtype:
        return torch.float32 if self.device.type == "mps" else torch.float64

    def _log_corpus(self) -> None:
        """Logs means over all processes, and what is no mean. Lightning's own rounds the counts that it divides by."""
        totals, self._totals = self._totals, {}
        sums, counts = self.trainer.strategy.reduce(torch.stack(list(totals.values())), reduce_op="sum").unbind(1)
        means = dict(zip(totals, (sums / counts).tolist(), strict=True))
        self.log_dict(means, logger=False)
        answers, self._answers = self._answers, {}
        for prefix, own in answers.items():
            parts: list[Any] = [own]
            if self.trainer.world_size > 1:
                parts = [None] * self.trainer.world_size
                torch.distributed.all_gather_object(parts, own)
            short = {key.removeprefix(f"{prefix}/"): x for key, x in means.items() if key.startswith(f"{prefix}/")}
            metrics = self.task.corpus_metrics([answer for part in parts for answer in part], short)
            self.log_dict({f"{prefix}/{name}": float(value) for name, value in metrics.items()}, logger=False)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[str]:
        """Every example of the batch and the network's answer to it, as text."""
        evaluation = self.task.evaluate(self.network, batch)
        items = range(_num_sequences(evaluation.metrics))
        return [self.task.describe(batch, evaluation.outputs, item) for item in items]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps how far training has come."""
        if self.trainer.state.fn == "fit":
            self._settle()
        checkpoint["run_name"] = self.run_name
        checkpoint["provenance"] = self.provenance
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
