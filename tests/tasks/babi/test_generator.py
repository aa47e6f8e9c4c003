"""Generated stories: the same for the same numbers, well formed, and like the genuine ones in words and shapes."""

import functools
import hashlib
from collections import Counter
from itertools import chain, pairwise

import pytest

from tasks.babi.generator import generate, generate_questions
from tasks.babi.names import NUM_TASKS
from tasks.babi.reader import find_file, iter_stories
from tasks.babi.world.dice import Dice
from tests.tasks.babi.published import ANSWERS, WORDS, difference, shapes, words

TASKS = range(1, NUM_TASKS + 1)

# Of the first three stories of row 7. Results published for generated stories hold for these stories only.
DIGESTS = {
    1: "882308f371b4",
    2: "8db7d1345772",
    3: "72d52b8f7f7b",
    4: "c502de6e4ef9",
    5: "8e9214d382bf",
    6: "daa204d3f71d",
    7: "1bbe7baf9919",
    8: "1f85183e026c",
    9: "d778aea39142",
    10: "c7a503f2e842",
    11: "d229cb116442",
    12: "09d9a66f4880",
    13: "3ad40cad7d7a",
    14: "8b393582730c",
    15: "88bee4e80f58",
    16: "93f55db5689d",
    17: "636b545390a5",
    18: "ce130d43324e",
    19: "9993b745c6a2",
    20: "9e0c5fce8ea3",
}


@functools.cache
def generated(task):
    return generate_questions(task, 0, 2_000)


@pytest.mark.parametrize("task", TASKS)
def test_a_story_is_a_function_of_its_numbers(task):
    story = generate(task, 3, 5)
    generate(task, 3, 6)
    generate(task, 4, 5)
    assert generate(task, 3, 5) == story
    stories = {generate(task, seed, index) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 2, 2**64 - 1)}
    assert len(stories) == 12


@pytest.mark.parametrize("task", TASKS)
def test_stories_stay_as_they_are(task):
    text = repr([generate(task, 7, index) for index in range(3)])
    assert hashlib.blake2b(text.encode(), digest_size=6).hexdigest() == DIGESTS[task]


def test_tasks_do_not_share_their_luck():
    """Tasks 11 and 13 begin with a walk of the same kind; the same numbers must not lead to the same place."""
    ends = [[generate(task, 0, index).questions[0].answer for index in range(60)] for task in (1, 11, 12, 13)]
    for one, other in pairwise(ends):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 30


@pytest.mark.parametrize("task", TASKS)
def test_lines_are_numbered_and_supports_are_sentences_before_the_question(task):
    for index in range(50):
        story = generate(task, 0, index)
        lines = sorted((*story.sentences, *story.questions), key=lambda line: line.id)
        assert [line.id for line in lines] == list(range(1, len(lines) + 1))
        assert all(sentence.text.endswith(".") for sentence in story.sentences)
        assert len(story.questions) >= 1
        for question in story.questions:
            assert question.text.endswith("?")
            before = {sentence.id for sentence in story.before(question)}
            assert question.supports
            assert before.issuperset(question.supports)
            assert len(set(question.supports)) == len(question.supports)


@pytest.mark.parametrize("task", TASKS)
def test_words_and_answers_are_the_genuine_ones(task):
    assert set().union(*map(words, generated(task))) == WORDS[task]
    answers = {question.answer for story in generated(task) for question in story.questions}
    lists_of_three = {answer for answer in answers if answer.count(",") == 2}
    assert answers - lists_of_three == ANSWERS[task]
    assert all(sorted(answer.split(",")) == ["apple", "football", "milk"] for answer in lists_of_three)


@pytest.mark.parametrize("task", TASKS)
def test_the_words_told_of_the_genuine_files_are_theirs(task, genuine_folder):
    """In the 1,000 training and the 1,000 test questions, which have all the words of the 10,000."""
    stories = chain(*(iter_stories(find_file(genuine_folder, task, "1k", split)) for split in ("train", "test")))
    assert set().union(*map(words, stories)) == WORDS[task]


@pytest.mark.parametrize("task", TASKS)
def test_shapes_are_the_genuine_ones(task, genuine_folder):
    """No property's distribution differs from the genuine one by more than 0.08, for 2,000 generated questions.

    That much is chance: a fifth of the genuine training questions differs by up to 0.08 from the rest. What the bound
    has caught: asking in task 3 about the last place only (0.12).
    """
    size = "1k" if task == 3 else "10k"
    stories = chain(*(iter_stories(find_file(genuine_folder, task, size, split)) for split in ("train", "test")))
    genuine = shapes(first_questions(stories, 4_000))
    ours = shapes(generated(task))
    assert genuine.keys() == ours.keys()
    differences = {name: difference(genuine[name], ours[name]) for name in genuine}
    assert not {name: found for name, found in differences.items() if found > 0.08}


def first_questions(stories, count):
    """The first stories, until they have so many questions."""
    kept = []
    for story in stories:
        kept.append(story)
        count -= len(story.questions)
        if count <= 0:
            break
    return kept


def test_so_many_questions():
    stories = generate_questions(6, 0, 12)
    assert [len(story.questions) for story in stories] == [5, 5, 2]
    assert stories[:2] == [generate(6, 0, 0), generate(6, 0, 1)]
    whole, cut = generate(6, 0, 2), stories[2]
    assert cut.questions == whole.questions[:2]
    assert cut.sentences == whole.before(whole.questions[1])
    assert generate_questions(6, 0, 10) == stories[:2]


@pytest.mark.parametrize(
    "numbers, message",
    [
        ((0, 0, 0), "task is 0, but the tasks are numbered from 1 to 20."),
        ((21, 0, 0), "task is 21, but"),
        (("1", 0, 0), "task is '1', but"),
        ((True, 0, 0), "task is True, but"),
        ((1, -1, 0), r"seed is -1, but must be a whole number from 0 to 2\*\*64 - 1."),
        ((1, 2**64, 0), "seed is 18446744073709551616, but"),
        ((1, 0.0, 0), "seed is 0.0, but"),
        ((1, 0, -3), "index is -3, but"),
        ((1, 0, None), "index is None, but"),
    ],
)
def test_numbers_that_name_no_story(numbers, message):
    with pytest.raises(ValueError, match=message):
        generate(*numbers)


@pytest.mark.parametrize("count", [0, -5, 2.0, True])
def test_a_count_must_be_positive(count):
    with pytest.raises(ValueError, match=f"count is {count}, but must be a whole number of at least 1."):
        generate_questions(1, 0, count)


def test_no_task_has_no_questions():
    with pytest.raises(ValueError, match="task is 30, but"):
        generate_questions(30, 0, 1)


def test_dice_are_fair():
    """Over 60,000 throws, each of six faces lies within four standard deviations (91) of its share."""
    dice = Dice(1, 0, 0)
    faces = Counter(dice.pick("abcdef") for _ in range(60_000))
    assert all(abs(faces[face] - 10_000) < 4 * 91.3 for face in "abcdef")
    pairs = Counter(tuple(dice.sample("abc", 2)) for _ in range(60_000))
    assert len(pairs) == 6
    assert all(abs(count - 10_000) < 4 * 91.3 for count in pairs.values())
    assert abs(sum(dice.chance(0.2) for _ in range(60_000)) - 12_000) < 4 * 98
    assert 0 <= min(dice.number() for _ in range(1_000)) < 0.02


def test_a_derangement_is_any_one_big_cycle():
    dice = Dice(1, 0, 1)
    orders = Counter("".join(dice.derange("abcd")) for _ in range(6_000))
    # The six cycles of four letters, each within four standard deviations (29).
    assert set(orders) == {"bcda", "bdac", "cadb", "cdba", "dabc", "dcab"}
    assert all(abs(count - 1_000) < 4 * 28.9 for count in orders.values())
    assert dice.derange("a") == ["a"]


def test_the_first_story_of_a_row_is_not_the_second_of_another():
    """Counters must not run into the next index's, also not in the longest stories."""
    stories = [generate(3, seed, index) for seed in range(3) for index in range(20)]
    assert len({story.sentences[:10] for story in stories}) == len(stories)
