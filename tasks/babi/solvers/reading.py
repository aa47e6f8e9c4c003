"""From sentences to what they say."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from ..world.events import Drop, Give, Leave, Move, Take, Waver

T = TypeVar("T")

Event: TypeAlias = Move | Leave | Waver | Take | Drop | Give

_THEN = r"(?:After that|Afterwards|Following that|Then) (?:he|she|they)"
_WENT = r"(?:journeyed|moved|travelled|went|went back) to the (\w+)"


class Grammar:
    """The sentences or questions that a task knows.

    Args:
        *sentences: patterns of whole sentences, and what makes of the words in their gaps what the sentence says.
    """

    def __init__(self, *sentences: tuple[str, Callable[..., Any]]) -> None:
        self._sentences = [(re.compile(pattern), make) for pattern, make in sentences]
        # The same few hundred sentences come again and again.
        self.parse = lru_cache(maxsize=10_000)(self._parse)

    def _parse(self, text: str) -> Any:
        """What a sentence or a question says.

        Args:
            text: with its full stop or question mark.

        Raises:
            ValueError: it is worded in another way.
        """
        for pattern, make in self._sentences:
            if match := pattern.fullmatch(text):
                return make(*match.groups())
        raise ValueError(f"{text!r} is not in the wording of this task.")


def first(answers: Iterable[T]) -> T:
    """The first of the answers.

    Args:
        answers: the best first.

    Raises:
        LookupError: there is none.
    """
    for answer in answers:
        return answer
    raise LookupError


def _walk(person: str, other: str | None, place: str) -> list[Event]:
    return [Move(name, place) for name in (person, other) if name]


EVENTS = Grammar(
    (rf"(\w+)(?: and (\w+))? {_WENT}\.", _walk),
    (r"(\w+) is in the (\w+)\.", lambda *words: [Move(*words)]),
    (r"(\w+) is (?:no longer|not) in the (\w+)\.", lambda *words: [Leave(*words)]),
    (r"(\w+) is either in the (\w+) or the (\w+)\.", lambda *words: [Waver(*words)]),
    (r"(\w+) (?:got|grabbed|picked up|took) the (\w+)(?: there)?\.", lambda *words: [Take(*words)]),
    (r"(\w+) (?:discarded|dropped|left|put down) the (\w+)(?: there)?\.", lambda *words: [Drop(*words)]),
    (r"(\w+) (?:gave|handed|passed) the (\w+) to (\w+)\.", lambda *words: [Give(*words)]),
)
_GO_ON = re.compile(rf"{_THEN} {_WENT}\.")


def read(sentences: Sequence[str]) -> list[Event]:
    """The events that a story of people tells, in order. He, she and they are whoever the sentence before was about.

    Args:
        sentences: the story.

    Raises:
        ValueError: a sentence is worded in another way.
        LookupError: the story begins with he, she or they.
    """
    events: list[Event] = []
    latest: list[Event] = []
    for sentence in sentences:
        if match := _GO_ON.fullmatch(sentence):
            if not latest:
                raise LookupError
            latest = [Move(event.person, match[1]) for event in latest]
        else:
            latest = EVENTS.parse(sentence)
        events += latest
    return events
