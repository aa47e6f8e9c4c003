"""What memnet fit adds to a bare training loop, one by one.

The standard Neural Turing Machine on the copy task, in ways that each do what the one before does and one thing more.
All train the same network on the same batches, and end with the same parameters. The clock runs from the third step on.
What counts is the time between two requests for a batch: a whole step with everything around it. One measurement is
hundreds of steps, so this benchmark takes ten times as long as others.
"""

import copy
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import NTM
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.timing import own_clock

if TYPE_CHECKING:
    from tasks import Copy

CLIP, LOG_EVERY = 10.0, 50
UNTIMED = 2
"""Steps at the beginning, for which memory is made."""


@dataclass(frozen=True)
class FitWork:
    """How much is trained in one measurement.

    Attributes:
        batch: how many sequences, of 1 to 20 vectors.
        steps: training steps: enough for the log and the progress bar to be written several times.
    """

    batch: int
    steps: int


WORKS = (FitWork(batch=1, steps=502), FitWork(batch=32, steps=102))


class StopWatch:
    """Hands batches on and notes when each is asked for.

    Args:
        batches: the batches.
    """

    def __init__(self, batches: Iterable[Any]):
        self.batches = batches
        self.asked: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        self.asked.clear()
        batches = iter(self.batches)
        while True:
            self.asked.append(perf_counter())
            try:
                yield next(batches)
            except StopIteration:
                return

    def seconds(self) -> float:
        """Of a step, on average."""
        timed = self.asked[UNTIMED:]
        return (timed[-1] - timed[0]) / (len(timed) - 1)


class Training:
    """One way of training: builds everything anew, trains, and returns the seconds of a step.

    Args:
        network: where every training begins.
        train: trains a network on batches for so many steps.
        batches: gives the batches.
        steps: how many.
    """

    def __init__(
        self,
        network: nn.Module,
        train: Callable[[nn.Module, Iterable[Any], int], None],
        batches: Callable[[], Iterable[Any]],
        steps: int,
    ):
        self.start = network
        self.network = network
        self.train = train
        self.batches = batches
        self.steps = steps

    def __call__(self) -> float:
        """Trains."""
        self.network = copy.deepcopy(self.start).train()
        watch = StopWatch(self.batches())
        self.train(self.network, watch, self.steps)
        return watch.seconds()

    def results(self) -> dict[str, Tensor]:
        """The parameters at the end."""
        return {f"parameter {name}": x for name, x in self.network.named_parameters()}


def run(settings: Settings, works: Sequence[FitWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        with settings.with_threads() as threads, tempfile.TemporaryDirectory(prefix="memnet-bench-") as folder:
            title = title_of(work, threads)
            settings.say(f"  {title}")
            with warnings.catch_warnings():
                ways = ways_of(work, settings.device, Path(folder))
                measured = compare(title, ways, 10 * settings.seconds, own_clock)
            yield _with_shares(measured, work.batch)


def title_of(work: FitWork, threads: int) -> str:
    """What is printed above the measurements.

    Args:
        work: what is trained.
        threads: how many do it.
    """
    return f"batch {work.batch}" + (f", {threads} threads" if threads > 1 else ", 1 thread")


def ways_of(work: FitWork, device: torch.device, folder: Path) -> list[Way]:
    """The ways, from the bare loop to everything that ``memnet fit`` does between two validations.

    Args:
        work: what is trained.
        device: where.
        folder: for the runs' files.
    """
    from pytorch_lightning.callbacks import Callback
    from pytorch_lightning.loggers import Logger

    from memnet.training.callbacks import Checkpoints, CleanInterrupt, ResumeExactly, StopWhenSolved
    from memnet.training.cli import quieten
    from memnet.training.progress import Progress
    from memnet.training.runs import MetricsFile, RunFolder

    quieten()
    task, network = copying(work, device)

    def moved(batch: Any) -> Any:
        return task.transfer_batch_to_device(batch, device, 0)

    def bare(network: nn.Module, batches: Iterable[Any], steps: int) -> None:
        _loop(network, batches, steps, lambda batch: _loss(network, batch))

    ready = [moved(batch) for batch in islice(task.train_dataloader(), work.steps + 1)]

    def with_data(network: nn.Module, batches: Iterable[Any], steps: int) -> None:
        _loop(network, batches, steps, lambda batch: _loss(network, moved(batch)))

    def with_metrics(network: nn.Module, batches: Iterable[Any], steps: int) -> None:
        kept = []

        def loss_of(batch: Any) -> Tensor:
            evaluation = task.evaluate(network, moved(batch))
            kept.append((evaluation.loss.detach(), evaluation.metrics))
            return evaluation.loss

        _loop(network, batches, steps, loss_of, check=True)

    def lightning(log: bool, bar: bool, rest: bool) -> Callable[[nn.Module, Iterable[Any], int], None]:
        def train(network: nn.Module, batches: Iterable[Any], steps: int) -> None:
            made = RunFolder.create(folder, "fit")
            callbacks: list[Callback] = [Progress()] if bar else []
            if rest:
                callbacks = [ResumeExactly(), StopWhenSolved(None), CleanInterrupt(), Checkpoints(made), *callbacks]
            loggers: list[Logger] = [MetricsFile(made)] if log else []
            train_by_lightning(network, batches, steps, device, made.path, callbacks, loggers)

        return train

    trainings: dict[str, tuple[Callable[[nn.Module, Iterable[Any], int], None], Callable[[], Iterable[Any]]]] = {
        "bare loop": (bare, lambda: ready),
        "+ data path": (with_data, task.train_dataloader),
        "+ metrics": (with_metrics, task.train_dataloader),
        "+ Lightning": (lightning(log=False, bar=False, rest=False), task.train_dataloader),
        "+ metrics.csv": (lightning(log=True, bar=False, rest=False), task.train_dataloader),
        "+ progress bar": (lightning(log=True, bar=True, rest=False), task.train_dataloader),
        "+ checkpoints, resuming, Ctrl-C": (lightning(log=True, bar=True, rest=True), task.train_dataloader),
    }
    made = {name: Training(network, train, batches, work.steps) for name, (train, batches) in trainings.items()}
    return [Way(name, each, each.results) for name, each in made.items()]


def copying(work: FitWork, device: torch.device) -> "tuple[Copy, NTM]":
    """The task and the network where every training begins.

    Args:
        work: what is trained.
        device: where.
    """
    from tasks import Copy

    task = Copy(batch_size=work.batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return task, NTM(task.input_size, task.output_size).to(device)


def _loop(
    network: nn.Module,
    batches: Iterable[Any],
    steps: int,
    loss_of: Callable[[Any], Tensor],
    check: bool = False,
) -> None:
    """The loop that one writes without any framework."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for number, batch in enumerate(batches):
        if number == steps:
            break
        optimizer.zero_grad()
        loss = loss_of(batch)
        if check and not math.isfinite(loss.item()):
            raise ValueError(f"the training loss became {loss.item()} at step {number}.")
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()


def _loss(network: nn.Module, batch: Any) -> Tensor:
    outputs, _ = network(batch.inputs, lengths=batch.lengths)
    nats = F.binary_cross_entropy_with_logits(outputs, batch.targets, reduction="none")
    return torch.where(batch.mask, nats.sum(2), 0.0).sum(1).mean()


def train_by_lightning(
    network: nn.Module,
    batches: Iterable[Any],
    steps: int,
    device: torch.device,
    folder: Path,
    callbacks: list[Any],
    loggers: Sequence[Any] = (),
    clip: float | None = CLIP,
) -> None:
    """Trains with the trainer that ``memnet fit`` uses.

    Args:
        network: what is trained, on the copy task.
        batches: its batches.
        steps: how many.
        device: where.
        folder: of the run.
        callbacks: what happens around it.
        loggers: what is written.
        clip: the largest norm of the gradients; None for any.
    """
    import pytorch_lightning as pl

    from memnet.training.cli import Unprofiled
    from memnet.training.experiment import Experiment
    from memnet.training.progress import Progress
    from tasks import Copy

    class Given(Copy):
        """The copy task with batches that are timed."""

        def train_dataloader(self) -> Any:
            return batches

    trainer = pl.Trainer(
        accelerator=device.type,
        devices=1,
        max_steps=steps,
        callbacks=callbacks,
        logger=list(loggers),
        log_every_n_steps=LOG_EVERY if loggers else 0,
        gradient_clip_val=clip,
        enable_progress_bar=any(isinstance(each, Progress) for each in callbacks),
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        profiler=Unprofiled(),
        default_root_dir=str(folder),
    )
    with _unseen_terminal():
        try:
            trainer.fit(Experiment(network), Given())
        except BaseException as error:
            # Lightning makes an exit out of Ctrl-C, and memnet fit a clean end.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            if not _was_interrupted(callbacks):
                raise
    if _was_interrupted(callbacks):
        raise KeyboardInterrupt


def _was_interrupted(callbacks: list[Any]) -> bool:
    from memnet.training.callbacks import CleanInterrupt

    return any(isinstance(each, CleanInterrupt) and each.interrupted for each in callbacks)


@contextmanager
def _unseen_terminal() -> Iterator[None]:
    """Where the progress bar is drawn as in a terminal, for nobody."""
    before = os.environ.get("FORCE_COLOR")
    os.environ["FORCE_COLOR"] = "1"
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        if before is None:
            del os.environ["FORCE_COLOR"]
        else:
            os.environ["FORCE_COLOR"] = before


def _with_shares(measured: Comparison, batch: int) -> Comparison:
    """Adds sequences a second, and what each way adds to the one before, in percent of the bare loop's step."""
    bare = measured.rows[0].median
    rows, before = [], bare
    for row in measured.rows:
        adds = 100 * (row.median - before) / bare
        rows.append(replace(row, times_less=None, extra={"sequences/s": batch / row.median, "adds %": adds}))
        before = row.median
    note = f"{measured.work}: together {100 * (before - bare) / bare:.1f}% of the bare loop's step"
    return replace(measured, rows=tuple(rows), notes=(*measured.notes, note))
