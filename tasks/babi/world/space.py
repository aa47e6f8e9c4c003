"""What lies where from what: tasks 4, 17 and 19.

Places or shapes stand on a grid, each next to some other. A sentence says on which side of a neighbour one stands.
"""

from collections.abc import Iterator

from ..story import Story
from .book import Book
from .dice import Dice
from .wording import PLACES

Links = dict[str, dict[int, str]]
"""What stands next to each thing, by the side on which it stands: a multiple of 90 degrees."""

SIDES = (0, 90, 180, 270)
WINDS = {0: "east", 90: "north", 180: "west", 270: "south"}
SHAPES = ("blue square", "pink rectangle", "red sphere", "red square", "triangle", "yellow square")
RELATIONS = {0: "to the right of", 90: "above", 180: "to the left of", 270: "below"}
STEPS = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}


def opposite(side: int) -> int:
    """The other side.

    Args:
        side: one of 0, 90, 180 and 270.
    """
    return (side + 180) % 360


def two_arg_relations(dice: Dice) -> Story:
    """Task 4. The office is north of the kitchen. The kitchen is north of the garden. What is the garden south of?
    kitchen

    Three places in a row. The question is about one of the two sentences, in its words or the other way round, and
    always about the place that it mentions last.
    """
    first, middle, last = dice.sample(PLACES, 3)
    side = dice.pick(SIDES)
    links: Links = {first: {}, middle: {}, last: {}}
    _join(links, middle, side, first)
    _join(links, middle, opposite(side), last)
    book = Book[None]()
    told = []
    for here, side, there in _glances(dice, links):
        told.append((book.say(f"The {here} is {WINDS[opposite(side)]} of the {there}."), here, side, there))
    number, here, side, there = dice.pick(told)
    if dice.chance(0.5):
        book.ask(f"What is {WINDS[opposite(side)]} of the {there}?", here, [number])
    else:
        book.ask(f"What is the {there} {WINDS[side]} of?", here, [number])
    return book.story()


def positional_reasoning(dice: Dice) -> Story:
    """Task 17. The triangle is above the red square. The triangle is to the left of the red sphere.
    Is the red square to the left of the red sphere? yes

    Two shapes at two sides of a third. Eight questions compare the two; half of the answers are yes.
    """
    middle, *others = dice.sample(SHAPES, 3)
    sides = dice.sample(SIDES, 2)
    links: Links = {middle: {}, others[0]: {}, others[1]: {}}
    for side, other in zip(sides, others, strict=True):
        _join(links, middle, side, other)
    book = Book[None]()
    ids = {}
    for here, side, there in _glances(dice, links):
        number = book.say(f"The {there} is {RELATIONS[side]} the {here}.")
        ids[there if here == middle else here] = number
    places = {other: STEPS[side] for side, other in zip(sides, others, strict=True)}
    answers: dict[str, list[tuple[str, str, str]]] = {"yes": [], "no": []}
    for one, other in (others, others[::-1]):
        offset = [a - b for a, b in zip(places[one], places[other], strict=True)]
        for side, relation in RELATIONS.items():
            towards = sum(a * b for a, b in zip(offset, STEPS[side], strict=True))
            answers["yes" if towards > 0 else "no"].append((one, relation, other))
    for _ in range(8):
        answer = dice.pick(("yes", "no"))
        one, relation, other = dice.pick(answers[answer])
        book.ask(f"Is the {one} {relation} the {other}?", answer, [ids[one], ids[other]])
    return book.story()


def path_finding(dice: Dice) -> Story:
    """Task 19. The office is east of the hallway. The garden is south of the office.
    How do you go from the hallway to the garden? e,s

    Three places make the way, which never turns back, and three more stand each next to one of these. Nothing keeps
    two places from sharing a square.
    """
    start, middle, end, *others = dice.sample(PLACES, 6)
    links: Links = {place: {} for place in PLACES}
    first = dice.pick(SIDES)
    _join(links, start, first, middle)
    second = dice.pick([side for side in SIDES if side not in links[middle]])
    _join(links, middle, second, end)
    free = [(place, side) for place in (start, middle, end) for side in SIDES if side not in links[place]]
    for (place, side), other in zip(dice.sample(free, 3), others, strict=True):
        _join(links, place, side, other)
    book = Book[None]()
    ids = {}
    for here, side, there in _glances(dice, links):
        ids[frozenset((here, there))] = book.say(f"The {here} is {WINDS[opposite(side)]} of the {there}.")
    supports = [ids[frozenset((start, middle))], ids[frozenset((middle, end))]]
    text = f"How do you go from the {start} to the {end}?"
    book.ask(text, f"{WINDS[first][0]},{WINDS[second][0]}", supports)
    return book.story()


def _join(links: Links, here: str, side: int, there: str) -> None:
    links[here][side] = there
    links[there][opposite(side)] = here


def _glances(dice: Dice, links: Links) -> Iterator[tuple[str, int, str]]:
    """Each pair of neighbours once, as (one, on which side of it the other is, the other).

    Somebody looks from a random place to a random neighbour, again and again, until all has been seen. So a pair
    comes early if one of the two has few neighbours, and that one is likely to be named first.
    """
    unseen = {frozenset((here, there)) for here, sides in links.items() for there in sides.values()}
    while unseen:
        here = dice.pick(tuple(links))
        side = dice.pick(tuple(links[here]))
        there = links[here][side]
        if frozenset((here, there)) in unseen:
            unseen.remove(frozenset((here, there)))
            yield here, side, there
