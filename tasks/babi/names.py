"""The names of the 20 tasks, and what was published for them."""

from typing import NamedTuple

NAMES = (
    "single-supporting-fact",
    "two-supporting-facts",
    "three-supporting-facts",
    "two-arg-relations",
    "three-arg-relations",
    "yes-no-questions",
    "counting",
    "lists-sets",
    "simple-negation",
    "indefinite-knowledge",
    "basic-coreference",
    "conjunction",
    "compound-coreference",
    "time-reasoning",
    "basic-deduction",
    "basic-induction",
    "positional-reasoning",
    "size-reasoning",
    "path-finding",
    "agents-motivations",
)
"""Names of tasks 1 to 20, as in the names of their files."""

NUM_TASKS = len(NAMES)

FAILED_ABOVE = 5.0
"""A task counts as failed when more than this percentage of its questions is answered wrongly."""


class Published(NamedTuple):
    """One row of a published table, test errors in percent.

    Attributes:
        mean: over the 20 tasks.
        failed: how many tasks have more than 5% errors.
        errors: of tasks 1 to 20; empty where only mean and failed tasks are known here.
    """

    mean: float
    failed: int
    errors: tuple[float, ...] = ()


# fmt: off
PUBLISHED: dict[tuple[str, bool], dict[str, Published]] = {
    ("1k", False): {
        "LSTM": Published(51.3, 20, (
            50.0, 80.0, 80.0, 39.0, 30.0, 52.0, 51.0, 55.0, 36.0, 56.0,
            38.0, 26.0, 6.0, 73.0, 79.0, 77.0, 49.0, 48.0, 92.0, 9.0)),
        "BoW": Published(25.1, 15, (
            0.6, 17.6, 71.0, 32.0, 18.3, 8.7, 23.5, 11.4, 21.1, 22.8,
            4.1, 0.3, 10.5, 1.3, 24.3, 52.0, 45.4, 48.1, 89.7, 0.1)),
        "PE": Published(20.3, 13, (
            0.1, 21.6, 64.2, 3.8, 14.1, 7.9, 21.6, 12.6, 23.3, 17.4,
            4.3, 0.3, 9.9, 1.8, 0.0, 52.1, 50.1, 13.6, 87.4, 0.0)),
        "PE LS": Published(16.3, 12, (
            0.2, 12.8, 58.8, 11.6, 15.7, 8.7, 20.3, 12.7, 17.0, 18.6,
            0.0, 0.1, 0.3, 2.0, 0.0, 1.6, 49.0, 10.1, 85.6, 0.0)),
        "PE LS RN": Published(13.9, 11, (
            0.0, 8.3, 40.3, 2.8, 13.1, 7.6, 17.3, 10.0, 13.2, 15.1,
            0.9, 0.2, 0.4, 1.7, 0.0, 1.3, 51.0, 11.1, 82.8, 0.0)),
    },
    ("1k", True): {
        "1 hop": Published(25.8, 17, (
            0.8, 62.0, 76.9, 22.8, 11.0, 7.2, 15.9, 13.2, 5.1, 10.6,
            8.4, 0.4, 6.3, 36.9, 46.4, 47.4, 44.4, 9.6, 90.7, 0.0)),
        "2 hops": Published(15.6, 11, (
            0.0, 15.6, 31.6, 2.2, 13.4, 2.3, 25.4, 11.7, 2.0, 5.0,
            1.2, 0.0, 0.2, 8.1, 0.5, 51.3, 41.2, 10.3, 89.9, 0.1)),
        "3 hops": Published(13.3, 11, (
            0.1, 14.0, 33.1, 5.7, 14.8, 3.3, 17.9, 10.1, 3.1, 6.6,
            0.9, 0.3, 1.4, 8.2, 0.0, 3.5, 44.5, 9.2, 90.2, 0.0)),
        "3 hops RN": Published(12.4, 11, (
            0.0, 11.4, 21.9, 13.4, 14.4, 2.8, 18.3, 9.3, 1.9, 6.5,
            0.3, 0.1, 0.2, 6.9, 0.0, 2.7, 40.4, 9.4, 88.0, 0.0)),
        "3 hops LW": Published(15.2, 10, (
            0.1, 18.8, 31.7, 17.5, 12.9, 2.0, 10.1, 6.1, 1.5, 2.6,
            3.3, 0.0, 0.5, 2.0, 1.8, 51.0, 42.6, 9.2, 90.6, 0.2)),
    },
    ("10k", False): {
        "LSTM": Published(36.4, 16, (
            0.0, 81.9, 83.1, 0.2, 1.2, 51.8, 24.9, 34.1, 20.2, 30.1,
            10.3, 23.4, 6.1, 81.0, 78.7, 51.9, 50.1, 6.8, 90.3, 2.1)),
        "BoW": Published(15.4, 9),
        "PE": Published(9.4, 6),
        "PE LS": Published(7.2, 4),
        "PE LS RN": Published(6.6, 4, (
            0.0, 0.3, 9.3, 0.0, 0.8, 0.0, 3.7, 0.8, 0.8, 2.4,
            0.0, 0.0, 0.0, 0.0, 0.0, 0.4, 40.7, 6.7, 66.5, 0.0)),
        "d=100 ReLU": Published(4.2, 3, (
            0.0, 0.3, 2.1, 0.0, 0.8, 0.1, 2.0, 0.9, 0.3, 0.0,
            0.1, 0.0, 0.0, 0.1, 0.0, 51.8, 18.6, 5.3, 2.3, 0.0)),
    },
    ("10k", True): {
        "1 hop": Published(24.5, 16),
        "2 hops": Published(10.9, 7),
        "3 hops": Published(7.9, 6),
        "3 hops RN": Published(7.5, 6, (
            0.0, 1.0, 6.8, 0.0, 6.1, 0.1, 6.6, 2.7, 0.0, 0.5,
            0.0, 0.1, 0.0, 0.0, 0.2, 0.2, 41.8, 8.0, 75.7, 0.0)),
        "3 hops LW": Published(11.0, 6),
    },
}
# fmt: on
"""Tables 1 and 3 of Sukhbaatar et al. 2015, by size and by whether one model learns all tasks.

PE: position encoding; LS: linear start; RN: random noise; LW: layer-wise tying. All with 3 hops but where it says so.
"""


def test_name(task: int) -> str:
    """How a task is called in tables: ``1 single-supporting-fact``.

    Args:
        task: from 1 to 20.
    """
    return f"{task} {NAMES[task - 1]}"


def file_name(task: int, split: str) -> str:
    """How a task's file is called: ``qa1_single-supporting-fact_train.txt``.

    Args:
        task: from 1 to 20.
        split: ``train`` or ``test``.
    """
    return f"qa{task}_{NAMES[task - 1]}_{split}.txt"


def check_task(name: str, task: int) -> int:
    """Returns ``task`` if there is one of that number.

    Args:
        name: what the argument is called.
        task: its value.

    Raises:
        ValueError: there is not.
    """
    if isinstance(task, bool) or not isinstance(task, int) or not 1 <= task <= NUM_TASKS:
        raise ValueError(f"{name} is {task!r}, but the tasks are numbered from 1 to {NUM_TASKS}.")
    return task
