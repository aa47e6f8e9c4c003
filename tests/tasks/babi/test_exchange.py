"""Stories told of other people, places and things."""

import re

import numpy as np
import pytest

from tasks import Babi
from tasks.babi import NUM_ANSWERS, VOCAB_SIZE
from tasks.babi.encode import encode_stories
from tasks.babi.exchange import _OF_PAIRS, KINDS, Exchange, _pairs, exchanged, marked, num_draws
from tasks.babi.generator import generate_questions
from tasks.babi.reader import find_file, read_stories
from tasks.babi.solver import solve
from tasks.babi.vocabulary import IDS, VOCABULARY
from tests.tasks.babi.test_task import on_rank, questions, take

TASKS = range(1, 21)


def retold(text, words):
    """A text with its words, pairs and lists of words in place of others; capitals stay where they were."""

    def other(match):
        word = match.group()
        new = words.get(word.lower(), word.lower())
        return new.capitalize() if word[0].isupper() else new

    pairs = "|".join([*(word for word in words if " " in word), "[a-z]+(,[a-z]+)*"])
    return re.sub(rf"\b({pairs})\b", other, text, flags=re.IGNORECASE)


def changes(table):
    """What a telling says for each word and each pair of words."""
    words = {VOCABULARY[old]: VOCABULARY[new] for old, new in enumerate(table[:VOCAB_SIZE]) if new != old}
    pairs = {
        pair.replace("+", " "): " ".join(VOCABULARY[table[number]] for number in numbers)
        for pair, numbers in _OF_PAIRS.items()
    }
    return words, pairs


@pytest.mark.parametrize("task", TASKS)
def test_what_was_said_stays_true(task):
    """The answers to questions in other words are what the words themselves say, and what the batch has."""
    check_that_it_stays_true(task, generate_questions(task, seed=4, count=60))


@pytest.mark.parametrize("task", TASKS)
def test_what_genuine_stories_say_stays_true(task, genuine_folder):
    check_that_it_stays_true(task, read_stories(find_file(genuine_folder, task, "1k", "test"), task)[:40])


def check_that_it_stays_true(task, stories):
    encoded = encode_stories(stories, task)
    items = np.arange(encoded.num_questions)
    exchange = Exchange(encoded, np.array([1, 2], np.uint64))
    batch = exchange(encoded.batch(items, 200), items, items // 30)
    tables = tables_of(exchange, task, items, items // 30)
    item = changed = 0
    for story in stories:
        for question in story.questions:
            words, pairs = changes(tables[item])
            own = [pair.replace("+", " ") for pair in _pairs(task)]
            words |= {pair: pairs[pair] for pair in own}
            sentences = [retold(sentence.text, words) for sentence in story.before(question)]
            asked, answer = retold(question.text, words), retold(question.answer, words).lower()
            assert solve(task, sentences, asked).lower() == answer
            told = [[VOCABULARY[word] for word in row if word] for row in batch.story[item].tolist()]
            plain = [re.findall(r"[a-z]+", sentence.lower()) for sentence in sentences]
            assert told[: len(plain)] == plain
            assert VOCABULARY[batch.answer[item]] == answer and batch.answer[item] < NUM_ANSWERS
            changed += any(old != new for old, new in words.items())
            item += 1
    assert changed > 20


def tables_of(exchange, task, items, epochs):
    return exchanged(task, exchange._draws(epochs, exchange._places(items)))


@pytest.mark.parametrize("task", TASKS)
def test_words_change_places_one_for_one(task):
    tables = exchanged(task, np.random.default_rng(1).random((200, num_draws(task))))
    words = tables[:, :VOCAB_SIZE]
    np.testing.assert_array_equal(np.sort(words, axis=1), np.tile(np.arange(VOCAB_SIZE), (200, 1)))
    free = {IDS[word] for kind in KINDS[task - 1] for thing in kind for word in thing if word in IDS}
    moved = {number for number in range(VOCAB_SIZE) if (words[:, number] != number).any()}
    assert free <= moved
    assert all("," in VOCABULARY[number] for number in moved - free)


def test_pairs_of_words_change_places_as_one():
    told = [changes(table)[1] for table in exchanged(17, np.random.default_rng(1).random((200, num_draws(17))))]
    things = {"blue square", "pink rectangle", "red sphere", "red square", "yellow square"}
    assert all({pairs[thing] for thing in things} == things for pairs in told)
    assert all(len({pairs[thing] for pairs in told}) == 5 for thing in things)
    assert all(pairs["box of"] == "box of" for pairs in told)
    told = [changes(table) for table in exchanged(18, np.random.default_rng(1).random((200, num_draws(18))))]
    assert {words.get("box", "box") for words, _ in told} == {"box", "chest", "container", "suitcase"}
    assert all(pairs["box of"] == "box of" for _, pairs in told)


def test_only_words_that_follow_one_another_are_a_pair():
    words = ["red", "square", "red", "blue", "square", "square", "blue"]
    red, blue = _OF_PAIRS["red+square"], _OF_PAIRS["blue+square"]
    numbers = marked(17, np.array([[IDS[word] for word in words]]))
    assert numbers.tolist() == [[*red, IDS["red"], *blue, IDS["square"], IDS["blue"]]]


def test_every_order_of_a_kind_is_as_likely():
    tables = exchanged(10, np.random.default_rng(2).random((24_000, num_draws(10))))
    people = tables[:, [IDS[name] for name in ("bill", "fred", "julie", "mary")]]
    _, counts = np.unique(people, axis=0, return_counts=True)
    assert len(counts) == 24 and counts.min() > 850 and counts.max() < 1150  # 1,000 each, standard deviation 31


def test_a_map_is_turned_in_eight_ways():
    tables = exchanged(19, np.random.default_rng(3).random((500, num_draws(19))))
    turned = {tuple(VOCABULARY[number] for number in row) for row in tables[:, [IDS["n,e"], IDS["north"]]].tolist()}
    steps = ("n,e", "n,w", "s,e", "s,w", "e,n", "w,n", "e,s", "w,s")
    assert turned == {(two, {"n": "north", "s": "south", "e": "east", "w": "west"}[two[0]]) for two in steps}


SETTINGS = {"tasks": [1, 15], "num_train": 30, "num_test": 10, "batch_size": 8, "by_story": True}


def test_a_story_is_told_alike_to_all_its_questions_and_otherwise_in_each_epoch():
    plain, other = Babi(**SETTINGS), Babi(**SETTINGS, exchange=True)
    told = {}
    # 27 batches of 8 are four epochs of 54.
    for batch, new in zip(take(plain.train_dataloader(), 27), take(other.train_dataloader(), 27), strict=True):
        for before, after in zip(batch.story.tolist(), new.story.tolist(), strict=True):
            told.setdefault(str(before[:2]), []).append(str(after[:2]))
    several = [len(set(ways)) for ways in told.values()]
    assert 2 < np.mean(several) <= 4
    assert max(several) <= 4 < max(map(len, told.values()))


def test_only_training_stories_are_told_anew():
    plain, other = Babi(**SETTINGS), Babi(**SETTINGS, exchange=True)
    assert questions(plain.val_dataloader()) == questions(other.val_dataloader())
    for one, another in zip(plain.test_dataloader(), other.test_dataloader(), strict=True):
        assert questions(one) == questions(another)


def test_resumed_and_on_two_ranks_the_stories_are_the_same():
    whole = take(Babi(**SETTINGS, exchange=True).train_dataloader(), 20)
    rest = Babi(**SETTINGS, exchange=True)
    rest.batches_consumed = 7
    assert questions(take(rest.train_dataloader(), 13)) == questions(whole[7:])
    parts = [take(on_rank(Babi(**SETTINGS, exchange=True), rank, 2).train_dataloader(), 9) for rank in range(2)]
    for batch, first, second in zip(whole[:9], *parts, strict=True):
        assert questions([first]) + questions([second]) == questions([batch])
