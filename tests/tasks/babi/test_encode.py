"""Stories as numbers, and the cache of them."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.babi import cache
from tasks.babi.cache import cache_folder, cached
from tasks.babi.encode import Encoded, StoryBatch, encode_stories, join
from tasks.babi.generator import generate_questions
from tasks.babi.reader import find_file, iter_stories
from tasks.babi.sets import generated, genuine
from tasks.babi.story import Question, Sentence, Story
from tasks.babi.vocabulary import IDS, NULL, NUM_ANSWERS, UNKNOWN, answer_word, split_words

STORY = Story(
    (
        Sentence(1, "Mary got the milk."),
        Sentence(2, "John left."),
        Sentence(4, "John left."),
        Sentence(5, "She went up."),
    ),
    (
        Question(3, "Who left?", "Mary", (2, 1)),
        Question(6, "What is Mary carrying?", "milk,football", (5, 2)),
        Question(7, "Is John there?", "no", (1,)),
    ),
)


def ids(text, width):
    numbers = [IDS.get(word, UNKNOWN) for word in split_words(text)]
    return numbers + [NULL] * (width - len(numbers))


def slowly(stories, task, num_sentences):
    """Every question on its own, as the paper says it: the last sentences before it, one after the other."""
    examples = []
    for story in stories:
        for question in story.questions:
            kept = story.before(question)[-num_sentences:]
            examples.append(
                (
                    [split_words(sentence.text) for sentence in kept],
                    split_words(question.text),
                    answer_word(question.answer),
                    [sentence.id in question.supports for sentence in kept],
                    task,
                )
            )
    return examples


def in_words(batch):
    """A batch as ``slowly`` has it; padding must be padding."""
    names = {number: word for word, number in IDS.items()}
    examples = []
    for story, question, answer, supports, task in zip(*(part.tolist() for part in batch), strict=True):
        length = sum(any(words) for words in story)
        assert not any(any(words) for words in story[length:]) and not any(supports[length:])
        texts = []
        for words in [*story[:length], question]:
            count = sum(word != NULL for word in words)
            assert words[count:] == [NULL] * (len(words) - count)
            texts.append([names[word] for word in words[:count]])
        examples.append((texts[:-1], texts[-1], names[answer], supports[:length], task))
    return examples


def test_a_batch_by_hand():
    batch = encode_stories([STORY], 8).batch(np.array([1, 0]), num_sentences=3)
    # "the milk" has four words, the longest sentence; the second question's story lost its oldest sentence.
    assert batch.story.tolist() == [
        [ids("John left", 4), ids("John left", 4), ids("She went up", 4)],
        [ids("Mary got the milk", 4), ids("John left", 4), ids("", 4)],
    ]
    assert batch.question.tolist() == [ids("What is Mary carrying", 4), ids("Who left", 4)]
    assert batch.answer.tolist() == [IDS["milk,football"], IDS["mary"]]
    assert batch.supports.tolist() == [[True, False, True], [True, True, False]]
    assert batch.task.tolist() == [8, 8]
    assert all(
        part.dtype == (torch.bool if name == "supports" else torch.int64) for name, part in batch._asdict().items()
    )


def test_a_support_that_was_cut_is_no_support():
    batch = encode_stories([STORY], 8).batch(np.array([2]), num_sentences=2)
    assert batch.supports.tolist() == [[False, False]]


@pytest.mark.parametrize("task", [1, 3, 8, 15, 18, 19])
@pytest.mark.parametrize("num_sentences", [3, 50])
def test_sets_equal_one_question_after_the_other(task, num_sentences):
    stories = generate_questions(task, seed=5, count=60)
    batch = encode_stories(stories, task).batch(np.arange(60), num_sentences)
    assert in_words(batch) == slowly(stories, task, num_sentences)


def test_any_choice_of_questions_is_those_questions():
    encoded = encode_stories(generate_questions(2, seed=5, count=40), 2)
    whole = in_words(encoded.batch(np.arange(40), 10))
    chosen = np.array(random.Random(3).sample(range(40), 25))
    assert in_words(encoded.batch(chosen, 10)) == [whole[item] for item in chosen]
    assert encoded.batch(chosen[:0], 10).story.shape[:2] == (0, 1)


def test_joined_sets_are_their_questions_one_after_the_other():
    stories = {task: generate_questions(task, seed=5, count=30) for task in (19, 4, 8)}
    parts = [encode_stories(own, task) for task, own in stories.items()]
    joint = join(parts)
    assert joint.num_questions == 90
    expected = [example for task, own in stories.items() for example in slowly(own, task, 50)]
    assert in_words(joint.batch(np.arange(90), 50)) == expected
    assert join(parts[:1]) is parts[0]


def test_each_sentence_is_kept_once():
    encoded = encode_stories([STORY, STORY], 8)
    assert len(encoded.words) == 1 + 3 and len(encoded.sentences) == 8
    assert not encoded.words[0].any()


def test_cut_stories_are_counted():
    encoded = encode_stories([STORY], 8)
    assert [encoded.count_longer(length) for length in (1, 2, 3, 4)] == [3, 2, 2, 0]


def test_words_that_no_task_has_are_unknown_and_counted():
    story = Story(
        (Sentence(1, "Mary got the zeppelin."), Sentence(2, "Mary got the zeppelin.")),
        (Question(3, "Where is the yak?", "Zeppelin", (1,)), Question(4, "Where is Mary?", "hallway", (1,))),
    )
    encoded = encode_stories([story], 1)
    assert sorted(encoded.unknown) == ["yak", "zeppelin"]
    assert encoded.count_unknown() == 4
    batch = encoded.batch(np.array([0]), 50)
    assert batch.story[0, 0].tolist() == [*ids("mary got the", 3), UNKNOWN]
    assert batch.answer.tolist() == [UNKNOWN]
    assert encode_stories([STORY], 8).count_unknown() == len(encode_stories([STORY], 8).unknown) == 0


def test_an_answer_that_is_not_known_is_null():
    story = Story((Sentence(1, "Mary left."),), (Question(2, "Who left?", "", ()),))
    encoded = encode_stories([story], 0)
    assert encoded.answers.tolist() == [NULL] and not len(encoded.unknown)
    assert encoded.batch(np.array([0]), 50).supports.tolist() == [[False]]


def test_genuine_questions_equal_one_after_the_other(genuine_folder):
    for task in (3, 8, 20):
        path = find_file(genuine_folder, task, "1k", "test")
        encoded = genuine(genuine_folder, task, "1k", "test")
        batch = encoded.batch(np.arange(encoded.num_questions), 50)
        assert in_words(batch) == slowly(iter_stories(path, task), task, 50)
        assert int(batch.answer.min()) > UNKNOWN and int(batch.answer.max()) < NUM_ANSWERS
        assert encoded.count_unknown() == 0


# The cache.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "memnet" / "babi"


class Maker:
    """Counts how often it was asked."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return encode_stories([STORY], 8)


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_what_was_made_once_is_read_from_the_disk(folder):
    make = Maker()
    first, second = cached(make, "a"), cached(make, "a")
    assert make.times == 1 and same(first, second)
    assert cache_folder() == folder and [path.suffix for path in folder.iterdir()] == [".npz"]


def test_all_it_depends_on_is_in_the_name(folder, monkeypatch):
    make = Maker()
    for depends_on in (["a"], ["b"], ["a", ""], ["", "a"], ["ab"], ["a", "b"], [b"a", b"\0b"]):
        cached(make, *depends_on)
    assert make.times == 7
    monkeypatch.setattr(cache, "_code_version", lambda folder: "another")
    cached(make, "a")
    assert make.times == 8 and len(list(folder.iterdir())) == 8


def test_the_version_is_the_code(tmp_path):
    (tmp_path / "world").mkdir()
    for name in ("reader.py", "world/people.py"):
        (tmp_path / name).write_text(f"# {name}")
    (tmp_path / "notes.txt").write_text("no code")
    versions = set()
    for name, text in [("notes.txt", "other"), ("reader.py", "# new"), ("world/people.py", "# new")]:
        before = cache._code_version(tmp_path)
        cache._code_version.cache_clear()
        assert cache._code_version(tmp_path) == before
        (tmp_path / name).write_text(text)
        cache._code_version.cache_clear()
        assert (cache._code_version(tmp_path) == before) == (name == "notes.txt")
        versions.add(cache._code_version(tmp_path))
        cache._code_version.cache_clear()
    assert len(versions) == 3
    assert Path(cache.__file__).parent == cache._PACKAGE


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"\x93NUMPY", b"\x93NUMPI", 1)),
        lambda path: np.savez(path, words=np.zeros(3)),
        lambda path: np.savez(path, **dict.fromkeys(Encoded._fields, np.array([{}], dtype=object))),
    ],
    ids=["empty", "cut short", "other bytes", "other arrays", "pickled objects"],
)
def test_a_damaged_cache_is_made_anew(folder, damage):
    make = Maker()
    cached(make, "a")
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    assert same(cached(make, "a"), encode_stories([STORY], 8))
    assert make.times == 2 and path.read_bytes() == whole


def test_nothing_is_kept_of_a_wrong_file(folder, tmp_path):
    path = tmp_path / "qa1_single-supporting-fact_train.txt"
    right = "1 Mary went to the garden.\n2 Where is Mary? \tgarden\t1\n"
    path.write_text(right + "3 Where is Mary? \tgarden\t9\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{path}, line 3 names 9"):
            genuine(tmp_path, 1, "1k", "train")
    assert not folder.exists()
    path.write_text(right)
    assert genuine(tmp_path, 1, "1k", "train").num_questions == 1
    path.write_text(right * 2)
    assert genuine(tmp_path, 1, "1k", "train").num_questions == 2
    assert len(list(folder.iterdir())) == 2


def test_a_failed_write_leaves_nothing_and_is_no_failure(folder, monkeypatch):
    def full(*arguments, **arrays):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match=r"cannot be kept for the next time \(no space left\); set XDG_CACHE_HOME"):
        assert same(cached(Maker(), "a"), encode_stories([STORY], 8))
    assert list(folder.iterdir()) == []


def test_without_a_folder_to_write_to_there_is_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set XDG_CACHE_HOME to a folder"):
        assert same(cached(Maker(), "a"), encode_stories([STORY], 8))


def test_unknown_words_are_told_each_time(folder, tmp_path):
    path = tmp_path / "qa1_single-supporting-fact_test.txt"
    path.write_text("1 Mary went to the zoo.\n2 Where is Mary? \tzoo\t1\n")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"has 1 words that no bAbI task has \(zoo\); they are read as unknown, 2"):
            genuine(tmp_path, 1, "1k", "test")


def test_generated_sets_are_told_apart(folder):
    sets = [generated(1, 0, 20), generated(1, 1, 20), generated(2, 0, 20), generated(1, 0, 10)]
    assert len(list(folder.iterdir())) == 4
    assert [each.num_questions for each in sets] == [20, 20, 20, 10]
    assert not np.array_equal(sets[0].answers, sets[1].answers)
    assert np.array_equal(sets[0].answers[:10], sets[3].answers)
    assert isinstance(sets[0].batch(np.arange(3), 50), StoryBatch)
