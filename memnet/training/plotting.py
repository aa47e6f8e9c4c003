"""``memnet plot CKPT``, and the pictures at the end of ``memnet fit``: the same."""

import argparse
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from matplotlib.figure import Figure
from torch import nn

from memnet.addressing import Addressing
from memnet.loading import load, read_checkpoint
from memnet.recording import record
from memnet.training.arguments import stored_config
from memnet.training.pictures import draw_example, draw_learning_curve, draw_weights
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
        "heads looked; and the run's learning curve.",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="a run's checkpoints/best.ckpt or last.ckpt")
    parser.add_argument("--out", metavar="DIR", help="folder for the pictures; the run's plots/ by default")
    given = parser.parse_args(arguments[1:])
    content = read_checkpoint(given.checkpoint)
    own = RunFolder.of_checkpoint(given.checkpoint)
    if own is None and given.out is None:
        raise ValueError(
            f"checkpoint {given.checkpoint} lies in no run folder; say with --out where pictures shall go."
        )
    task = task_of(content, given.checkpoint)
    figures = draw_all(load(given.checkpoint), task, own, title_of(content))
    folder = Path(given.out) if given.out is not None else own.plots  # type: ignore[union-attr]
    for path in save_all(figures, folder, refresh=own is not None and folder.resolve() == own.plots.resolve()).values():
        print(f"written to {path}")


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
    return parser.instantiate_classes(parser.parse_object({"data": config["data"]})).data


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
        batch = _first_item(next(iter(loader)))
        slug = re.sub(r"\W+", "_", name.lower()).strip("_")
        panels, weights, metrics = _look(network, task, batch)
        score = ", ".join(f"{metric.replace('_', ' ')} {float(values[0]):.3g}" for metric, values in metrics.items())
        figures[f"example_{slug}"] = draw_example(panels, f"{title}\n{name}: {score}")
        if weights:
            figures[f"weights_{slug}"] = draw_weights(panels, weights, f"{title}\n{name}")
    if own is not None:
        threshold = yaml.safe_load(own.config.read_text()).get("solved_at")
        curve = draw_learning_curve(read_metrics(own.metrics), task.monitor, title.partition(",")[0], threshold)
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


@torch.no_grad()
def _look(network: nn.Module, task: Task, batch: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Panels, weights (empty without a memory) and metrics of the batch's first example."""
    has_memory = any(isinstance(module, Addressing) for module in network.modules())
    listening: AbstractContextManager[dict[str, torch.Tensor]] = record(network) if has_memory else nullcontext({})
    with listening as trace:
        evaluation = task.evaluate(network, batch)
    panels = task.picture(batch, evaluation.outputs, 0)
    steps = panels["target"].shape[1]
    return panels, {name: each[0, :steps].numpy() for name, each in trace.items()}, evaluation.metrics


def _first_item(batch: Any) -> Any:
    """The batch cut down to its first example, where it is a plain tuple of tensors; else the batch."""
    if isinstance(batch, tuple) and all(isinstance(each, torch.Tensor) for each in batch):
        parts = [each[:1] for each in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch
