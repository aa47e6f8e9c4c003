"""Where people are: tasks 1, 6, 9, 10, 11, 12 and 13.

People walk about between six places. Every other sentence is followed by a question about somebody of whom one of the
last five facts tells. What differs is what a sentence says of a walk, and how it is asked.
"""

from collections.abc import Sequence

from ..story import Story
from .book import Book, Fact
from .dice import Dice
from .events import Act, Leave, Move, Waver
from .simulation import World, drop, move, take
from .wording import HE, PEOPLE, PLACES, THEN, THINGS, TOWN, TOWNSPEOPLE, narrator, tell, walk


def single_supporting_fact(dice: Dice) -> Story:
    """Task 1. Mary went to the office. Where is Mary? office"""
    book = Book[Move]()
    say = narrator(World(dice, PEOPLE, PLACES), book, move)
    return book.converse(say, say, lambda: _ask_where(dice, book))


def yes_no_questions(dice: Dice) -> Story:
    """Task 6. John moved to the office. John took the apple there. Is John in the office? yes

    Only somebody is asked about who has gone somewhere in the last five sentences.
    """
    book = Book[Act]()

    def ask() -> None:
        walkers = [fact.event.person for fact in book.recent() if isinstance(fact.event, Move)]
        if walkers:
            person = dice.pick(walkers)
            walks = [Fact(fact.id, fact.event) for fact in book.facts if isinstance(fact.event, Move)]
            known = _last(walks, person)
            _ask_whether(dice, book, known, known.event.place, PLACES)

    say = narrator(World(dice, PEOPLE, PLACES, THINGS), book, move, take, drop)
    return book.converse(say, say, ask)


def simple_negation(dice: Dice) -> Story:
    """Task 9. Mary is in the garden. Mary is no longer in the garden. Is Mary in the garden? no

    Every sentence is about a walk, also one that says no more than which place somebody has left. After such a
    sentence no other place is asked about, since nothing is known of it.
    """
    world = World(dice, PEOPLE, PLACES)
    book = Book[Move | Leave]()

    def say() -> None:
        before = dict(world.where)
        event = world.walk()
        person, place = event
        if dice.chance(0.5):
            book.say(walk(dice, person, place), event)
        elif dice.chance(0.5):
            book.say(f"{person} is in the {place}.", event)
        else:
            left = before[person]
            book.say(f"{person} is {dice.pick(('no longer', 'not'))} in the {left}.", Leave(person, left))

    def ask() -> None:
        known = _known(dice, book)
        person, place = known.event
        if isinstance(known.event, Leave):
            book.ask(f"Is {person} in the {place}?", "no", [known.id])
        else:
            _ask_whether(dice, book, known, place, PLACES)

    return book.converse(say, say, ask)


def indefinite_knowledge(dice: Dice) -> Story:
    """Task 10. Bill is either in the school or the park. Is Bill in the park? maybe

    One of the two is where Bill has gone. As published, the other is any place, so that both may be the same.
    """
    world = World(dice, TOWNSPEOPLE, TOWN)
    book = Book[Move | Waver]()

    def say() -> None:
        event = world.walk()
        person, place = event
        if dice.chance(0.5):
            book.say(walk(dice, person, place), event)
        elif dice.chance(0.5):
            book.say(f"{person} is in the {place}.", event)
        else:
            first, second = dice.sample((place, dice.pick(TOWN)), 2)
            book.say(f"{person} is either in the {first} or the {second}.", Waver(person, first, second))

    def ask() -> None:
        known = _known(dice, book)
        _ask_whether(dice, book, known, world.where[known.event.person], TOWN)

    return book.converse(say, say, ask)


def basic_coreference(dice: Dice) -> Story:
    """Task 11. Mary went to the office. After that she moved to the garden. Where is Mary? garden"""
    world = World(dice, PEOPLE, PLACES)
    book = Book[Move]()

    def say() -> None:
        event = world.walk()
        book.say(tell(dice, event), event)

    def say_more() -> None:
        event = world.walk(book.facts[-1].event.person)
        pronoun = "he" if event.person in HE else "she"
        book.say(walk(dice, f"{dice.pick(THEN)} {pronoun}", event.place), event)

    return book.converse(say, say_more, lambda: _ask_where(dice, book, sentences=2))


def conjunction(dice: Dice) -> Story:
    """Task 12. Mary and John went to the office. Where is John? office"""
    world = World(dice, PEOPLE, PLACES)
    book = Book[Move]()

    def say() -> None:
        first, second = _walk_together(world)
        book.say(walk(dice, f"{first.person} and {second.person}", first.place), first, second)

    return book.converse(say, say, lambda: _ask_where(dice, book))


def compound_coreference(dice: Dice) -> Story:
    """Task 13. Mary and John went to the office. Then they moved to the garden. Where is John? garden"""
    world = World(dice, PEOPLE, PLACES)
    book = Book[Move]()

    def say() -> None:
        first, second = _walk_together(world)
        book.say(walk(dice, f"{first.person} and {second.person}", first.place), first, second)

    def say_more() -> None:
        first, second = _walk_together(world, [fact.event.person for fact in book.facts[-2:]])
        book.say(walk(dice, f"{dice.pick(THEN)} they", first.place), first, second)

    return book.converse(say, say_more, lambda: _ask_where(dice, book, sentences=2))


def _walk_together(world: World, people: Sequence[str] | None = None) -> tuple[Move, Move]:
    """Two people, any unless named, go to a place where neither is."""
    while True:
        first, second = people or world.dice.sample(world.people, 2)
        place = world.dice.pick(world.places)
        if place not in (world.where[first], world.where[second]):
            world.where[first] = world.where[second] = place
            return Move(first, place), Move(second, place)


def _known(dice: Dice, book: Book) -> Fact:
    """The last fact about somebody of whom one of the last five facts tells."""
    return _last(book.facts, dice.pick(book.recent()).event.person)


def _last(facts: list[Fact], person: str) -> Fact:
    return next(fact for fact in reversed(facts) if fact.event.person == person)


def _ask_where(dice: Dice, book: Book[Move], sentences: int = 1) -> None:
    """Asks where somebody is. It takes the last so many sentences to know who is meant."""
    known = _known(dice, book)
    book.ask(f"Where is {known.event.person}?", known.event.place, range(known.id - sentences + 1, known.id + 1))


def _ask_whether(dice: Dice, book: Book, known: Fact, place: str, places: Sequence[str]) -> None:
    """Asks whether somebody is at a place, half the time at the one where they are."""
    asked = place if dice.chance(0.5) else dice.pick([other for other in places if other != place])
    answer = "yes" if asked == place else "no"
    if isinstance(known.event, Waver) and asked in (known.event.place, known.event.other):
        answer = "maybe"
    book.ask(f"Is {known.event.person} in the {asked}?", answer, [known.id])
