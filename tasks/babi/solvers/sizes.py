"""What is bigger than what: task 18."""

from collections.abc import Sequence

from .reading import Grammar

# A smaller and a larger thing.
FACTS = Grammar(
    (r"The (.+?) fits inside the (.+)\.", lambda small, large: (small, large)),
    (r"The (.+?) is bigger than the (.+)\.", lambda large, small: (small, large)),
)
WHETHER = Grammar(
    (r"Does the (.+?) fit in the (.+)\?", lambda small, large: (small, large)),
    (r"Is the (.+?) bigger than the (.+)\?", lambda large, small: (small, large)),
)


def whether_smaller(sentences: Sequence[str], question: str) -> str:
    """Whether one thing is smaller than another, by a chain of comparisons.

    Args:
        sentences: what is told.
        question: ``Does the chest fit in the box?`` or ``Is the box bigger than the chest?``
    """
    small, large = WHETHER.parse(question)
    facts = [FACTS.parse(sentence) for sentence in sentences]
    if large in _larger(small, facts):
        return "yes"
    if small in _larger(large, facts):
        return "no"
    raise LookupError


def _larger(thing: str, facts: Sequence[tuple[str, str]]) -> set[str]:
    found = {thing}
    while more := {large for small, large in facts if small in found} - found:
        found |= more
    return found - {thing}
