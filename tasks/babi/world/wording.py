"""Names and sentences that several tasks share."""

from collections.abc import Callable

from .book import Book
from .dice import Dice
from .events import Act, Drop, Give, Move, Take
from .simulation import Trial, World

PEOPLE = ("Daniel", "John", "Mary", "Sandra")
PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")

TOWNSPEOPLE = ("Bill", "Fred", "Julie", "Mary")
TOWN = ("bedroom", "cinema", "kitchen", "office", "park", "school")

WENT = ("journeyed", "moved", "travelled", "went", "went back")
TOOK = ("got", "grabbed", "picked up", "took")
DROPPED = ("discarded", "dropped", "left", "put down")
GAVE = ("gave", "handed", "passed")
THEN = ("After that", "Afterwards", "Following that", "Then")
HE = ("Daniel", "John")

DROPPED_THERE = 0.2
"""How often somebody drops a thing "there", and in task 3 also takes it."""


def walk(dice: Dice, who: str, place: str) -> str:
    """A sentence about going somewhere, such as ``Mary went back to the office.``

    Args:
        dice: chooses the verb.
        who: a name, two joined by "and", or a pronoun after an adverb.
        place: where to.
    """
    return f"{who} {dice.pick(WENT)} to the {place}."


def tell(dice: Dice, event: Act, taken_there: float = 1.0) -> str:
    """A sentence about something that happens.

    Args:
        dice: chooses the verb.
        event: what happens.
        taken_there: how often somebody takes a thing "there".
    """
    match event:
        case Move(person, place):
            return walk(dice, person, place)
        case Take(person, thing):
            return f"{person} {dice.pick(TOOK)} the {thing}{_there(dice, taken_there)}."
        case Drop(person, thing):
            return f"{person} {dice.pick(DROPPED)} the {thing}{_there(dice, DROPPED_THERE)}."
        case Give(person, thing, receiver):
            return f"{person} {dice.pick(GAVE)} the {thing} to {receiver}."


def _there(dice: Dice, probability: float) -> str:
    return " there" if dice.chance(probability) else ""


def narrator(world: World, book: Book, *trials: Trial, taken_there: float = 1.0) -> Callable[[], None]:
    """What lets something happen and writes a sentence about it.

    Args:
        world: where it happens.
        book: where it is written.
        *trials: what people try, see ``World.act``.
        taken_there: how often somebody takes a thing "there".
    """

    def say() -> None:
        event = world.act(*trials)
        book.say(tell(world.dice, event, taken_there), event)

    return say
