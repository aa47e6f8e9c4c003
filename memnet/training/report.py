"""What the commands say at their end: the table of the test sets, metrics, examples, the summary of a run."""

import csv
import itertools
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from memnet.training.callbacks import Checkpoints, StopWhenSolved
from memnet.training.experiment import Experiment
from memnet.training.runs import RunFolder
from tasks.base import Task


def test_rows(metrics: Mapping[str, Any], task: Task) -> list[dict[str, Any]]:
    """One row for each test set: its name, the metrics measured, and the published numbers where there are any.

    Below them stand the rows of the task's summary. All rows have the same columns.

    Args:
        metrics: ``test/<name>/<metric>`` to its value.
        task: the task that was tested.
    """
    published = task.published()
    rows: list[dict[str, Any]] = []
    for name in task.test_names:
        prefix = f"test/{name}/"
        measured = {key.removeprefix(prefix): float(value) for key, value in metrics.items() if key.startswith(prefix)}
        measured.pop("loss", None)  # the metrics say the same in better units
        rows.append({"test": name, **measured, **published.get(name, {})})
    rows += task.summary(rows)
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints rows with the same keys as a table.

    Args:
        rows: at least one.
    """
    table = Table()
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has no right margin to wrap at
    console.print(table)


def write_table(metrics: Mapping[str, Any], task: Task, checkpoint: Path) -> list[dict[str, Any]]:
    """Prints the table of the test sets, writes it as the next free ``test_<k>.csv`` of its run, and returns it.

    Args:
        metrics: ``test/<name>/<metric>`` to its value.
        task: the task that was tested.
        checkpoint: what was tested.
    """
    rows = test_rows(metrics, task)
    print_table(rows)
    for note in task.notes():
        print(note)
    run = RunFolder.of_checkpoint(checkpoint)
    if run is None:
        print("not written to a file, as the checkpoint lies in no run folder")
        return rows
    try:
        for number in itertools.count():
            try:
                with open(run.path / f"test_{number}.csv", "x", newline="") as file:
                    writer = csv.DictWriter(file, ["checkpoint", *rows[0]])
                    writer.writeheader()
                    writer.writerows({"checkpoint": checkpoint.name} | row for row in rows)
                print(f"written to {_short(Path(file.name))}")
                return rows
            except FileExistsError:
                continue
    except OSError as error:
        print(f"not written to a file: {error}")
    return rows


def print_metrics(metrics: Mapping[str, Any], prefix: str = "val/") -> None:
    """Prints metrics as a table of one row.

    Args:
        metrics: name to value.
        prefix: which of them, and what to take off their names.
    """
    print_table(
        [{name.removeprefix(prefix): float(value) for name, value in metrics.items() if name.startswith(prefix)}]
    )


def print_examples(batches: list[list[str]], count: int) -> None:
    """Prints examples that were put into words.

    Args:
        batches: the texts, batch by batch.
        count: how many of them at most.
    """
    texts = [text for batch in batches for text in batch]
    print("\n\n".join(texts[:count]))


def print_summary(
    experiment: Experiment, run: RunFolder, stop: StopWhenSolved, best: Checkpoints, pictures: list[Path]
) -> None:
    """Prints how training ended, where its results are and what to type next.

    Args:
        experiment: what was trained.
        run: its folder.
        stop: knows whether it was solved.
        best: knows the best validation.
        pictures: what was drawn.
    """
    monitor = f"val/{experiment.task.monitor}"
    after = f"after {experiment.sequences:,} sequences, {duration(experiment.seconds)}"
    if stop.solved:
        print(f"solved: {monitor} {stop.value:.4g} <= {stop.threshold:g} {after}")
    elif stop.threshold is not None and best.best_sequences:
        times = f" {stop.validations} times in a row" if stop.validations > 1 else ""
        print(f"not solved ({stop.threshold:g}{times}): best {monitor} {best.best_value:.4g} {after}")
    else:
        print(f"finished {after}")
    rows = {"run": _short(run.path)}
    if best.best_sequences:
        rows["best"] = f"{monitor} {best.best_value:.4g} at {best.best_sequences:,} sequences"
    if pictures:
        rows["pictures"] = _short(run.plots)
    checkpoint = _short(run.best)
    rows["next"] = f"memnet test --ckpt_path {checkpoint}"
    rows[""] = f"memnet plot {checkpoint}"
    for name, text in rows.items():
        print(f"{name:<10}{text}")


def duration(seconds: float) -> str:
    """A length of time in the unit that reads best.

    Args:
        seconds: the time.
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else str(timedelta(seconds=round(seconds)))


def _short(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
