"""What lies where from what: tasks 4, 17 and 19."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .reading import Grammar, first

WINDS = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
RELATIONS = {"above": (0, 1), "below": (0, -1), "to the right of": (1, 0), "to the left of": (-1, 0)}


class Stands(NamedTuple):
    """One thing stands in some direction of another."""

    one: str
    direction: tuple[int, int]
    other: str

    def reversed(self) -> "Stands":
        """The same said of the other thing."""
        right, up = self.direction
        return Stands(self.other, (-right, -up), self.one)


_RELATION = f"({'|'.join(RELATIONS)})"
PLACES = Grammar((r"The (\w+) is (\w+) of the (\w+)\.", lambda one, wind, other: Stands(one, WINDS[wind], other)))
SHAPES = Grammar(
    (rf"The (.+?) is {_RELATION} the (.+)\.", lambda one, relation, other: Stands(one, RELATIONS[relation], other))
)
# The known place and the direction in which the asked one lies from it.
NEIGHBOUR = Grammar(
    (r"What is (\w+) of the (\w+)\?", lambda wind, place: (place, WINDS[wind])),
    (r"What is the (\w+) (\w+) of\?", lambda place, wind: (place, tuple(-step for step in WINDS[wind]))),
)
WHETHER = Grammar(
    (rf"Is the (.+?) {_RELATION} the (.+)\?", lambda one, relation, other: Stands(one, RELATIONS[relation], other))
)
WAY = Grammar((r"How do you go from the (\w+) to the (\w+)\?", lambda *words: words))


def neighbour(sentences: Sequence[str], question: str) -> str:
    """What lies in some direction of a place, or which place something lies in some direction of.

    Args:
        sentences: what is told.
        question: ``What is north of the office?`` or ``What is the office north of?``
    """
    place, direction = NEIGHBOUR.parse(question)
    facts = _both_ways(PLACES.parse(sentence) for sentence in sentences)
    return first(fact.one for fact in facts if (fact.other, fact.direction) == (place, direction))


def whether_relation(sentences: Sequence[str], question: str) -> str:
    """Whether one shape stands in some direction of another: its position on a grid must be farther that way.

    Args:
        sentences: what is told.
        question: ``Is the triangle above the red square?``
    """
    asked = WHETHER.parse(question)
    facts = _both_ways(SHAPES.parse(sentence) for sentence in sentences)
    positions = {asked.other: (0, 0)}
    rest = deque(positions)
    while rest:
        here = rest.popleft()
        for fact in facts:
            if fact.other == here and fact.one not in positions:
                right, up = positions[here]
                positions[fact.one] = right + fact.direction[0], up + fact.direction[1]
                rest.append(fact.one)
    offset = positions[asked.one]
    return "yes" if sum(a * b for a, b in zip(offset, asked.direction, strict=True)) > 0 else "no"


def way(sentences: Sequence[str], question: str) -> str:
    """The shortest way from a place to another, as initials of winds.

    Args:
        sentences: what is told.
        question: ``How do you go from the office to the garden?``
    """
    start, end = WAY.parse(question)
    facts = _both_ways(PLACES.parse(sentence) for sentence in sentences)
    initials = {step: wind[0] for wind, step in WINDS.items()}
    ways: dict[str, list[str]] = {start: []}
    rest = deque(ways)
    while rest:
        here = rest.popleft()
        for fact in facts:
            if fact.other == here and fact.one not in ways:
                ways[fact.one] = [*ways[here], initials[fact.direction]]
                rest.append(fact.one)
    return ",".join(ways[end])


def _both_ways(facts: Iterable[Stands]) -> list[Stands]:
    return [each for fact in facts for each in (fact, fact.reversed())]
