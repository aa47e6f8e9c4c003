"""Stories told in another order, and several times in an epoch."""

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from tasks import Babi, BabiEnsemble
from tasks.babi.encode import encode_stories
from tasks.babi.generator import generate_questions
from tasks.babi.reader import find_file, read_stories
from tasks.babi.reorder import TIMELESS, Reorder
from tasks.babi.solver import solve
from tasks.babi.vocabulary import VOCABULARY
from tests.tasks.babi.test_task import on_rank, questions, take

KEY = np.array([1, 2], np.uint64)


def check_that_it_stays_true(task, stories):
    """The answers follow from what was said in another order, and the batch holds it in that order."""
    encoded = encode_stories(stories, task)
    items = np.arange(encoded.num_questions)
    plain = encoded.batch(items, 200)
    batch = Reorder(encoded, KEY)(plain, items, items // 30)
    assert batch.answer.equal(plain.answer) and batch.question.equal(plain.question)
    item = moved = 0
    for story in stories:
        for question in story.questions:
            before = [sentence.text for sentence in story.before(question)]
            old = [[VOCABULARY[word] for word in row if word] for row in plain.story[item].tolist()]
            new = [[VOCABULARY[word] for word in row if word] for row in batch.story[item].tolist()]
            assert sorted(new[: len(before)]) == sorted(old[: len(before)]) and not any(new[len(before) :])
            # Sentences may be the same; which of them is meant makes no difference to what was said.
            order = [old.index(words) for words in new[: len(before)]]
            assert solve(task, [before[place] for place in order], question.text).lower() == question.answer.lower()
            supports = {tuple(old[place]) for place in np.nonzero(plain.supports[item].numpy())[0]}
            assert {tuple(new[place]) for place in np.nonzero(batch.supports[item].numpy())[0]} == supports
            moved += new != old
            item += 1
    return moved / item


@pytest.mark.parametrize("task", TIMELESS)
def test_what_was_said_stays_true(task):
    assert check_that_it_stays_true(task, generate_questions(task, seed=4, count=120)) > 0.4


@pytest.mark.parametrize("task", TIMELESS)
def test_what_genuine_stories_say_stays_true(task, genuine_folder):
    stories = list(read_stories(find_file(genuine_folder, task, "1k", "train"), task))
    assert check_that_it_stays_true(task, stories) > 0.4


@pytest.mark.parametrize("task", [task for task in range(1, 21) if task not in TIMELESS])
def test_other_tasks_are_left_as_they_are(task):
    encoded = encode_stories(generate_questions(task, seed=4, count=30), task)
    items = np.arange(encoded.num_questions)
    plain = encoded.batch(items, 200)
    assert questions([Reorder(encoded, KEY)(plain, items, items)]) == questions([plain])


def test_every_order_is_as_likely_and_the_oldest_may_be_left_out():
    encoded = encode_stories(generate_questions(19, seed=1, count=1), 19)
    items, tellings = np.zeros(1200, np.int64), np.arange(1200)
    reorder = Reorder(encoded, KEY)
    batch = reorder(encoded.batch(items, 3), items, tellings)
    _, counts = np.unique(batch.story.reshape(1200, -1).numpy(), axis=0, return_counts=True)
    assert len(counts) == 6 and counts.min() > 150 and counts.max() < 250  # 200 each, standard deviation 13
    assert questions([batch]) == questions([reorder(encoded.batch(items, 3), items, tellings)])


SETTINGS = {"tasks": [1, 17, 19], "num_train": 30, "num_test": 10, "batch_size": 8, "by_story": True}
ANEW = SETTINGS | {"exchange": True, "reorder": True, "repeats": {17: 3, 19: 2}}


def of(batches, count):
    """The answers' tasks and the first words of the stories of so many questions."""
    return [row for batch in batches for row in zip(batch.task.tolist(), batch.story.tolist(), strict=True)][:count]


def test_an_epoch_has_the_questions_of_some_tasks_several_times():
    plain, other = Babi(**SETTINGS), Babi(**SETTINGS, repeats={17: 3, 19: 2})
    assert plain.epoch_size == 3 * 27 and other.epoch_size == (1 + 3 + 2) * 27
    once, several = of(take(plain.train_dataloader(), 11), 81), of(take(other.train_dataloader(), 21), 162)
    for task, times in ((1, 1), (17, 3), (19, 2)):
        own = sorted(str(story[:2]) for number, story in once if number == task)
        assert sorted(own * times) == sorted(str(story[:2]) for number, story in several if number == task)


def test_each_time_a_story_is_told_anew_and_alike_to_all_its_questions():
    encoded, items, _ = Babi(**SETTINGS).train_set()
    batches = take(Babi(**ANEW).train_dataloader(), 21)
    told = {}
    for task, story in of(batches, 162):
        told.setdefault(task, []).append(str(story[:2]))
    stories = {task: len(np.unique(encoded.starts[items][encoded.tasks[items] == task])) for task in told}
    # 4 stories of task 17 three times: two facts are two orders, and eight ways to say them.
    assert 2 * stories[17] < len(set(told[17])) <= 3 * stories[17] < len(told[17])
    assert stories[19] == 27 and len(told[19]) == 54 and len(set(told[19])) > 50


def test_only_training_stories_are_told_anew():
    plain, other = Babi(**SETTINGS), Babi(**ANEW)
    assert questions(plain.val_dataloader()) == questions(other.val_dataloader())
    for one, another in zip(plain.test_dataloader(), other.test_dataloader(), strict=True):
        assert questions(one) == questions(another)


def test_resumed_and_on_two_ranks_the_stories_are_the_same():
    whole = take(Babi(**ANEW).train_dataloader(), 50)
    rest = Babi(**ANEW)
    rest.batches_consumed = 17
    assert questions(take(rest.train_dataloader(), 33)) == questions(whole[17:])
    parts = [take(on_rank(Babi(**ANEW), rank, 2).train_dataloader(), 30) for rank in range(2)]
    for batch, first, second in zip(whole[:30], *parts, strict=True):
        assert questions([first]) + questions([second]) == questions([batch])


@pytest.mark.parametrize(
    "repeats, message",
    [
        ({2: 4}, r"repeats is {2: 4}, but task 2 is none of the tasks, \[1, 17, 19\]"),
        ({17: 0}, "repeats of task 17 is 0, but must be a whole number of at least 1"),
    ],
)
def test_repeats_that_do_not_fit_are_refused(repeats, message):
    with pytest.raises(ValueError, match=message):
        Babi(**SETTINGS, repeats=repeats)


def test_repeats_from_a_command_line():
    parser = ArgumentParser()
    parser.add_subclass_arguments(Babi, "data")
    words = ["--data=tasks.Babi", "--data.tasks=all", "--data.repeats={17: 4, 19: 2}"]
    assert parser.instantiate_classes(parser.parse_args(words)).data.repeats == {17: 4, 19: 2}


@pytest.mark.parametrize("name, value", [("exchange", True), ("reorder", True), ("repeats", {1: 2})])
def test_an_ensemble_refuses(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, but an ensemble's stories are told once in an epoch"):
        BabiEnsemble(Babi(**SETTINGS, **{name: value}), restarts=2)
