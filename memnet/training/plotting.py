"""``memnet plot CKPT``, and the pictures at the end of ``memnet fit``: the same."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from torch import nn

from memnet.loading import load, read_checkpoint
from memnet.training.arguments import restore_task, stored_config
from memnet.training.pictures import draw_comparison, draw_learning_curve
from memnet.training.runs import RunFolder, read_metrics
from tasks.base import Task

_DOTS_PER_INCH = 150


def run(arguments: Sequence[str]) -> None:
    """Runs ``memnet plot``.

    Args:
        arguments: the command line, beginning with ``plot``.

    Raises:
        ValueError: the checkpoint is not memnet's, or a picture would overwrite a file outside its run.
        OSError: a file cannot be read or written.
        SystemExit: the arguments are not understood.
    """
    parser = argparse.ArgumentParser(
        prog="memnet plot",
        description="Draws, for each of the task's test sets, one example with the network's answer and where its "
        "heads looked; and the run's learning curve. Of several checkpoints, their runs' learning curves in one "
        "picture.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", nargs="+", help="a run's checkpoints/best.ckpt or last.ckpt")
    parser.add_argument("--out", metavar="DIR", help="folder for the pictures; the run's plots/ by default")
    parser.add_argument("--input", metavar="TEXT", help="draw this one example, where the task's examples are text")
    given = parser.parse_args(arguments[1:])
    if len(given.checkpoint) > 1:
        _compare(given.checkpoint, given.out, given.input)
        return
    (checkpoint,) = given.checkpoint
    content = read_checkpoint(checkpoint)
    own = RunFolder.of_checkpoint(checkpoint)
    if own is None and given.out is None:
        raise ValueError(f"checkpoint {checkpoint} lies in no run folder; say with --out where pictures shall go.")
    task = task_of(content, checkpoint)
    if given.input is not None:
        drawn = task.draw(load(checkpoint), task.batch_of(given.input), title_of(content))
        figures = {f"input_{_slug(given.input)}_{kind}": figure for kind, figure in drawn.items()}
    else:
        figures = draw_all(load(checkpoint), task, own, title_of(content))
    folder = Path(given.out) if given.out is not None else own.plots  # type: ignore[union-attr]
    _say(save_all(figures, folder, refresh=own is not None and folder.resolve() == own.plots.resolve()))


def _compare(checkpoints: Sequence[str], out: str | None, text: str | None) -> None:
    """The learning curves of several runs, which must be of one task."""
    if text is not None:
        raise ValueError(
            f"--input is {text!r}, but that is drawn for one checkpoint, and {len(checkpoints)} are given."
        )
    if out is None:
        raise ValueError("--out is missing: the picture of several runs belongs to none of them, so say where it goes.")
    tasks = [task_of(read_checkpoint(path), path) for path in checkpoints]
    for path, task in zip(checkpoints, tasks, strict=True):
        if type(task) is not type(tasks[0]):
            kinds = type(tasks[0]).__name__, type(task).__name__
            raise ValueError(f"{checkpoints[0]} is of {kinds[0]}, but {path} of {kinds[1]}: curves are of one task.")
    folders: list[RunFolder] = []
    for path in checkpoints:
        own = RunFolder.of_checkpoint(path)
        if own is None:
            raise ValueError(f"checkpoint {path} lies in no run folder, so it has no learning curve.")
        folders.append(own)
    # The experiment's name says enough where there is one run of each.
    names = [own.path.parent.name for own in folders]
    if len(set(names)) < len(names):
        names = [f"{own.path.parent.name}/{own.path.name}" for own in folders]
    runs = {name: read_metrics(own.metrics) for name, own in zip(names, folders, strict=True)}
    figure = draw_comparison(runs, *tasks[0].curve, tasks[0].epoch_size)
    if figure is None:
        raise ValueError(f"none of the {len(checkpoints)} runs has written a validation yet.")
    _say(save_all({"comparison": figure}, Path(out), refresh=False))


def _say(paths: dict[str, Path]) -> None:
    for path in paths.values():
        print(f"written to {path}")


def _slug(text: str) -> str:
    return re.sub(r"\W+", "_", text.lower()).strip("_")[:60]


def task_of(content: dict[str, Any], path: str | Path) -> Task:
    """The task that a checkpoint was trained on.

    Args:
        content: what ``read_checkpoint`` returned.
        path: where it was read, for messages.

    Raises:
        ValueError: the checkpoint does not say.
    """
    config = stored_config(content)
    if "data" not in config:
        raise ValueError(f"checkpoint {path} does not say which task it was trained on.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=Task)
    task = parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data
    restore_task(task, content)
    return task


def title_of(content: dict[str, Any]) -> str:
    """How pictures of a checkpoint are headed.

    Args:
        content: what ``read_checkpoint`` returned.
    """
    return f"{content.get('run_name') or 'run'}, {content.get('sequences', 0):,} sequences"


def draw_all(
    network: nn.Module, task: Task, own: RunFolder | None, title: str, test_names: Sequence[str] | None = None
) -> dict[str, Figure]:
    """The pictures of a trained network, by file name.

    Args:
        network: the network, on the CPU.
        task: its task.
        own: its run, for the learning curve.
        title: how they are headed.
        test_names: from which test sets an example is taken; all by default.
    """
    figures: dict[str, Figure] = {}
    for name, loader in zip(task.test_names, task.test_dataloader(), strict=True):
        if test_names is not None and name not in test_names:
            continue
        drawn = task.draw(network, next(iter(loader)), f"{title}\n{name}")
        figures |= {f"{kind}_{_slug(name)}": figure for kind, figure in drawn.items()}
    if own is not None:
        threshold = yaml.safe_load(own.config.read_text()).get("solved_at")
        solved_at = threshold if task.curve[0] == task.monitor else None
        name = title.partition(",")[0]
        curve = draw_learning_curve(read_metrics(own.metrics), *task.curve, name, solved_at, task.epoch_size)
        if curve is not None:
            figures["learning_curve"] = curve
    return figures


def save_all(figures: dict[str, Figure], folder: Path, refresh: bool) -> dict[str, Path]:
    """Writes figures as PNG; returns where.

    Args:
        figures: by file name.
        folder: made if it does not exist.
        refresh: whether earlier pictures of the same name may be replaced.

    Raises:
        FileExistsError: a picture is there and may not be replaced; then none is written.
        OSError: the folder cannot be written.
    """
    paths = {name: folder / f"{name}.png" for name in figures}
    for path in paths.values():
        if path.exists() and not refresh:
            raise FileExistsError(f"{path} exists and is not overwritten; give another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(paths[name], dpi=_DOTS_PER_INCH)
    return paths
