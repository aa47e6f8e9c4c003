"""How far training is: a live line in a terminal, a plain line now and then elsewhere."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from memnet.training.experiment import Experiment

# A look at the clock is all that most steps pay.
_SECONDS_LIVE = 0.25
_SECONDS_PLAIN = 30.0


class Progress(ProgressBar):
    """Steps, the task's metric in training and validation, sequences a second, and the time left.

    Without a terminal it prints a line after every validation, and every half minute in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._live = self._console.is_terminal
        self._enabled = True
        self._bar: Bar | None = None
        self._row: TaskID | None = None
        self._next = 0.0
        self._validated = ""
        self._speed = _Speed()

    def enable(self) -> None:
        """Shows it, on the first process."""
        self._enabled = True

    def disable(self) -> None:
        """Hides it, on the other processes."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints above the bar.

        Args:
            *args: what to print.
            **kwargs: accepted for Lightning's sake.
        """
        self._console.print(*args)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says what is trained where, and draws the empty bar."""
        assert isinstance(pl_module, Experiment)
        self._speed = _Speed(pl_module.sequences)
        self._next = time.monotonic() + (0.0 if self._live else _SECONDS_PLAIN)
        if not self._enabled:
            return
        count = sum(parameter.numel() for parameter in pl_module.network.parameters())
        self._say(
            f"{type(pl_module.network).__name__} with {count:,} parameters on {type(pl_module.task).__name__}, "
            f"{pl_module.device}, in {trainer.default_root_dir}"
        )
        if self._live:
            columns = (TextColumn("{task.fields[steps]}"), BarColumn(bar_width=None), TextColumn("{task.fields[text]}"))
            # Rich's own refreshing thread would compete with training for the interpreter.
            self._bar = Bar(*columns, console=self._console, expand=True, auto_refresh=False)
            total = trainer.max_steps if trainer.max_steps > 0 else None
            self._row = self._bar.add_task("", total=total, completed=trainer.global_step, steps="", text="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraws, when it is time."""
        if self._enabled and time.monotonic() >= self._next:
            self._next = time.monotonic() + (_SECONDS_LIVE if self._live else _SECONDS_PLAIN)
            self._show(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows what validation found."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not self._enabled:
            return
        assert isinstance(pl_module, Experiment)
        monitor = f"val/{pl_module.task.monitor}"
        if monitor in trainer.callback_metrics:
            self._validated = f"{monitor} {float(trainer.callback_metrics[monitor]):.4g}"
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leaves the last state standing."""
        self._close(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leaves the last state standing."""
        self._close(trainer, pl_module)

    def _close(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bar is not None:
            self._show(trainer, pl_module)
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Experiment)
        step, end = trainer.global_step, trainer.max_steps
        speed = self._speed.update(pl_module.sequences)
        elapsed = pl_module.elapsed()
        parts = [f"{name} {float(value):.4g}" for name, value in self._metrics(pl_module).items()]
        parts += [self._validated] * bool(self._validated) + [f"{speed:,.0f} sequences/s", _clock(elapsed)]
        steps = f"{step:,}/{end:,}" if end > 0 else f"{step:,}"
        if self._bar is None:
            self._say(f"step {steps}  {pl_module.sequences:,} sequences  {'  '.join(parts)}")
            return
        assert self._row is not None
        self._bar.update(self._row, completed=step, steps=steps, text="  ".join(parts))
        self._bar.refresh()

    @staticmethod
    def _metrics(experiment: Experiment) -> dict[str, Any]:
        monitor = experiment.task.monitor
        means = experiment.running_means()
        return {monitor: means[monitor]} if monitor in means else {}

    def _say(self, line: str) -> None:
        # soft_wrap: a log keeps one line a line, however narrow rich thinks it is.
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Speed:
    """Sequences a second, over the last few looks."""

    def __init__(self, sequences: int = 0):
        self._looks = [(time.monotonic(), sequences)]

    def update(self, sequences: int) -> float:
        self._looks = [*self._looks[-20:], (time.monotonic(), sequences)]
        (start, before), (now, after) = self._looks[0], self._looks[-1]
        return (after - before) / max(now - start, 1e-9)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


__all__ = ["Progress"]
