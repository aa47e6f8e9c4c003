"""What ``memnet test`` prints of the tasks beside the errors: the paper's, the mean and the failed tasks."""

from collections.abc import Sequence
from typing import Any

from .names import FAILED_ABOVE, NUM_TASKS, PUBLISHED, Published, test_name


def published_rows(size: str, tasks: Sequence[int], joint: bool) -> dict[str, Published]:
    """The paper's rows for models trained so: title of a column to row.

    Args:
        size: ``1k`` or ``10k``.
        tasks: which tasks.
        joint: whether one model has learned all of them, and not each task has one of its own.
    """
    # One model for some of the tasks is nothing that was published.
    if joint and len(tasks) < NUM_TASKS:
        return {}
    return {f"paper {name}": row for name, row in PUBLISHED[size, joint].items()}


def published_errors(size: str, tasks: Sequence[int], joint: bool) -> dict[str, dict[str, float]]:
    """Name of a test set to title of a column to the paper's error, where it is known.

    Args:
        size: as for ``published_rows``.
        tasks: as for ``published_rows``.
        joint: as for ``published_rows``.
    """
    found: dict[str, dict[str, float]] = {test_name(task): {} for task in tasks}
    for column, row in published_rows(size, tasks, joint).items():
        for task, error in zip(range(1, NUM_TASKS + 1), row.errors, strict=False):
            if task in tasks:
                found[test_name(task)][column] = error
    return {name: numbers for name, numbers in found.items() if numbers}


def mean_and_failed(rows: Sequence[dict[str, Any]], columns: Sequence[str], published: dict[str, Published]) -> list:
    """Two more rows for a table of several tasks: the mean, and how many tasks failed.

    Args:
        rows: one for each task.
        columns: the errors that are summed up, in percent.
        published: what to set beside them if the rows are of all tasks.
    """
    if len(rows) == 1:
        return []
    mean: dict[str, Any] = {"test": "mean"}
    failed: dict[str, Any] = {"test": f"failed (above {FAILED_ABOVE:g}%)"}
    for column in columns:
        errors = [float(row[column]) for row in rows]
        mean[column] = sum(errors) / len(errors)
        failed[column] = float(sum(error > FAILED_ABOVE for error in errors))
    if len(rows) == NUM_TASKS:
        for column, row in published.items():
            if row.errors:
                mean[column], failed[column] = row.mean, float(row.failed)
    return [mean, failed]


def other_rows(size: str, tasks: Sequence[int], joint: bool) -> list[str]:
    """A sentence about the rows of the paper of which only mean and failed tasks are known; none for some tasks only.

    Args:
        size: as for ``published_rows``.
        tasks: as for ``published_rows``.
        joint: as for ``published_rows``.
    """
    if len(tasks) < NUM_TASKS:
        return []
    rows = published_rows(size, tasks, joint)
    named = [f"{name.removeprefix('paper ')} {row.mean} ({row.failed})" for name, row in rows.items() if not row.errors]
    return [f"the paper's other means (failed tasks): {', '.join(named)}"] if named else []
