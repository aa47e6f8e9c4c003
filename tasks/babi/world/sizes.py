"""What is bigger than what: task 18."""

from ..story import Story
from .book import QUESTIONS, Book
from .dice import Dice

SMALL = ("chocolate", "box of chocolates")
LARGE = ("box", "chest", "container", "suitcase")

FACTS = 5
ATTEMPTS = 100

Fit = tuple[str, str]
"""A smaller and a larger thing."""


def size_reasoning(dice: Dice) -> Story:
    """Task 18. The box is bigger than the chest. The chocolate fits inside the chest.
    Does the chocolate fit in the box? yes

    Chocolate is smaller than a box of chocolates, which is smaller than all that could hold it; the order of these is
    another in every story. Five sentences compare any two things, maybe the same two again. Then come five questions,
    each about the ends of a chain of two sentences. Where a hundred attempts do not find five, another five sentences
    and five questions follow.
    """
    sizes = (*SMALL, *dice.sample(LARGE, len(LARGE)))
    book = Book[Fit]()
    while True:
        for _ in range(FACTS):
            small, large = sorted(dice.sample(sizes, 2), key=sizes.index)
            texts = f"The {small} fits inside the {large}.", f"The {large} is bigger than the {small}."
            book.say(dice.pick(texts), (small, large))
        asked = 0
        for _ in range(ATTEMPTS):
            asked += _ask(dice, book)
            if asked == QUESTIONS:
                return book.story()


def _ask(dice: Dice, book: Book[Fit]) -> bool:
    """Starts from any sentence and any of the two things in it, asks if a chain begins there, and returns whether.

    As published, the chain goes on with the first other sentence about that thing, or not at all.
    """
    start = dice.pick(book.facts)
    upwards = dice.chance(0.5)
    joint = start.event[upwards]
    other = next((fact for fact in book.facts if fact is not start and joint in fact.event), None)
    if other is None or other.event[not upwards] != joint:
        return False
    # Upwards from the smaller end it is asked whether that is the bigger one, so the answer is no.
    one, another = (other.event[1], start.event[0]) if upwards else (other.event[0], start.event[1])
    text = dice.pick((f"Does the {one} fit in the {another}?", f"Is the {another} bigger than the {one}?"))
    book.ask(text, "no" if upwards else "yes", [start.id, other.id])
    return True
