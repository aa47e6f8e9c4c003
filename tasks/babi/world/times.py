"""When somebody was where: task 14."""

from ..story import Story
from .book import QUESTIONS, RECENT, Book, Fact
from .dice import Dice
from .events import Visit
from .simulation import World
from .wording import TOWN, TOWNSPEOPLE, walk

TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


def time_reasoning(dice: Dice) -> Story:
    """Task 14. This morning Mary went to the park. Mary went to the school yesterday.
    Where was Mary before the park? school

    Everybody is at one place at a time, and at another the next time. What happened is told two walks at a time, but no
    sentence stands where its walk came. If nobody has been to two places by then, the two wait for the next two.
    """
    world = World(dice, TOWNSPEOPLE, TOWN)
    book = Book[Visit]()
    times = dict.fromkeys(TOWNSPEOPLE, 0)
    waiting: list[Visit] = []
    while book.num_questions < QUESTIONS:
        for _ in range(2):
            event = world.walk(*(person for person in TOWNSPEOPLE if times[person] < len(TIMES)))
            waiting.append(Visit(*event, times[event.person]))
            times[event.person] += 1
        happened = [fact.event for fact in book.facts] + waiting
        later = [visit for visit in happened[-RECENT:] if visit.time > 0]
        if later:
            ids = {visit: book.say(_tell(dice, visit)) for visit in dice.derange(waiting)}
            book.facts.extend(Fact(ids[visit], visit) for visit in waiting)
            waiting.clear()
            _ask(book, dice.pick(later))
    return book.story()


def _tell(dice: Dice, visit: Visit) -> str:
    time = TIMES[visit.time]
    if dice.chance(0.5):
        return walk(dice, f"{time.capitalize()} {visit.person}", visit.place)
    return walk(dice, visit.person, f"{visit.place} {time}")


def _ask(book: Book[Visit], visit: Visit) -> None:
    """Asks where somebody was before they went to a place; before the last time, if they were there twice."""
    visits = {fact.event.time: fact for fact in book.facts if fact.event.person == visit.person}
    after = max(time for time, fact in visits.items() if fact.event.place == visit.place)
    before = visits[after - 1]
    text = f"Where was {visit.person} before the {visit.place}?"
    book.ask(text, before.event.place, [visits[after].id, before.id])
