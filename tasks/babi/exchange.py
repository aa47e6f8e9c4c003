"""Stories told anew of other people, places and things, of which all that was said stays true.

In a bAbI story nothing is known of Mary but what is told of her: with Mary and Sandra exchanged in every sentence, the
question and the answer, it is as good a story. A model that has seen a story told so in every epoch cannot learn it by
heart.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64
from torch import Tensor, from_numpy

from .encode import Encoded, StoryBatch
from .tellings import Tellings
from .vocabulary import IDS, VOCAB_SIZE, VOCABULARY

EXCHANGE = 1
"""The field of a telling's random numbers that these are; the first one puts stories in order."""

Kind = tuple[tuple[str, ...], ...]
"""Things that may take one another's place, each with all the words that are about it.

Two words that follow one another are one thing as ``red+square``: neither is exchanged alone."""


def _kind(things: str) -> Kind:
    return tuple(tuple(thing.split("/")) for thing in things.split())


_MEN, _WOMEN = _kind("daniel john"), _kind("mary sandra")  # apart, for he and she in task 11
_PLACES, _THINGS = _kind("bathroom bedroom garden hallway kitchen office"), _kind("apple football milk")
_TOWNSPEOPLE, _TOWN = _kind("bill fred julie mary"), _kind("bedroom cinema kitchen office park school")
# A map turned over or round is a map. Single letters are steps of an answer such as n,w.
_COMPASS = (_kind("north/n south/s"), _kind("east/e west/w"), _kind("north/south/n/s east/west/e/w"))

KINDS: tuple[tuple[Kind, ...], ...] = (
    (_MEN, _WOMEN, _PLACES),
    (_MEN, _WOMEN, _PLACES, _THINGS),
    (_MEN, _WOMEN, _PLACES, _THINGS),
    (_PLACES, *_COMPASS),
    (_kind("bill fred jeff mary"), _PLACES, _THINGS),
    (_MEN, _WOMEN, _PLACES, _THINGS),
    (_MEN, _WOMEN, _PLACES, _THINGS),
    (_MEN, _WOMEN, _PLACES, _THINGS),
    (_MEN, _WOMEN, _PLACES),
    (_TOWNSPEOPLE, _TOWN),
    (_MEN, _WOMEN, _PLACES),
    (_MEN, _WOMEN, _PLACES),
    (_MEN, _WOMEN, _PLACES),
    (_TOWNSPEOPLE, _TOWN),
    # Not sheep, of which one word stands for one and for many.
    (_kind("emily gertrude jessica winona"), _kind("cat/cats mouse/mice wolf/wolves")),
    (_kind("bernhard brian greg julius lily"), _kind("frog lion rhino swan"), _kind("gray green white yellow")),
    # Not the triangle, which has no colour.
    (
        _kind("blue+square pink+rectangle red+sphere red+square yellow+square"),
        _kind("left right"),
        _kind("above below"),
    ),
    (_kind("box chest container suitcase"),),
    (_PLACES, *_COMPASS),
    (_kind("antoine jason sumit yann"),),  # places and things belong to a motive
)
"""Of task 1, 2, ... 20, what can be exchanged."""

STAYING = {18: ("box+of",)}
"""Of some tasks, pairs of words that stay what they are: a box of chocolates has a size of its own."""


def _pairs(task: int) -> list[str]:
    """What a task has of two words."""
    exchanged = [thing for kind in KINDS[task - 1] for things in kind for thing in things if "+" in thing]
    return [*exchanged, *STAYING.get(task, ())]


# Beside the vocabulary's numbers: those of each word of a pair, and those of single letters, which occur in lists only.
_OF_PAIRS = {
    pair: (VOCAB_SIZE + 2 * place, VOCAB_SIZE + 2 * place + 1)
    for place, pair in enumerate(pair for task in range(1, len(KINDS) + 1) for pair in _pairs(task))
}
_MARKED = VOCAB_SIZE + 2 * len(_OF_PAIRS)
_LETTERS = dict(zip("nesw", range(_MARKED, _MARKED + 4), strict=True))
_NUMBERS = IDS | _LETTERS
_SIZE = _MARKED + len(_LETTERS)
_LISTS = np.array([number for number, word in enumerate(VOCABULARY) if "," in word])
_LONGEST = 3
_PLAIN = np.arange(_SIZE)  # the word that a number stands for
for _pair, _numbers in _OF_PAIRS.items():
    _PLAIN[list(_numbers)] = [IDS[word] for word in _pair.split("+")]


def _parts(words: Iterable[str]) -> Int64[np.ndarray, "list part"]:
    rows = [[_NUMBERS[part] for part in word.split(",")] for word in words]
    return np.array([row + [0] * (_LONGEST - len(row)) for row in rows])


def _key(parts: Int64[np.ndarray, "*list part"]) -> Int64[np.ndarray, "*list"]:
    return parts @ _SIZE ** np.arange(_LONGEST)


def _numbers_of(thing: tuple[str, ...]) -> list[int]:
    return [number for word in thing for number in (_OF_PAIRS[word] if "+" in word else (_NUMBERS[word],))]


_PARTS = _parts(VOCABULARY[number] for number in _LISTS)
_BY_KEY = np.argsort(_key(_PARTS))
_KEYS = _key(_PARTS)[_BY_KEY]
_WITH_PAIRS = {task for task in range(1, len(KINDS) + 1) if _pairs(task)}
# Of each task, each kind's words as numbers, (thing, word).
_KINDS = [[np.array([_numbers_of(thing) for thing in kind]) for kind in kinds] for kinds in KINDS]


def marked(task: int, words: Int64[np.ndarray, "*batch word"]) -> Int64[np.ndarray, "*batch word"]:
    """The words of sentences, those that belong together with numbers of their own (see ``exchanged``).

    Args:
        task: from 1 to 20.
        words: numbers of the vocabulary.
    """
    words = words.copy()
    for pair in _pairs(task):
        first, second = (IDS[word] for word in pair.split("+"))
        both = (words[..., :-1] == first) & (words[..., 1:] == second)
        words[..., :-1][both], words[..., 1:][both] = _OF_PAIRS[pair]
    return words


def exchanged(task: int, uniform: np.ndarray) -> Int64[np.ndarray, "telling word"]:
    """For each of some tellings, the number that each word of the vocabulary gets, and after them each that is marked.

    Args:
        task: from 1 to 20.
        uniform: random numbers, ``(telling, num_draws(task))``; every order of each kind is as likely.
    """
    table = np.tile(np.arange(_SIZE), (len(uniform), 1))
    begin = 0
    for words in _KINDS[task - 1]:
        order = np.argsort(uniform[:, begin : begin + len(words)], axis=1, kind="stable")
        begin += len(words)
        own = np.tile(np.arange(_SIZE), (len(uniform), 1))
        own[:, words.reshape(-1)] = words[order].reshape(len(uniform), -1)
        table = np.take_along_axis(own, table, 1)
    table[:, _LISTS] = _LISTS[_BY_KEY[np.searchsorted(_KEYS, _key(table[:, _PARTS]))]]
    return _PLAIN[table[:, :_MARKED]]


def num_draws(task: int) -> int:
    """How many random numbers a telling takes.

    Args:
        task: from 1 to 20.
    """
    return sum(map(len, KINDS[task - 1]))


class Exchange:
    """Tells each story in other words each time, all its questions in the same ones.

    Args:
        encoded: the set, of one or several tasks.
        key: the stream of random numbers.
        kept: see ``Tellings``.
    """

    def __init__(self, encoded: Encoded, key: np.ndarray, kept: int = 2) -> None:
        stories, self._story_of = np.unique(encoded.starts, return_inverse=True)
        self._width = max(map(num_draws, set(encoded.tasks.tolist())))
        self._draws = Tellings(key, EXCHANGE, len(stories) * self._width, kept)

    def __call__(
        self, batch: StoryBatch, items: Int64[np.ndarray, " item"], tellings: Int64[np.ndarray, " item"]
    ) -> StoryBatch:
        """The questions in other words.

        Args:
            batch: the questions.
            items: their numbers in the set.
            tellings: which telling each of them gets.
        """
        tasks, table = batch.task.numpy(), np.tile(np.arange(_MARKED), (len(items), 1))
        uniform = self._draws(tellings, self._places(items))
        for task in np.unique(tasks).tolist():
            table[tasks == task] = exchanged(task, uniform[tasks == task, : num_draws(task)])

        def renamed(words: Tensor) -> Tensor:
            numbers = words.numpy()
            for task in _WITH_PAIRS.intersection(tasks.tolist()):
                numbers = np.where(
                    (tasks == task).reshape(-1, *[1] * (words.dim() - 1)), marked(task, numbers), numbers
                )
            flat = numbers.reshape(len(items), -1)
            return from_numpy(np.take_along_axis(table, flat, 1)).view(words.shape)

        answer = from_numpy(table[np.arange(len(items)), batch.answer.numpy()])
        return batch._replace(story=renamed(batch.story), question=renamed(batch.question), answer=answer)

    def _places(self, items: Int64[np.ndarray, " item"]) -> Int64[np.ndarray, "item number"]:
        """Of the numbers of a telling, those of each item's story."""
        return self._story_of[items][:, None] * self._width + np.arange(self._width)
