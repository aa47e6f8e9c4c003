"""What people do with things: tasks 2, 3, 5, 7 and 8.

People walk about, pick up things that lie where they are, put them down and hand them on. Two sentences at a time are
told until there is something to ask about one of the last five; five questions make a story.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ..story import Story
from .book import Book, Fact
from .dice import Dice
from .events import Act, Drop, Give, Handling, Move, Take
from .simulation import World, drop, give, move, take
from .wording import DROPPED_THERE, PEOPLE, PLACES, THINGS, narrator

# In these orders people come first when something is handed over, see ``simulation.give``.
GIVERS = ("Mary", "Fred", "Bill", "Jeff")
CARRIERS = ("John", "Mary", "Sandra", "Daniel")

NUMBERS = ("none", "one", "two", "three")


def two_supporting_facts(dice: Dice) -> Story:
    """Task 2. John took the milk there. John went to the office. Where is the milk? office

    A thing is asked about if its carrier has gone somewhere with it, or dropped it at a place that had been told.
    """
    book = Book[Act]()

    def ask() -> None:
        lasts = [_last(book, fact.event.thing) for fact in _handlings(book.recent())]
        known = [(last, walk) for last in lasts if (walk := next(_walks(book, last, since_taken=False), None))]
        if known:
            last, walk = dice.pick(known)
            book.ask(f"Where is the {last.event.thing}?", walk.event.place, [last.id, walk.id])

    say = narrator(World(dice, PEOPLE, PLACES, THINGS), book, move, take, drop)
    return book.converse(say, say, ask)


def three_supporting_facts(dice: Dice) -> Story:
    """Task 3. John took the milk. John went to the office. John went to the garden. John left the milk.
    Where was the milk before the garden? office

    A thing is asked about if its last carrier has taken it to at least two places: what was before any but the first of
    them, and before the last time if it was there more than once.
    """
    book = Book[Act]()

    def ask() -> None:
        lasts = [_last(book, fact.event.thing) for fact in _handlings(book.recent())]
        known = [(last, walks) for last in lasts if len(walks := [*_walks(book, last, since_taken=True)]) > 1]
        if known:
            last, walks = dice.pick(known)
            place = dice.pick(walks[:-1]).event.place
            after, before = next(pair for pair in pairwise(walks) if pair[0].event.place == place)
            text = f"Where was the {last.event.thing} before the {place}?"
            book.ask(text, before.event.place, [last.id, after.id, before.id])

    say = narrator(World(dice, PEOPLE, PLACES, THINGS), book, move, take, drop, taken_there=DROPPED_THERE)
    return book.converse(say, say, ask)


def three_arg_relations(dice: Dice) -> Story:
    """Task 5. Mary gave the milk to Fred. Who did Mary give the milk to? Fred

    A thing is asked about that has changed hands in the last five sentences.
    """
    book = Book[Act]()

    def ask() -> None:
        recent = [fact.event.thing for fact in book.recent() if isinstance(fact.event, Give)]
        if not recent:
            return
        thing = dice.pick(recent)
        gifts = [Fact(fact.id, fact.event) for fact in reversed(book.facts) if isinstance(fact.event, Give)]
        gift = next(gift for gift in gifts if gift.event.thing == thing)
        giver, _, receiver = gift.event
        if dice.chance(1 / 3):
            # The same two may have exchanged something else since.
            gift = next(gift for gift in gifts if (gift.event.person, gift.event.receiver) == (giver, receiver))
            book.ask(f"What did {giver} give to {receiver}?", gift.event.thing, [gift.id])
        else:
            texts = {
                f"Who gave the {thing}?": giver,
                f"Who gave the {thing} to {receiver}?": giver,
                f"Who received the {thing}?": receiver,
                f"Who did {giver} give the {thing} to?": receiver,
            }
            text = dice.pick(list(texts))
            book.ask(text, texts[text], [gift.id])

    say = narrator(World(dice, GIVERS, PLACES, THINGS), book, move, take, drop, give)
    return book.converse(say, say, ask)


def counting(dice: Dice) -> Story:
    """Task 7. Mary took the milk there. Mary handed the milk to John. How many objects is Mary carrying? none

    Somebody is asked about who has taken, dropped or given something in the last five sentences. All that has brought
    or lost them something, from the beginning, supports the answer.
    """
    world = World(dice, CARRIERS, PLACES, THINGS)
    book = Book[Act]()

    def ask() -> None:
        recent = [fact.event.person for fact in _handlings(book.recent())]
        if recent:
            person = dice.pick(recent)
            supports = [fact.id for fact in _handlings(book.facts) if _concerns(fact.event, person)]
            answer = NUMBERS[len(world.carried(person))]
            book.ask(f"How many objects is {person} carrying?", answer, supports)

    say = narrator(world, book, move, take, drop, give)
    return book.converse(say, say, ask)


def lists_sets(dice: Dice) -> Story:
    """Task 8. Mary took the milk there. Mary got the apple there. What is Mary carrying? milk,apple

    As task 7, but nothing is handed over. Things are listed in the order in which the person first took them, and so
    are the sentences that support the answer.
    """
    world = World(dice, PEOPLE, PLACES, THINGS)
    book = Book[Act]()

    def ask() -> None:
        recent = [fact.event.person for fact in _handlings(book.recent())]
        if recent:
            person = dice.pick(recent)
            ids: dict[str, list[int]] = {}
            for fact in _handlings(book.facts):
                if fact.event.person == person:
                    ids.setdefault(fact.event.thing, []).append(fact.id)
            carried = [thing for thing in ids if world.holder.get(thing) == person]
            supports = [number for numbers in ids.values() for number in numbers]
            book.ask(f"What is {person} carrying?", ",".join(carried) or "nothing", supports)

    say = narrator(world, book, move, take, drop)
    return book.converse(say, say, ask)


def _handlings(facts: Iterable[Fact[Act]]) -> Iterator[Fact[Handling]]:
    return (Fact(fact.id, fact.event) for fact in facts if not isinstance(fact.event, Move))


def _concerns(event: Handling, person: str) -> bool:
    return person == event.person or (isinstance(event, Give) and person == event.receiver)


def _last(book: Book[Act], thing: str) -> Fact[Handling]:
    """The last fact about a thing."""
    return next(fact for fact in _handlings(reversed(book.facts)) if fact.event.thing == thing)


def _walks(book: Book[Act], last: Fact[Handling], since_taken: bool) -> Iterator[Fact[Move]]:
    """The walks that led to where a thing must be, the latest first: its carrier's, until that dropped it.

    Args:
        book: what has been told.
        last: the last fact about the thing.
        since_taken: only walks with the thing. Without, a thing that was dropped where it was taken is found, too; but
            one that was taken is not, unless its carrier has walked since, as in the published stories.
    """
    dropped = isinstance(last.event, Drop)
    for fact in reversed(book.facts):
        event = fact.event
        if isinstance(event, Move):
            if event.person == last.event.person and (fact.id < last.id or not dropped):
                yield Fact(fact.id, event)
        elif isinstance(event, Take) and event.thing == last.event.thing and (since_taken or not dropped):
            return
