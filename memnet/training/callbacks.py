"""What happens around training: checkpoints, stopping when solved, exact resuming, clean interrupts."""

import math
import random
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from memnet.checks import check_positive
from memnet.training.averaging import AveragedWeights
from memnet.training.experiment import Experiment, NonFiniteError
from memnet.training.runs import RunFolder
from memnet.training.writing import WholeCheckpoints, write_whole


class Checkpoints(Checkpoint):
    """Keeps ``best.ckpt``, chosen by the task's monitor, and ``last.ckpt``, from which training can go on.

    Of validations that are equally good the last one counts: once all questions of a small validation set are answered,
    those that nobody has asked go on getting better.

    Both are replaced as a whole or not at all, and a disk that is full costs that checkpoint only. The best one has no
    optimiser state. The last one is also written when training is interrupted or fails. Neither is ever written with
    parameters that a NaN has reached.

    Args:
        run: where the checkpoints go.
    """

    def __init__(self, run: RunFolder):
        self.run = run
        self.best_value = math.inf
        self.best_sequences = 0

    @property
    def state_key(self) -> str:
        """The same for every run folder, so that a resumed run finds its state."""
        return "memnet.Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know to keep the best checkpoint the best."""
        return {"best_value": self.best_value, "best_sequences": self.best_sequences}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best_value = state_dict["best_value"]
        self.best_sequences = state_dict["best_sequences"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Sees to it that what is saved in this run, by whomever, is saved whole."""
        # Strategies that spread a checkpoint over several files have a way of their own.
        if stage == "fit" and type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()

    def carry_over(self, checkpoint: Path) -> None:
        """Copies the best checkpoint of the run that is resumed, until a better one is found.

        Args:
            checkpoint: the checkpoint that training starts from.
        """
        best = checkpoint.parent / self.run.best.name
        if best.is_file():
            write_whole(self.run.best, best.read_bytes())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the best and the last checkpoint."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Experiment)
        monitor = f"val/{pl_module.task.monitor}"
        if monitor not in trainer.callback_metrics:
            known = ", ".join(name for name in trainer.callback_metrics if name.startswith("val/"))
            raise ValueError(f"the task's monitor is {pl_module.task.monitor!r}, but validation gave only {known}.")
        value = float(trainer.callback_metrics[monitor])
        if not math.isfinite(value):
            raise NonFiniteError(f"{monitor} became {value} at step {trainer.global_step}.")
        if value <= self.best_value and self._save_best(trainer, pl_module):
            self.best_value, self.best_sequences = value, pl_module.sequences
        self.save_last(trainer, pl_module)

    def save_last(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes ``last.ckpt``.

        Raises:
            NonFiniteError: a parameter is spoilt; the file stays what it was.
        """
        self._save(trainer, pl_module, self.run.last)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the last checkpoint, and the best one if there was no validation to choose it."""
        self.save_last(trainer, pl_module)
        if not trainer.strategy.broadcast(self.run.best.exists()):
            self._save_best(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Saves the last checkpoint unless its parameters are spoilt or nothing was learned yet."""
        # A KeyboardInterrupt, unlike the clean one, may have come amid the optimiser's step.
        spoilt = isinstance(exception, NonFiniteError | KeyboardInterrupt) or not all(
            parameter.isfinite().all() for parameter in pl_module.parameters()
        )
        # With several processes all must save together, and only a signal reaches them all.
        together = trainer.world_size == 1 or isinstance(exception, SIGTERMException)
        if trainer.state.fn == "fit" and trainer.global_step > 0 and together and not spoilt:
            self.save_last(trainer, pl_module)

    def _save_best(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        # The weights that were validated. Lightning asks callbacks about whole checkpoints only.
        with ExitStack() as stack:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, AveragedWeights):
                    stack.enter_context(callback.applied(pl_module))
            return self._save(trainer, pl_module, self.run.best, weights_only=True)
        raise AssertionError("no context above swallows an exception")

    @staticmethod
    def _save(trainer: pl.Trainer, pl_module: pl.LightningModule, path: Path, weights_only: bool = False) -> bool:
        """Whether it was written."""
        for name, parameter in pl_module.named_parameters():
            if not parameter.isfinite().all():
                raise NonFiniteError(
                    f"{name} holds NaN or infinity at step {trainer.global_step}, so {path.name} stays what it was."
                )
        trainer.save_checkpoint(path, weights_only=weights_only)
        return not trainer.strategy.broadcast(getattr(trainer.strategy.checkpoint_io, "failed", False))


class StopWhenSolved(Callback):
    """Ends training when validation stays below a threshold.

    Args:
        threshold: largest value of the task's monitor that counts as solved; None if nothing does.
        validations: how many validations in a row have to reach it. A single one may come between two relapses.

    Raises:
        ValueError: ``validations`` is not positive.
    """

    def __init__(self, threshold: float | None, validations: int = 1):
        self.threshold = threshold
        self.validations = check_positive("solved_for", validations)
        self.reached = 0
        self.value = math.inf

    @property
    def solved(self) -> bool:
        """Whether it has been reached often enough."""
        return self.reached >= self.validations

    def state_dict(self) -> dict[str, Any]:
        """How often in a row it was reached, for a run that is resumed."""
        return {"reached": self.reached}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from there."""
        self.reached = state_dict["reached"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Asks the trainer to stop when the task is solved."""
        if self.threshold is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Experiment)
        self.value = float(trainer.callback_metrics[f"val/{pl_module.task.monitor}"])
        self.reached = self.reached + 1 if self.value <= self.threshold else 0
        if self.solved:
            trainer.should_stop = True


class ResumeExactly(Callback):
    """Lets a resumed run end with the very parameters of one that was never interrupted.

    For this the training stream goes on at the next batch, the random generators go on where they were, and two
    counters of Lightning's, off by one when a checkpoint is saved after validation or amid a step, are put right.
    """

    def __init__(self) -> None:
        self._random_state: dict[str, Any] | None = None
        self._resumed = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the random generators and the count of batches."""
        own = random_state()
        checkpoint["random_state"] = own
        if trainer.world_size > 1:
            states: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
            checkpoint["random_state"], checkpoint["random_states"] = states[0], states
        checkpoint["batches_consumed"] = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Sets where the training stream begins."""
        if trainer.state.fn == "fit" and "batches_consumed" in checkpoint:
            states = checkpoint.get("random_states", [checkpoint["random_state"]])
            same = len(states) == trainer.world_size
            self._random_state = states[trainer.global_rank] if same else None
            if not same and trainer.is_global_zero:
                print(
                    f"note: the checkpoint is of {len(states)} processes and these are {trainer.world_size}, so random "
                    "numbers, such as dropout's, begin anew",
                    file=sys.stderr,
                )
            self._resumed = True
            assert isinstance(pl_module, Experiment)
            pl_module.task.batches_consumed = checkpoint["batches_consumed"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives every process but the first random numbers of its own: they begin with the same seed."""
        if trainer.global_rank > 0 and self._random_state is None:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the first batch after resuming, restores generators and counters."""
        if not self._resumed:
            return
        self._resumed = False
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = trainer.global_step
        loop.batch_progress.total.ready = loop.batch_progress.total.completed + 1
        if self._random_state is not None:
            set_random_state(self._random_state)


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process, in values that ``weights_only=True`` can load."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back to what ``random_state`` returned.

    Args:
        state: that.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([row.cpu() for row in state["cuda"]])


class CleanInterrupt(Callback):
    """The first Ctrl-C lets the step finish, so that ``last.ckpt`` is whole; a second one stops at once.

    Attributes:
        interrupted: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over SIGINT for as long as training lasts."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._remember)

    def _remember(self, signum: int, frame: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leaves the loop as SIGTERM does: after the step and its validation, where a checkpoint is exact."""
        if self.interrupted:
            trainer._signal_connector.received_sigterm = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives SIGINT back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives SIGINT back."""
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
