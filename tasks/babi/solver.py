"""Answers from the text alone, for each of the 20 tasks."""

from collections.abc import Callable, Sequence

from .names import check_task
from .solvers import kinds, motives, people, sizes, space, things, times

SOLVERS: tuple[Callable[[Sequence[str], str], str], ...] = (
    people.where_is,
    things.where_is,
    things.where_before,
    space.neighbour,
    things.who_or_what,
    people.whether_there,
    things.how_many,
    things.which,
    people.whether_there,
    people.whether_there,
    people.where_is,
    people.where_is,
    people.where_is,
    times.where_before,
    kinds.afraid_of,
    kinds.color_of,
    space.whether_relation,
    sizes.whether_smaller,
    space.way,
    motives.where_or_why,
)
"""What answers the questions of task 1, 2, ... 20."""


def solve(task: int, sentences: Sequence[str], question: str) -> str:
    """The answer to a question about a story.

    Args:
        task: from 1 to 20.
        sentences: what has been told, in order, worded as in the published files.
        question: worded as in the published files.

    Returns:
        A word, or several joined by commas without a space.

    Raises:
        ValueError: there is no such task, something is worded in another way, or no answer follows.

    Example:
        >>> solve(2, ["John took the milk there.", "John went back to the office."], "Where is the milk?")
        'office'
    """
    solver = SOLVERS[check_task("task", task) - 1]
    try:
        return solver([sentence.strip() for sentence in sentences], question.strip())
    except LookupError as error:
        raise ValueError(f"no answer to {question.strip()!r} follows from what is told.") from error
