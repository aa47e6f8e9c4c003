"""What can happen in a story or be said of it. Solvers read a text into the same events."""

from typing import NamedTuple, TypeAlias


class Move(NamedTuple):
    """Somebody goes to a place, or is said to be there."""

    person: str
    place: str


class Leave(NamedTuple):
    """Somebody is said not to be at a place any longer, and not where else."""

    person: str
    place: str


class Waver(NamedTuple):
    """Somebody is said to be at one of two places, which may be the same."""

    person: str
    place: str
    other: str


class Visit(NamedTuple):
    """Somebody goes to a place at a time: 0 yesterday, 1 this morning, 2 this afternoon, 3 this evening."""

    person: str
    place: str
    time: int


class Take(NamedTuple):
    """Somebody picks up a thing."""

    person: str
    thing: str


class Drop(NamedTuple):
    """Somebody puts down a thing."""

    person: str
    thing: str


class Give(NamedTuple):
    """Somebody hands a thing to somebody else."""

    person: str
    thing: str
    receiver: str


Act: TypeAlias = Move | Take | Drop | Give
Handling: TypeAlias = Take | Drop | Give
