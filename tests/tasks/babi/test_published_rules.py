"""What the published stories do that the paper does not say: true of the genuine files, and of what is generated."""

import re

import pytest

from tasks.babi.generator import generate_questions
from tasks.babi.reader import find_file, read_stories
from tasks.babi.solvers.reading import read
from tasks.babi.solvers.sizes import FACTS as SIZES
from tasks.babi.solvers.times import VISITS
from tasks.babi.world.events import Drop, Give, Move, Take


@pytest.fixture(scope="module", params=["generated", "genuine"])
def stories(request):
    """Stories of a task, generated and genuine."""
    if request.param == "generated":
        return lambda task: generate_questions(task, 1, 1_000)
    folder = request.getfixturevalue("genuine_folder")
    return lambda task: read_stories(find_file(folder, task, "1k", "train"))


def texts(sentences):
    return [sentence.text for sentence in sentences]


@pytest.mark.parametrize("task", [1, 2, 3, 5, 6, 9, 10, 11])
def test_a_question_is_about_one_of_the_last_five_sentences(task, stories):
    ages = set()
    for story in stories(task):
        for question in story.questions:
            ids = [sentence.id for sentence in story.before(question)]
            # Task 11 lists the earlier of two sentences first.
            ages.add(len(ids) - 1 - ids.index(question.supports[1 if task == 11 else 0]))
    assert max(ages) == 4
    assert min(ages) == 0


@pytest.mark.parametrize("task, oldest", [(12, 2), (13, 2)])
def test_a_sentence_about_two_people_tells_two_facts_of_five(task, oldest, stories):
    ages = set()
    for story in stories(task):
        for question in story.questions:
            ids = [sentence.id for sentence in story.before(question)]
            ages.add(len(ids) - 1 - ids.index(question.supports[-1]))
    assert max(ages) == oldest


@pytest.mark.parametrize("task", [1, 2, 3, 5, 6, 7, 8, 11, 12, 13])
def test_nobody_goes_where_they_are(task, stories):
    for story in stories(task):
        where = {}
        for event in read(texts(story.sentences)):
            if isinstance(event, Move):
                assert where.get(event.person) != event.place
                where[event.person] = event.place


@pytest.mark.parametrize("task", [2, 3, 5, 6, 7, 8])
def test_people_carry_what_they_drop_and_lie_things_where_they_take_them(task, stories):
    for story in stories(task):
        where, holder, lying = {}, {}, {}
        for event in read(texts(story.sentences)):
            match event:
                case Move(person, place):
                    where[person] = place
                case Take(person, thing):
                    assert thing not in holder
                    assert None in (lying.get(thing), where.get(person)) or lying[thing] == where[person]
                    holder[thing] = person
                case Drop(person, thing):
                    assert holder.pop(thing) == person
                    lying[thing] = where.get(person)
                case Give(person, thing, receiver):
                    assert holder[thing] == person != receiver
                    assert None in (where.get(person), where.get(receiver)) or where[person] == where[receiver]
                    holder[thing] = receiver


@pytest.mark.parametrize("task", [5, 7])
def test_who_gives_gives_the_first_thing_in_the_alphabet(task, stories):
    several = 0
    for story in stories(task):
        holder = {}
        for event in read(texts(story.sentences)):
            match event:
                case Take(person, thing):
                    holder[thing] = person
                case Drop(_, thing):
                    del holder[thing]
                case Give(person, thing, receiver):
                    carried = [each for each, holding in holder.items() if holding == person]
                    assert thing == min(carried)
                    several += len(carried) > 1
                    holder[thing] = receiver
    assert several > 5


@pytest.mark.parametrize("task", [7, 8])
def test_all_that_somebody_ever_got_or_lost_supports_what_they_carry(task, stories):
    """In order; in task 8 by thing, the thing first that they took first."""
    for story in stories(task):
        for question in story.questions:
            person = question.text.split()[-2]
            by_thing = {}
            for sentence in story.before(question):
                (event,) = read([sentence.text])
                if not isinstance(event, Move) and person in event:
                    by_thing.setdefault(event.thing, []).append(sentence.id)
            supports = [number for numbers in by_thing.values() for number in numbers]
            assert list(question.supports) == (supports if task == 8 else sorted(supports))


def test_a_thing_asked_about_has_gone_somewhere_with_its_carrier(stories):
    """Task 3: the carrier took it before the first of the two walks that support the answer."""
    for story in stories(3):
        told = dict(zip((sentence.id for sentence in story.sentences), read(texts(story.sentences)), strict=True))
        for question in story.questions:
            last, after, before = question.supports
            taken = max(
                number
                for number, event in told.items()
                if number < question.id and isinstance(event, Take) and event.thing == told[last].thing
            )
            assert taken < before < after
            assert {told[number].person for number in (taken, before, after, last)} == {told[last].person}
            assert isinstance(told[last], Drop) or last == taken


def test_no_sentence_of_task_14_stands_where_its_walk_came(stories):
    """So two sentences in a row about one person are told in reverse; every person's times are without a gap."""
    reversed_pairs = 0
    for story in stories(14):
        visits = [VISITS.parse(text) for text in texts(story.sentences)]
        start = 0
        for question in story.questions:
            end = len(story.before(question))
            if end - start == 2 and visits[start].person == visits[start + 1].person:
                assert visits[start].time == visits[start + 1].time + 1
                reversed_pairs += 1
            for person in {visit.person for visit in visits[:end]}:
                times = sorted(visit.time for visit in visits[:end] if visit.person == person)
                assert times == list(range(len(times)))
            start = end
    assert reversed_pairs > 50


def test_a_kind_is_known_before_its_animals(stories):
    for story in stories(15):
        kinds = []
        for text in texts(story.sentences):
            if "afraid" in text:
                kinds.append({"Cats": "cat", "Mice": "mouse", "Sheep": "sheep", "Wolves": "wolf"}[text.split()[0]])
            else:
                assert text.removesuffix(".").split()[-1] in kinds


def test_the_last_animal_of_a_kind_decides_its_color(stories):
    """Task 16; and nobody asks about an animal that shares its kind with exactly two others, or with none."""
    several = 0
    for story in stories(16):
        (question,) = story.questions
        asked = question.text.removesuffix("?").split()[-1]
        kinds = dict(
            re.fullmatch(r"(\w+) is a (\w+)\.", text).groups() for text in texts(story.sentences) if " a " in text
        )
        alike = [name for name, kind in kinds.items() if kind == kinds[asked] and name != asked]
        assert len(alike) in (1, 3, 4)
        assert f"{alike[-1]} is {question.answer}." in texts(story.sentences)
        several += len(alike) > 1
    assert several > 50


def test_a_chain_goes_on_with_the_first_other_sentence_about_its_joint(stories):
    """Task 18."""
    for story in stories(18):
        facts = {sentence.id: SIZES.parse(sentence.text) for sentence in story.sentences}
        for question in story.questions:
            start, end = question.supports
            (joint,) = (facts[start][1],) if question.answer == "no" else (facts[start][0],)
            assert end == next(number for number, fact in facts.items() if number != start and joint in fact)


def test_a_way_has_two_steps_and_three_byways(stories):
    """Task 19: five sentences join six places; whatever is not on the way stands next to it."""
    for story in stories(19):
        told = " ".join(texts(story.sentences))
        links = [frozenset(pair) for pair in re.findall(r"The (\w+) is \w+ of the (\w+)\.", told)]
        (question,) = story.questions
        first, second = (links[number - 1] for number in question.supports)
        way = first | second
        assert len(way) == 3
        assert len(frozenset().union(*links)) == 6
        assert all(len(link & way) == 1 for link in links if link not in (first, second))


def test_nobody_gets_what_is_gone(stories):
    """Task 20: two sentences for each of four people and one for each thing; the file's last story may be cut."""
    *whole, _ = stories(20)
    for story in whole:
        got = [text.split()[-2] for text in texts(story.sentences) if text.endswith(" there.")]
        states = {text.split()[-1] for text in texts(story.sentences) if text.split()[1] == "is"}
        assert len(set(got)) == len(got) == len(states)
        assert len(story.sentences) == len(story.questions) == 8 + len(got)
