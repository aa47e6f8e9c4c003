"""What people do with things: tasks 2, 3, 5, 7 and 8."""

from collections.abc import Sequence

from ..world.events import Drop, Give, Move, Take
from .reading import Grammar, first, read

WHERE = Grammar((r"Where is the (\w+)\?", str))
WHERE_BEFORE = Grammar((r"Where was the (\w+) before the (\w+)\?", lambda *words: words))
HOW_MANY = Grammar((r"How many objects is (\w+) carrying\?", str))
WHAT = Grammar((r"What is (\w+) carrying\?", str))
# What is asked for, and what is known of the gift.
GIFT = Grammar(
    (r"What did (\w+) give to (\w+)\?", lambda person, receiver: ("thing", {"person": person, "receiver": receiver})),
    (r"Who gave the (\w+)\?", lambda thing: ("person", {"thing": thing})),
    (r"Who gave the (\w+) to (\w+)\?", lambda thing, receiver: ("person", {"thing": thing, "receiver": receiver})),
    (r"Who received the (\w+)\?", lambda thing: ("receiver", {"thing": thing})),
    (r"Who did (\w+) give the (\w+) to\?", lambda person, thing: ("receiver", {"person": person, "thing": thing})),
)
NUMBERS = ("none", "one", "two", "three")


class _Belongings:
    """Who has what, and where it has been, as far as the story tells."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.holder: dict[str, str] = {}
        self.ways: dict[str, list[str]] = {}
        """The places of every person and thing, in order."""
        self.taken: dict[str, list[str]] = {}
        """What a person has ever had, in the order in which they first got it."""
        for event in read(sentences):
            match event:
                case Move(person, place):
                    carried = [thing for thing, holder in self.holder.items() if holder == person]
                    for name in (person, *carried):
                        self.ways.setdefault(name, []).append(place)
                case Take(person, thing):
                    self._get(person, thing)
                    here = self.ways.get(person, [])[-1:]
                    if self.ways.setdefault(thing, [])[-1:] != here:
                        self.ways[thing] += here
                case Drop(person, thing):
                    if self.holder.pop(thing, None) is None:
                        # Nobody told of its being taken, so it may have come all the way.
                        self.ways[thing] = list(self.ways.get(person, []))
                case Give(_, thing, receiver):
                    self._get(receiver, thing)

    def _get(self, person: str, thing: str) -> None:
        self.holder[thing] = person
        if thing not in self.taken.setdefault(person, []):
            self.taken[person].append(thing)

    def carried(self, person: str) -> list[str]:
        """What a person has now, in the order in which they first got it."""
        return [thing for thing in self.taken.get(person, []) if self.holder.get(thing) == person]


def where_is(sentences: Sequence[str], question: str) -> str:
    """Where a thing is: where its carrier went last, or where it was dropped.

    Args:
        sentences: what is told.
        question: ``Where is the milk?``
    """
    return _Belongings(sentences).ways[WHERE.parse(question)][-1]


def where_before(sentences: Sequence[str], question: str) -> str:
    """Where a thing was before it came to a place for the last time.

    Args:
        sentences: what is told.
        question: ``Where was the milk before the office?``
    """
    thing, place = WHERE_BEFORE.parse(question)
    way = _Belongings(sentences).ways[thing]
    return first(way[at - 1] for at in range(len(way) - 1, 0, -1) if way[at] == place)


def who_or_what(sentences: Sequence[str], question: str) -> str:
    """Giver, receiver or thing of the last gift that fits the question.

    Args:
        sentences: what is told.
        question: such as ``Who gave the milk to Mary?``
    """
    asked, known = GIFT.parse(question)
    gifts = [event._asdict() for event in reversed(read(sentences)) if isinstance(event, Give)]
    return first(gift[asked] for gift in gifts if known.items() <= gift.items())


def how_many(sentences: Sequence[str], question: str) -> str:
    """How many things somebody carries, in words.

    Args:
        sentences: what is told.
        question: ``How many objects is Mary carrying?``
    """
    return NUMBERS[len(_Belongings(sentences).carried(HOW_MANY.parse(question)))]


def which(sentences: Sequence[str], question: str) -> str:
    """The things that somebody carries, in the order in which they first got them.

    Args:
        sentences: what is told.
        question: ``What is Mary carrying?``
    """
    return ",".join(_Belongings(sentences).carried(WHAT.parse(question))) or "nothing"
