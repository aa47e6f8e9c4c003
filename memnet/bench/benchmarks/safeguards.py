"""What each safeguard of memnet fit adds to a training step.

The standard Neural Turing Machine on the copy task, trained by Lightning without any of them and with one of them at a
time; all end with the same parameters. The last checkpoint is written every 50 steps here, five times as often as
``configs/ntm_copy.yaml`` has it written. One measurement is hundreds of steps, so this benchmark takes ten times as
long as others.
"""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from memnet.bench.benchmarks.fit import CLIP, WORKS, FitWork, Training, copying, title_of, train_by_lightning
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings
from memnet.bench.timing import own_clock

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

    from memnet.training.runs import RunFolder

SAVE_EVERY = 50


def run(settings: Settings, works: Sequence[FitWork] = WORKS) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        works: on what.
    """
    for work in works:
        for clip in (CLIP, None):
            with settings.with_threads() as threads, tempfile.TemporaryDirectory(prefix="memnet-bench-") as folder:
                title = title_of(work, threads) + f", gradients {'clipped by norm' if clip else 'not clipped'}"
                settings.say(f"  {title}")
                with warnings.catch_warnings():
                    ways = ways_of(work, settings.device, Path(folder), clip)
                    measured = compare(title, ways, 10 * settings.seconds, own_clock)
                yield _with_percents(measured)


def ways_of(work: FitWork, device: torch.device, folder: Path, clip: float | None) -> list[Way]:
    """Without safeguards first, and then with each.

    Args:
        work: what is trained.
        device: where.
        folder: for the runs' files.
        clip: see ``train_by_lightning``. Where gradients are not clipped only what looks at them is tried.
    """
    from memnet.training.callbacks import CleanInterrupt, ResumeExactly
    from memnet.training.cli import quieten
    from memnet.training.health import NumericalHealth
    from memnet.training.runs import RunFolder

    quieten()
    task, network = copying(work, device)

    def way(name: str, make: "Callable[[RunFolder], Sequence[Callback]]") -> Way:
        def train(network: nn.Module, batches: Iterable[Any], steps: int) -> None:
            made = RunFolder.create(folder, "safeguards")
            train_by_lightning(network, batches, steps, device, made.path, [*make(made)], clip=clip)

        each = Training(network, train, task.train_dataloader, work.steps)
        return Way(name, each, each.results)

    ways = [way("none", lambda made: []), way("numerical health", lambda made: [NumericalHealth()])]
    if clip is not None:
        ways += [
            way("exact resume", lambda made: [ResumeExactly()]),
            way("Ctrl-C, SIGTERM", lambda made: [CleanInterrupt()]),
            way(f"a checkpoint every {SAVE_EVERY} steps", lambda made: [_saving_often(made)]),
        ]
    return ways


def _saving_often(made: "RunFolder") -> "Callback":
    from memnet.training.callbacks import Checkpoints

    class SavingOften(Checkpoints):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step % SAVE_EVERY == 0:
                self.save_last(trainer, pl_module)

    return SavingOften(made)


def _with_percents(measured: Comparison) -> Comparison:
    """What each adds to the first way's step, in percent and in microseconds.

    Each turn's measurement is compared with the first way's in the same turn, so that what the machine does meanwhile
    is the same for both.
    """
    first = measured.rows[0]
    rows = []
    for row in measured.rows:
        adds = [100 * (own / none - 1) for own, none in zip(row.samples, first.samples, strict=True)]
        extra = {"adds %": statistics.median(adds), "adds us": 1e6 * (row.median - first.median)}
        rows.append(replace(row, times_less=None, extra=extra))
    return replace(measured, rows=tuple(rows))
