"""What holds of animals by their kind: tasks 15 and 16."""

from ..story import Story
from .book import Book
from .dice import Dice

PREY = {"cat": "cats", "mouse": "mice", "sheep": "sheep", "wolf": "wolves"}
NAMED = ("Emily", "Gertrude", "Jessica", "Winona")

ANIMALS = ("Bernhard", "Brian", "Greg", "Julius", "Lily")
KINDS = ("frog", "lion", "rhino", "swan")
COLORS = ("gray", "green", "white", "yellow")


def basic_deduction(dice: Dice) -> Story:
    """Task 15. Mice are afraid of wolves. Gertrude is a mouse. What is gertrude afraid of? wolf

    Each of four kinds is afraid of some other, and each of four animals is of some kind. An animal is named only after
    its kind: sentences come in the order in which they are thought of, but for the names that come too early.
    """
    book = Book[None]()
    feared: dict[str, tuple[str, int]] = {}
    named: dict[str, tuple[str, int]] = {}
    while len(feared) < len(PREY) or len(named) < len(NAMED):
        kind = dice.pick(tuple(PREY))
        if dice.chance(0.5):
            if kind not in feared:
                enemy = dice.pick([other for other in PREY if other != kind])
                feared[kind] = enemy, book.say(f"{PREY[kind].capitalize()} are afraid of {PREY[enemy]}.")
        else:
            name = dice.pick(NAMED)
            if name not in named and kind in feared:
                named[name] = kind, book.say(f"{name} is a {kind}.")
    for _ in range(4):
        name = dice.pick(NAMED)
        kind, named_in = named[name]
        enemy, feared_in = feared[kind]
        book.ask(f"What is {name.lower()} afraid of?", enemy, [named_in, feared_in])
    return book.story()


def basic_induction(dice: Dice) -> Story:
    """Task 16. Lily is a swan. Lily is white. Greg is a swan. What color is Greg? white

    Five animals; of each the kind is told, and later the color, but for the last one, whose color is left to guess. It
    is that of its kind. As published, a kind changes color whenever another animal of it turns up, so that the one
    that turned up last decides; and no question is about an animal that shares its kind with nobody or with two others.
    """
    story = None
    while story is None:
        story = _induction(dice)
    return story


def _induction(dice: Dice) -> Story | None:
    kinds = {animal: dice.pick(KINDS) for animal in ANIMALS}
    color_now: dict[str, str] = {}
    book = Book[None]()
    kind_told: dict[str, int] = {}
    color_told: dict[str, tuple[str, int]] = {}
    while book.line < 2 * len(ANIMALS) - 1:
        animal = dice.pick([animal for animal in ANIMALS if animal not in color_told])
        kind = kinds[animal]
        if animal in kind_told:
            color_told[animal] = color_now[kind], book.say(f"{animal} is {color_now[kind]}.")
        else:
            kind_told[animal] = book.say(f"{animal} is a {kind}.")
            color_now[kind] = dice.pick(COLORS)
    (asked,) = set(ANIMALS) - set(color_told)
    alike = [animal for animal in color_told if kinds[animal] == kinds[asked]]
    if len(alike) in (0, 2):
        return None
    example = max(alike, key=lambda animal: kind_told[animal])
    color, color_line = color_told[example]
    book.ask(f"What color is {asked}?", color, [kind_told[asked], kind_told[example], color_line])
    return book.story()
