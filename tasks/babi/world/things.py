"""What people do with things: tasks 2, 3, 5, 7 and 8.

People walk about, pick up things that lie where they are, put them down and hand them on. Two sentences at a time are
told until there is something to ask about one of the last five; five questions make a story.
"""

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

    A thing is asked about if its carrier has gone somewhere with it, or had been told to be where it was dropped.
    """
    book = Book[Act]()

    def ask() -> None:
        recent = [fact.event.thing for fact in _handlings(book.recent())]
        found = {thing: _found(book.facts, thing) for thing in dict.fromkeys(recent)}
        known = [thing for thing in recent if found[thing][1]]
        if known:
            thing = dice.pick(known)
            last, walks = found[thing]
            book.ask(f"Where is the {thing}?", walks[-1].event.place, [last.id, walks[-1].id])

    say = narrator(World(dice, PEOPLE, PLACES, THINGS), book, move, take, drop)
    return book.converse(say, say, ask)


def three_supporting_facts(dice: Dice) -> Story:
    """Task 3. John took the milk. John went to the office. John went to the garden. John left the milk.
    Where was the milk before the garden? office

    A thing is asked about if its last carrier has taken it to at least two places. Any but the first of them can be
    the one before which it was elsewhere; if it was there more than once, the last time counts.
    """
    book = Book[Act]()

    def ask() -> None:
        recent = [fact.event.thing for fact in _handlings(book.recent())]
        found = {thing: _found(book.facts, thing, while_carried=True) for thing in dict.fromkeys(recent)}
        known = [thing for thing in recent if len(found[thing][1]) > 1]
        if known:
            thing = dice.pick(known)
            last, walks = found[thing]
            place = dice.pick(walks[1:]).event.place
            before, after = [pair for pair in pairwise(walks) if pair[1].event.place == place][-1]
            text = f"Where was the {thing} before the {place}?"
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


def _handlings(facts: list[Fact[Act]]) -> list[Fact[Handling]]:
    return [Fact(fact.id, fact.event) for fact in facts if not isinstance(fact.event, Move)]


def _concerns(event: Handling, person: str) -> bool:
    return person == event.person or (isinstance(event, Give) and person == event.receiver)


def _found(facts: list[Fact[Act]], thing: str, while_carried: bool = False) -> tuple[Fact[Handling], list[Fact[Move]]]:
    """Where a thing must be: the last fact about it, and its carrier's walks until that dropped it.

    If it was dropped, its place follows from where its carrier had gone, before or after taking it; if not, only from
    walks after taking it, as in the published stories.

    Args:
        facts: what has been told.
        thing: which thing.
        while_carried: leave out walks before the carrier took the thing also where it was dropped.
    """
    handlings = [fact for fact in _handlings(facts) if fact.event.thing == thing]
    last = handlings[-1]
    dropped = isinstance(last.event, Drop)
    taken = next(fact.id for fact in reversed(handlings) if isinstance(fact.event, Take))
    first = taken if while_carried or not dropped else 0
    end = last.id if dropped else facts[-1].id + 1
    walks = [Fact(fact.id, fact.event) for fact in facts if first < fact.id < end and isinstance(fact.event, Move)]
    return last, [walk for walk in walks if walk.event.person == last.event.person]
