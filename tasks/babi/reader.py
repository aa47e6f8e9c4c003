"""Reading the genuine files of the bAbI tasks, and finding them."""

import re
from collections.abc import Iterator
from pathlib import Path

from .names import check_task, file_name
from .story import Question, Sentence, Story

ARCHIVE_FOLDER = "tasks_1-20_v1-2"
"""The folder that the official archive unpacks to."""

SIZE_FOLDERS = {"1k": "en", "10k": "en-10k"}
"""Where the archive has the English files, by the number of training questions."""

_FILE_NAME = re.compile(r"qa(\d+)_")
_WORD = re.compile(r"\w")


def find_file(folder: str | Path, task: int, size: str, split: str) -> Path:
    """A task's file in a folder that holds the archive's content.

    Args:
        folder: the one that holds ``tasks_1-20_v1-2``, or that one, or its ``en`` or ``en-10k``.
        task: from 1 to 20.
        size: ``1k`` or ``10k`` training questions.
        split: ``train`` or ``test``.

    Raises:
        ValueError: the file is in none of these places.
    """
    inner = SIZE_FOLDERS[size]
    name = file_name(check_task("task", task), split)
    given = Path(folder)
    places = [given / ARCHIVE_FOLDER / inner, given / inner]
    # Both sizes have files of the same names, so the wrong one must not do.
    if given.resolve().name not in set(SIZE_FOLDERS.values()) - {inner}:
        places.append(given)
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ValueError(
        f"folder is {folder}, but there is no {name} in it, its {inner} or its {ARCHIVE_FOLDER}/{inner}; "
        "unpack the bAbI archive there, or say download."
    )


def read_stories(path: str | Path, task: int | None = None) -> list[Story]:
    """The stories of a file. See ``iter_stories``, which takes the same arguments and raises the same errors."""
    return list(iter_stories(path, task))


def iter_stories(path: str | Path, task: int | None = None) -> Iterator[Story]:
    """The stories of a file, one by one: a million small objects at once keep the garbage collector busy for seconds.

    A line is ``ID text``, or ``ID question<TAB>answer<TAB>support ids``; ids count up from 1 and begin anew with each
    story.

    Args:
        path: a text file in UTF-8.
        task: which task's it should be, from 1 to 20; any if None.

    Raises:
        ValueError: the file is another task's by its name, it is empty or holds no question, or a line is not valid
            UTF-8, has no number, has a number that neither counts on nor is 1, says nothing, is a question without
            answer or support, or names a support that is not one of its story's sentences so far. The message names
            file and line.
        OSError: the file cannot be read.
    """
    path = Path(path)
    by_name = _FILE_NAME.match(path.name)
    if task is not None and by_name and int(by_name[1]) != check_task("task", task):
        raise ValueError(f"{path} holds task {by_name[1]} by its name, but should hold task {task}.")
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path} is empty.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: byte {data[error.start]:#04x} is not valid UTF-8.") from error
    num_questions = 0
    for story in _stories(text.rstrip("\n").split("\n"), path):
        num_questions += len(story.questions)
        yield story
    if not num_questions:
        raise ValueError(f"{path} holds no question.")


def _stories(lines: list[str], path: Path) -> Iterator[Story]:
    sentences: list[Sentence] = []
    questions: list[Question] = []
    spoken: set[int] = set()
    previous = 0
    for line_number, line in enumerate(lines, 1):
        number, _, rest = line.partition(" ")
        try:
            # Unlike int alone, refuses "-1", "+1", "1_0" and digits of other scripts.
            if not (number.isascii() and number.isdigit()):
                raise ValueError(f"begins with {number[:20]!r}, but must begin with a number and a space")
            own = int(number)
            if own == 1 and previous:
                yield Story(tuple(sentences), tuple(questions))
                sentences, questions, spoken = [], [], set()
            elif own != previous + 1:
                wanted = f"{previous + 1}, or 1 for a new story" if previous else "1"
                raise ValueError(f"has number {own}, but must have {wanted}")
            previous = own
            if "\t" in rest or "?" in rest:
                questions.append(_question(own, rest, spoken))
            elif _WORD.search(rest):
                sentences.append(Sentence(own, rest.strip()))
                spoken.add(own)
            else:
                raise ValueError("has a number, but no words")
        except ValueError as error:
            raise ValueError(f"{path}, line {line_number} {error}.") from None
    yield Story(tuple(sentences), tuple(questions))


def _question(number: int, rest: str, spoken: set[int]) -> Question:
    fields = rest.split("\t")
    if len(fields) != 3:
        raise ValueError(f"is a question with {len(fields) - 1} tabs, but must be question<TAB>answer<TAB>support ids")
    text, answer, names = (field.strip() for field in fields)
    if not _WORD.search(text):
        raise ValueError("has an answer, but no question")
    if not answer:
        raise ValueError("has no answer between its tabs")
    supports = []
    for name in names.split():
        if not (name.isascii() and name.isdigit()):
            raise ValueError(f"names {name[:20]!r} as its support, but must name lines by their numbers")
        support = int(name)
        if support not in spoken:
            why = "is a question" if 0 < support < number else "is no earlier line of the story"
            raise ValueError(f"names {support} as its support, but that {why}")
        supports.append(support)
    if not supports:
        raise ValueError("names no sentence that supports the answer")
    return Question(number, text, answer, tuple(supports))
