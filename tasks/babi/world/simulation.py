"""The world as it is, which a reader sees only as far as it is told."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .dice import Dice
from .events import Act, Drop, Give, Move, Take

Trial: TypeAlias = "Callable[[World, str], Act | None]"
"""What a person tries: what would happen, or None if it is impossible."""


class World:
    """People and things, each at some place from the start, before anything is said of them.

    Args:
        dice: draws the first places and everything that happens.
        people: who lives here.
        places: where they can be.
        things: what they can carry.

    Attributes:
        where: the place of every person, and of every thing that nobody carries.
        holder: who carries a thing, if somebody does.
    """

    def __init__(self, dice: Dice, people: Sequence[str], places: Sequence[str], things: Sequence[str] = ()) -> None:
        self.dice = dice
        self.people = people
        self.places = places
        self.things = things
        self.where = {name: dice.pick(places) for name in (*people, *things)}
        self.holder: dict[str, str] = {}

    def carried(self, person: str) -> list[str]:
        """What somebody carries.

        Args:
            person: one of ``people``.
        """
        return [thing for thing in self.things if self.holder.get(thing) == person]

    def lying(self, place: str) -> list[str]:
        """What lies at a place.

        Args:
            place: one of ``places``.
        """
        return [thing for thing in self.things if thing not in self.holder and self.where[thing] == place]

    def apply(self, event: Act) -> None:
        """Lets something happen.

        Args:
            event: something possible.
        """
        match event:
            case Move(person, place):
                self.where[person] = place
            case Take(person, thing):
                self.holder[thing] = person
            case Drop(person, thing):
                del self.holder[thing]
                self.where[thing] = self.where[person]
            case Give(_, thing, receiver):
                self.holder[thing] = receiver

    def act(self, *trials: Trial) -> Act:
        """Lets something happen: people try something until somebody tries something possible.

        Args:
            *trials: what people try, each equally often.
        """
        while True:
            event = self.dice.pick(trials)(self, self.dice.pick(self.people))
            if event is not None:
                self.apply(event)
                return event

    def walk(self, *people: str) -> Move:
        """Lets somebody go somewhere else.

        Args:
            *people: one of them; anybody if none is named.
        """
        event = None
        while event is None:
            event = move(self, self.dice.pick(people or self.people))
        self.apply(event)
        return event


def move(world: World, person: str) -> Move | None:
    """Going anywhere but to the place where one is already."""
    place = world.dice.pick(world.places)
    return Move(person, place) if place != world.where[person] else None


def take(world: World, person: str) -> Take | None:
    """Picking up one of the things that lie here."""
    things = world.lying(world.where[person])
    return Take(person, world.dice.pick(things)) if things else None


def drop(world: World, person: str) -> Drop | None:
    """Putting down one of the things that one carries."""
    things = world.carried(person)
    return Drop(person, world.dice.pick(things)) if things else None


def give(world: World, person: str) -> Give | None:
    """Handing something to somebody at the same place.

    The published stories leave nothing of this to chance, not even the giver: it is the first thing whose carrier is
    not alone, and it goes to the first person there, in the order of ``World.things`` and ``World.people``.
    """
    for thing in world.things:
        giver = world.holder.get(thing)
        for receiver in world.people:
            if giver and receiver != giver and world.where[receiver] == world.where[giver]:
                return Give(giver, thing, receiver)
    return None
