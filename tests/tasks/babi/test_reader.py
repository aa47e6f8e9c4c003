"""Reading bAbI files: what the genuine ones are like, and what is no such file."""

import itertools

import pytest

from tasks.babi.names import NAMES, NUM_TASKS, PUBLISHED, file_name
from tasks.babi.reader import find_file, iter_stories, read_stories
from tasks.babi.story import Question, Sentence, Story
from tasks.babi.vocabulary import (
    ANSWERS,
    IDS,
    NUM_ANSWERS,
    UNKNOWN,
    VOCAB_SIZE,
    VOCABULARY,
    answer_word,
    split_words,
)

TWO_STORIES = (
    "1 Mary got the milk.\n"
    "2 John went to the hallway.\n"
    "3 Where is John? \thallway\t2\n"
    "4 Mary went to the garden.\n"
    "5 What is Mary carrying? \tmilk,football\t4 1\n"
    "1 Bill gave the apple to Fred.\n"
    "2 Who gave the apple to Fred?\tBill\t1\n"
)


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="stories.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


def test_ids_restart_with_each_story_and_supports_keep_their_order(write):
    assert read_stories(write(TWO_STORIES)) == [
        Story(
            (
                Sentence(1, "Mary got the milk."),
                Sentence(2, "John went to the hallway."),
                Sentence(4, "Mary went to the garden."),
            ),
            (
                Question(3, "Where is John?", "hallway", (2,)),
                Question(5, "What is Mary carrying?", "milk,football", (4, 1)),
            ),
        ),
        Story(
            (Sentence(1, "Bill gave the apple to Fred."),), (Question(2, "Who gave the apple to Fred?", "Bill", (1,)),)
        ),
    ]


def test_a_question_knows_what_was_said_before_it(write):
    story = read_stories(write(TWO_STORIES))[0]
    assert [[sentence.id for sentence in story.before(question)] for question in story.questions] == [[1, 2], [1, 2, 4]]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("? \t", "?\t").replace("Fred?\t", "Fred? \t"),
    ],
    ids=["no last newline", "empty lines at the end", "CRLF", "byte order mark", "spaces before tabs"],
)
def test_what_makes_no_difference(write, change):
    assert read_stories(write(change(TWO_STORIES))) == read_stories(write(TWO_STORIES, "other.txt"))


@pytest.mark.parametrize(
    "content, line, says",
    [
        ("Mary got the milk.\n", 1, "begins with 'Mary', but must begin with a number"),
        ("1 Mary got the milk.\n\n2 Who? \tMary\t1\n", 2, "begins with '', but must begin with a number"),
        ("-1 Mary got the milk.\n", 1, "begins with '-1'"),
        ("٣ Mary got the milk.\n", 1, "must begin with a number"),
        ("2 Mary got the milk.\n", 1, "has number 2, but must have 1"),
        ("1 Mary left.\n2 John left.\n2 Bill left.\n", 3, "has number 2, but must have 3, or 1 for a new story"),
        ("1 Mary left.\n3 John left.\n", 2, "has number 3, but must have 2, or 1"),
        ("1 Mary left.\n2 Who left? \tMary\t1\n1 John left.\n0 Bill left.\n", 4, "has number 0, but must have 2"),
        ("1 Mary left.\n2 .\n", 2, "has a number, but no words"),
        ("1 Mary left.\n2 \n", 2, "has a number, but no words"),
        ("1 Mary left.\n2 Who left? Mary 1\n", 2, "is a question with 0 tabs"),
        ("1 Mary left.\n2 Who left? \tMary\n", 2, "is a question with 1 tabs"),
        ("1 Mary left.\n2 Who left? \tMary\t1\t1\n", 2, "is a question with 3 tabs"),
        ("1 Mary left.\n2 Who left? \t\t1\n", 2, "has no answer"),
        ("1 Mary left.\n2 ? \tMary\t1\n", 2, "has an answer, but no question"),
        ("1 Mary left.\n2 Who left? \tMary\t\n", 2, "names no sentence that supports the answer"),
        ("1 Mary left.\n2 Who left? \tMary\tone\n", 2, "names 'one' as its support"),
        ("1 Mary left.\n2 Who left? \tMary\t7\n", 2, "names 7 as its support, but that is no earlier line"),
        ("1 Mary left.\n2 Who left? \tMary\t3\n3 John left.\n", 2, "names 3 as its support, but that is no earlier"),
        ("1 Mary left.\n2 Who left? \tMary\t0\n", 2, "names 0 as its support, but that is no earlier line"),
        ("1 Mary left.\n2 Who left? \tMary\t2\n", 2, "names 2 as its support, but that is no earlier line"),
        ("1 Mary left.\n2 Who left? \tMary\t1\n3 Who? \tMary\t1 2\n", 3, "support, but that is a question"),
        ("1 Mary left.\n2 Who left? \tMary\t1\n1 Bill left.\n2 Who? \tMary\t2\n", 4, "names 2 as its support"),
        (b"1 Mary left.\n2 J\xf6hn left.\n", 2, "byte 0xf6 is not valid UTF-8"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(write, content, line, says):
    path = write(content)
    with pytest.raises(ValueError) as caught:
        read_stories(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}") and says in message
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize(
    "content, says", [("", "is empty"), (" \n\n", "is empty"), ("1 Mary left.\n2 John left.\n", "holds no question")]
)
def test_a_file_without_questions_is_refused(write, content, says):
    path = write(content)
    with pytest.raises(ValueError, match=f"{path} {says}"):
        read_stories(path)


def test_a_file_of_another_task_is_refused(write):
    path = write(TWO_STORIES, "qa5_three-arg-relations_train.txt")
    assert len(read_stories(path, 5)) == len(read_stories(path)) == 2
    with pytest.raises(ValueError, match=r"qa5_\S+ holds task 5 by its name, but should hold task 15"):
        read_stories(path, 15)
    assert len(read_stories(write(TWO_STORIES, "mine.txt"), 15)) == 2


def test_stories_before_a_bad_line_are_read_one_by_one(write):
    path = write(TWO_STORIES + "3 Mary\tleft\n")
    assert len(list(itertools.islice(iter_stories(path), 1))) == 1
    with pytest.raises(ValueError, match="line 8"):
        list(iter_stories(path))


@pytest.mark.parametrize("given", ["", "tasks_1-20_v1-2", "tasks_1-20_v1-2/en-10k"])
def test_a_file_is_found_from_each_folder_above_it(write, tmp_path, given):
    inner = "tasks_1-20_v1-2/en-10k"
    path = write(TWO_STORIES, f"{inner}/qa2_two-supporting-facts_test.txt")
    write(TWO_STORIES, "tasks_1-20_v1-2/en/qa3_three-supporting-facts_test.txt")
    assert find_file(tmp_path / given, 2, "10k", "test") == path
    with pytest.raises(ValueError, match=r"there is no qa3_three-supporting-facts_test\.txt in it, its en-10k or"):
        find_file(tmp_path / given, 3, "10k", "test")


def test_files_of_the_other_size_do_not_do(write, tmp_path):
    write(TWO_STORIES, f"en/{file_name(1, 'train')}")
    assert find_file(tmp_path / "en", 1, "1k", "train").is_file()
    with pytest.raises(ValueError, match=r"but there is no qa1_single-supporting-fact_train\.txt"):
        find_file(tmp_path / "en", 1, "10k", "train")


def test_there_are_no_other_tasks(tmp_path):
    with pytest.raises(ValueError, match="task is 21, but the tasks are numbered from 1 to 20"):
        find_file(tmp_path, 21, "1k", "train")


def test_the_vocabulary_has_each_word_once_answers_first():
    assert len(set(VOCABULARY)) == VOCAB_SIZE == 178
    assert len(ANSWERS) == 60 and NUM_ANSWERS == 62
    assert all(IDS[answer] < NUM_ANSWERS for answer in ANSWERS)
    assert [VOCABULARY[IDS[word]] for word in IDS] == list(IDS)
    assert min(IDS.values()) == UNKNOWN + 1


def test_words_are_lower_case_and_without_punctuation():
    assert " ".join(split_words("The T-shirt isn't in John's bag, is it?")) == "the t-shirt isn't in john's bag is it"
    assert answer_word("Milk, Football") == "milk,football"


def test_published_rows_agree_with_their_means_and_failed_tasks():
    assert len(NAMES) == NUM_TASKS == 20
    for rows in PUBLISHED.values():
        for name, row in rows.items():
            if row.errors:
                assert len(row.errors) == 20
                # Means were rounded to one digit from numbers rounded to one digit.
                assert sum(row.errors) / 20 == pytest.approx(row.mean, abs=0.051)
                # An error printed as 5.0 may be a little more.
                above = [sum(error > bound for error in row.errors) for bound in (5.0, 4.99)]
                assert above[0] <= row.failed <= above[1], name


def test_the_genuine_files_are_as_described(genuine_folder):
    """The facts that the parser and the vocabulary rely on, over all 79 files."""
    texts, answers, longest, asked = set(), set(), {}, {}
    unsorted_supports = 0
    for task, split, size in itertools.product(range(1, 21), ("train", "test"), ("1k", "10k")):
        if (size, task, split) == ("10k", 3, "train"):
            continue
        path = find_file(genuine_folder, task, size, split)
        own = asked[size, task, split] = []
        for story in iter_stories(path, task):
            texts.update(sentence.text for sentence in story.sentences)
            own += [(question.text, question.answer) for question in story.questions]
            unsorted_supports += sum(each.supports != tuple(sorted(each.supports)) for each in story.questions)
            before = len(story.before(story.questions[-1]))
            longest[task] = max(longest.get(task, 0), before)
        assert len(own) == (10_000 if (size, split) == ("10k", "train") else 1_000), path
        texts.update(text for text, _ in own)
        answers.update(answer_word(answer) for _, answer in own)
        if size == "10k":
            # Both sizes have the same test questions, and the smaller the first of the larger's training questions.
            assert own[:1_000] == asked["1k", task, split]
    words = {word for text in texts for word in split_words(text)}
    assert longest[3] == 228 and max(length for task, length in longest.items() if task != 3) == 126
    assert unsorted_supports > 0
    assert len(words) == 145 and answers == set(ANSWERS)
    assert words | answers == set(IDS)
    assert len(words | {part for answer in answers for part in answer.split(",")}) == 156
