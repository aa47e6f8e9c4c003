"""Why people do things: task 20."""

from ..story import Story
from .book import Book
from .dice import Dice
from .wording import TOOK, walk

PEOPLE = ("Antoine", "Jason", "Sumit", "Yann")

AIMS = {
    "bored": ("garden", "football"),
    "hungry": ("kitchen", "apple"),
    "thirsty": ("kitchen", "milk"),
    "tired": ("bedroom", "pajamas"),
}
"""Where people go, and what they get there, when they are in a state."""


def agents_motivations(dice: Dice) -> Story:
    """Task 20. Sumit is tired. Where will sumit go? bedroom. Sumit grabbed the pajamas there.
    Why did sumit get the pajamas? tired

    Each of four people is in some state, then goes somewhere, then gets something there, if nobody else has got it.
    Who does the next thing is open. A question follows each sentence.
    """
    book = Book[None]()
    states = {person: dice.pick(tuple(AIMS)) for person in PEOPLE}
    done = dict.fromkeys(PEOPLE, 0)
    told: dict[str, int] = {}
    taken: set[str] = set()

    def has_something_to_do(person: str) -> bool:
        return done[person] < 2 or (done[person] == 2 and AIMS[states[person]][1] not in taken)

    while active := [person for person in PEOPLE if has_something_to_do(person)]:
        person = dice.pick(active)
        state = states[person]
        place, thing = AIMS[state]
        match done[person]:
            case 0:
                told[person] = book.say(f"{person} is {state}.")
                text, answer = f"Where will {person.lower()} go?", place
            case 1:
                book.say(walk(dice, person, place))
                text, answer = f"Why did {person.lower()} go to the {place}?", state
            case _:
                book.say(f"{person} {dice.pick(TOOK)} the {thing} there.")
                taken.add(thing)
                text, answer = f"Why did {person.lower()} get the {thing}?", state
        book.ask(text, answer, [told[person]])
        done[person] += 1
    return book.story()
