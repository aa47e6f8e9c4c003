"""Fresh stories of the 20 tasks, in the wording of the published files."""

from collections.abc import Callable

from .names import check_task
from .story import Story
from .world import kinds, motives, people, sizes, space, things, times
from .world.dice import Dice

TELLERS: tuple[Callable[[Dice], Story], ...] = (
    people.single_supporting_fact,
    things.two_supporting_facts,
    things.three_supporting_facts,
    space.two_arg_relations,
    things.three_arg_relations,
    people.yes_no_questions,
    things.counting,
    things.lists_sets,
    people.simple_negation,
    people.indefinite_knowledge,
    people.basic_coreference,
    people.conjunction,
    people.compound_coreference,
    times.time_reasoning,
    kinds.basic_deduction,
    kinds.basic_induction,
    space.positional_reasoning,
    sizes.size_reasoning,
    space.path_finding,
    motives.agents_motivations,
)
"""What tells a story of task 1, 2, ... 20."""


def generate(task: int, seed: int, index: int) -> Story:
    """A story of a task: a function of its arguments only.

    Args:
        task: from 1 to 20.
        seed: which endless row of stories, from 0 to 2**64 - 1.
        index: which story of the row, from 0 to 2**64 - 1.

    Raises:
        ValueError: there is no such task, seed or index.

    Example:
        >>> story = generate(1, seed=0, index=0)
        >>> question = story.questions[0]
        >>> [sentence.text for sentence in story.before(question)]
        ['Mary went to the office.', 'John moved to the hallway.']
        >>> question.text, question.answer, question.supports
        ('Where is Mary?', 'office', (1,))
    """
    check_task("task", task)
    for name, value in {"seed": seed, "index": index}.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**64:
            raise ValueError(f"{name} is {value!r}, but must be a whole number from 0 to 2**64 - 1.")
    return TELLERS[task - 1](Dice(task, seed, index))


def generate_questions(task: int, seed: int, count: int) -> list[Story]:
    """Stories with so many questions in all, the first ones of a row; the last story may end early, as in the files.

    Args:
        task: from 1 to 20.
        seed: which row of stories.
        count: how many questions, at least 1.

    Raises:
        ValueError: there is no such task or seed, or count is no positive whole number.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}, but must be a whole number of at least 1.")
    stories: list[Story] = []
    missing = count
    while missing > 0:
        story = generate(task, seed, len(stories))
        questions = story.questions[:missing]
        if len(questions) < len(story.questions):
            story = Story(story.before(questions[-1]), questions)
        stories.append(story)
        missing -= len(questions)
    return stories
