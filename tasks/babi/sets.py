"""One task's questions, encoded: read from the genuine files, or generated."""

import warnings
from pathlib import Path

from .cache import cached
from .encode import Encoded, encode_stories
from .generator import generate_questions
from .reader import find_file, iter_stories

TRAIN_QUESTIONS = {"1k": 1_000, "10k": 10_000}
"""How many training questions a task has, by its size."""

TEST_QUESTIONS = 1_000
"""How many test questions a task has, whatever its size."""


def genuine(folder: str | Path, task: int, size: str, split: str) -> Encoded:
    """The questions of a genuine file. Words that the vocabulary lacks are unknown, and one warning says how many.

    Args:
        folder: holds the archive's content; see ``find_file``.
        task: from 1 to 20.
        size: ``1k`` or ``10k`` training questions.
        split: ``train`` or ``test``.

    Raises:
        ValueError: the file is missing, or not as it should be; see ``find_file`` and ``iter_stories``.
        OSError: the file cannot be read.
    """
    path = find_file(folder, task, size, split)
    encoded = cached(lambda: encode_stories(iter_stories(path, task), task), "genuine", str(task), path.read_bytes())
    if len(encoded.unknown):
        shown = ", ".join(encoded.unknown[:5].tolist()) + (", ..." if len(encoded.unknown) > 5 else "")
        warnings.warn(
            f"{path} has {len(encoded.unknown)} words that no bAbI task has ({shown}); they are read as unknown, "
            f"{encoded.count_unknown()} times.",
            stacklevel=2,
        )
    return encoded


def generated(task: int, seed: int, count: int) -> Encoded:
    """The first questions of a row of generated stories (see ``tasks.babi.generate``).

    Args:
        task: from 1 to 20.
        seed: which row of stories.
        count: how many questions.

    Raises:
        ValueError: there is no such task or row, or count is below 1.
    """
    return cached(
        lambda: encode_stories(generate_questions(task, seed, count), task),
        "generated",
        str(task),
        str(seed),
        str(count),
    )
