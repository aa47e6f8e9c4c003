"""Stories as numbers: a whole set at once, and the batches taken from it.

A set keeps every distinct sentence once, a story as the rows of its sentences, and a question as the part of that row
that was said before it. So nothing is encoded twice, and a set of 200,000 questions takes some 10 MB.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int8, Int16, Int32, Int64
from torch import Tensor

from .story import Story
from .vocabulary import IDS, NULL, UNKNOWN, answer_word, split_words

NO_SUPPORT = -1


class StoryBatch(NamedTuple):
    """Questions with the sentences said before them, padded with ``NULL`` (0) after the last word and sentence.

    Attributes:
        story: the sentences' words, the oldest sentence first.
        question: the question's words.
        answer: the answer's number in the vocabulary; ``NULL`` where it is not known.
        supports: True at the sentences that the answer follows from, as far as they are among those kept.
        task: from 1 to 20; 0 where it is not known.
    """

    story: Int64[Tensor, "batch sentence word"]
    question: Int64[Tensor, "batch word"]
    answer: Int64[Tensor, " batch"]
    supports: Bool[Tensor, "batch sentence"]
    task: Int64[Tensor, " batch"]


class Encoded(NamedTuple):
    """A set of questions as arrays.

    Attributes:
        words: the words of each distinct sentence, padded with ``NULL``; the first row is all padding.
        sentences: the rows of ``words`` of one story after the other.
        starts: where in ``sentences`` each question's story begins.
        stops: where the question is asked: its context is ``sentences[start:stop]``.
        questions: the words of each question, padded with ``NULL``.
        answers: numbers of the vocabulary; ``NULL`` where none is known.
        supports: where in ``sentences`` the supports stand, padded with ``NO_SUPPORT``.
        tasks: each question's task.
        unknown: the words that the vocabulary lacks, each once.
    """

    words: Int16[np.ndarray, "row word"]
    sentences: Int32[np.ndarray, " place"]
    starts: Int32[np.ndarray, " question"]
    stops: Int32[np.ndarray, " question"]
    questions: Int16[np.ndarray, "question word"]
    answers: Int16[np.ndarray, " question"]
    supports: Int32[np.ndarray, "question support"]
    tasks: Int8[np.ndarray, " question"]
    unknown: np.ndarray

    @property
    def num_questions(self) -> int:
        """How many questions there are."""
        return len(self.answers)

    def count_longer(self, num_sentences: int) -> int:
        """How many questions have more sentences before them than that.

        Args:
            num_sentences: as for ``batch``.
        """
        return int((self.stops - self.starts > num_sentences).sum())

    def count_unknown(self) -> int:
        """How many words of sentences, questions and answers are read as ``UNKNOWN``."""
        in_rows = (self.words == UNKNOWN).sum(1)
        return int(in_rows[self.sentences].sum() + (self.questions == UNKNOWN).sum() + (self.answers == UNKNOWN).sum())

    def batch(self, items: Int64[np.ndarray, " item"], num_sentences: int) -> StoryBatch:
        """Some questions with the last sentences before each, padded to the longest story among them.

        Args:
            items: the questions' numbers.
            num_sentences: how many sentences at most; older ones are left out.
        """
        stops = self.stops[items]
        counts = np.minimum(stops - self.starts[items], num_sentences)
        longest = max(int(counts.max(initial=0)), 1)
        offsets = np.arange(longest)
        places = (stops - counts)[:, None] + offsets
        real = offsets < counts[:, None]
        rows = np.where(real, self.sentences.take(places, mode="clip"), 0)
        supports = np.zeros_like(real)
        among = self.supports[items] - (stops - counts)[:, None]
        question, column = np.nonzero((among >= 0) & (among < counts[:, None]))
        supports[question, among[question, column]] = True
        return StoryBatch(
            # Widened before they are taken: there are fewer distinct sentences than sentences.
            torch.from_numpy(self.words.astype(np.int64).take(rows, axis=0)),
            torch.from_numpy(self.questions[items].astype(np.int64)),
            torch.from_numpy(self.answers[items].astype(np.int64)),
            torch.from_numpy(supports),
            torch.from_numpy(self.tasks[items].astype(np.int64)),
        )


def encode_stories(stories: Iterable[Story], task: int) -> Encoded:
    """All questions of some stories, in order.

    Args:
        stories: the stories; support ids must be their sentences'. An empty answer is ``NULL``.
        task: which task's they are.
    """
    sentence_rows: dict[str, int] = {}
    question_rows: dict[str, int] = {}
    sentences: list[int] = []
    asked: list[tuple[int, int, int, str]] = []
    supports: list[list[int]] = []
    for story in stories:
        start = len(sentences)
        sentences += [sentence_rows.setdefault(sentence.text, len(sentence_rows) + 1) for sentence in story.sentences]
        ids = [sentence.id for sentence in story.sentences]
        place_of = dict(zip(ids, range(start, len(sentences)), strict=True))
        for question in story.questions:
            row = question_rows.setdefault(question.text, len(question_rows))
            asked.append((start, start + bisect_left(ids, question.id), row, question.answer))
            supports.append([place_of[support] for support in question.supports])
    starts, stops, rows, answers = zip(*asked, strict=True) if asked else ((), (), (), ())
    unknown: dict[str, None] = {}
    answer_ids = {text: _number(answer_word(text), unknown) if text else NULL for text in dict.fromkeys(answers)}
    words = _pad([[], *(_numbers(text, unknown) for text in sentence_rows)], NULL, np.int16)
    question_words = _pad([_numbers(text, unknown) for text in question_rows], NULL, np.int16)
    return Encoded(
        words,
        np.array(sentences, np.int32),
        np.array(starts, np.int32),
        np.array(stops, np.int32),
        question_words[np.array(rows, np.int64)],
        np.array([answer_ids[text] for text in answers], np.int16),
        _pad(supports, NO_SUPPORT, np.int32),
        np.full(len(asked), task, np.int8),
        np.array(list(unknown), np.str_),
    )


def join(parts: Sequence[Encoded]) -> Encoded:
    """Several sets as one, their questions one set after the other.

    Args:
        parts: at least one.
    """
    if len(parts) == 1:
        return parts[0]
    rows = np.cumsum([0, *(len(part.words) for part in parts)])
    places = np.cumsum([0, *(len(part.sentences) for part in parts)])
    return Encoded(
        _stack([part.words for part in parts], NULL),
        np.concatenate([part.sentences + np.int32(row) for part, row in zip(parts, rows, strict=False)]),
        np.concatenate([part.starts + np.int32(place) for part, place in zip(parts, places, strict=False)]),
        np.concatenate([part.stops + np.int32(place) for part, place in zip(parts, places, strict=False)]),
        _stack([part.questions for part in parts], NULL),
        np.concatenate([part.answers for part in parts]),
        _stack(
            [
                np.where(part.supports == NO_SUPPORT, NO_SUPPORT, part.supports + np.int32(place))
                for part, place in zip(parts, places, strict=False)
            ],
            NO_SUPPORT,
        ),
        np.concatenate([part.tasks for part in parts]),
        np.array(list(dict.fromkeys(word for part in parts for word in part.unknown.tolist())), np.str_),
    )


def _number(word: str, unknown: dict[str, None]) -> int:
    number = IDS.get(word, UNKNOWN)
    if number == UNKNOWN:
        unknown[word] = None
    return number


def _numbers(text: str, unknown: dict[str, None]) -> list[int]:
    return [_number(word, unknown) for word in split_words(text)]


def _pad(rows: Sequence[Sequence[int]], filler: int, dtype: type[np.signedinteger]) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows), default=0)), filler, dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return padded


def _stack(arrays: Sequence[np.ndarray], filler: int) -> np.ndarray:
    width = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=filler) for array in arrays]
    )
