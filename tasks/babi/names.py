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
        "LSTM": Published(51.3, 20),
        "BoW": Published(25.1, 15),
        "PE": Published(20.3, 13),
        "PE LS": Published(16.3, 12),
        "PE LS RN": Published(13.9, 11, (
            0.0, 8.3, 40.3, 2.8, 13.1, 7.6, 17.3, 10.0, 13.2, 15.1,
            0.9, 0.2, 0.4, 1.7, 0.0, 1.3, 51.0, 11.1, 82.8, 0.0)),
    },
    ("1k", True): {
        "1 hop": Published(25.8, 17),
        "2 hops": Published(15.6, 11),
        "3 hops": Published(13.3, 11),
        "3 hops RN": Published(12.4, 11, (
            0.0, 11.4, 21.9, 13.4, 14.4, 2.8, 18.3, 9.3, 1.9, 6.5,
            0.3, 0.1, 0.2, 6.9, 0.0, 2.7, 40.4, 9.4, 88.0, 0.0)),
        "3 hops LW": Published(15.2, 10),
    },
    ("10k", False): {
        "LSTM": Published(36.4, 16),
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
