"""When somebody was where: task 14."""

from collections.abc import Sequence

from ..world.events import Visit
from .reading import Grammar, first

TIMES = {"yesterday": 0, "this morning": 1, "this afternoon": 2, "this evening": 3}

_WHEN = "([Yy]esterday|[Tt]his morning|[Tt]his afternoon|[Tt]his evening)"
_WENT = r"(?:journeyed|moved|travelled|went|went back) to the (\w+)"
VISITS = Grammar(
    (rf"{_WHEN} (\w+) {_WENT}\.", lambda when, person, place: Visit(person, place, TIMES[when.lower()])),
    (rf"(\w+) {_WENT} {_WHEN}\.", lambda person, place, when: Visit(person, place, TIMES[when.lower()])),
)
WHERE_BEFORE = Grammar((r"Where was (\w+) before the (\w+)\?", lambda *words: words))


def where_before(sentences: Sequence[str], question: str) -> str:
    """Where somebody was the time before they were at a place; before the last time, if they were there twice.

    Args:
        sentences: what is told, in any order.
        question: ``Where was Mary before the park?``
    """
    person, place = WHERE_BEFORE.parse(question)
    visits = [VISITS.parse(sentence) for sentence in sentences]
    place_at = {visit.time: visit.place for visit in visits if visit.person == person}
    return first(place_at[time - 1] for time in (3, 2, 1) if place_at.get(time) == place and time - 1 in place_at)
