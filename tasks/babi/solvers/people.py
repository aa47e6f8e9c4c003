"""Where people are: tasks 1, 6, 9, 10, 11, 12 and 13."""

from collections.abc import Sequence

from ..world.events import Leave, Move, Waver
from .reading import Grammar, first, read

WHERE = Grammar((r"Where is (\w+)\?", str))
WHETHER = Grammar((r"Is (\w+) in the (\w+)\?", lambda *words: words))


def where_is(sentences: Sequence[str], question: str) -> str:
    """Where somebody is: at the place where they went last.

    Args:
        sentences: what is told.
        question: ``Where is Mary?``
    """
    person = WHERE.parse(question)
    return first(event.place for event in _backwards(sentences) if event.person == person)


def whether_there(sentences: Sequence[str], question: str) -> str:
    """Whether somebody is at a place: yes, no or maybe, by what was said of them last.

    Args:
        sentences: what is told.
        question: ``Is Mary in the park?``
    """
    person, asked = WHETHER.parse(question)
    match first(event for event in _backwards(sentences) if event.person == person):
        case Move(_, place):
            return "yes" if asked == place else "no"
        case Waver(_, place, other):
            return "maybe" if asked in (place, other) else "no"
        case Leave(_, place) if asked == place:
            return "no"
    raise LookupError


def _backwards(sentences: Sequence[str]) -> list[Move | Leave | Waver]:
    return [event for event in reversed(read(sentences)) if isinstance(event, Move | Leave | Waver)]
