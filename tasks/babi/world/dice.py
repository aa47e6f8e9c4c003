"""The random choices of one story."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from ...sampling import uniform_of

T = TypeVar("T")

# A NumPy call costs as much for one number as for a hundred. Few stories need more than this many.
_NUMBERS_AT_ONCE = 128


class Dice:
    """Draws that are a function of (task, seed, index) only, whatever was drawn for other stories.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") makes its numbers from a key and a
    counter. Task and seed are the key, the index is the counter's top word, which counting never reaches.

    Args:
        task: which of the 20.
        seed: from 0 to 2**64 - 1.
        index: from 0 to 2**64 - 1.
    """

    def __init__(self, task: int, seed: int, index: int) -> None:
        key = np.array([seed, task], dtype=np.uint64)
        counter = np.array([0, 0, 0, index], dtype=np.uint64)
        self._bits = np.random.Philox(key=key, counter=counter)
        self._numbers: Iterator[float] = iter(())

    def number(self) -> float:
        """Uniform in [0, 1)."""
        number = next(self._numbers, None)
        if number is None:
            words = self._bits.random_raw(_NUMBERS_AT_ONCE)
            self._numbers = iter(uniform_of(words).tolist())
            number = next(self._numbers)
        return number

    def chance(self, probability: float) -> bool:
        """True with a probability.

        Args:
            probability: from 0 to 1.
        """
        return self.number() < probability

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, each equally likely.

        Args:
            choices: at least one.
        """
        return choices[int(self.number() * len(choices))]

    def sample(self, choices: Sequence[T], count: int) -> list[T]:
        """Different ones of the choices, in random order.

        Args:
            choices: what to choose from.
            count: how many, at most as many as there are.
        """
        rest = list(choices)
        return [rest.pop(int(self.number() * len(rest))) for _ in range(count)]

    def derange(self, items: Sequence[T]) -> list[T]:
        """The items in an order that is one big cycle, each such cycle equally likely (Sattolo 1986): none stays put.

        Args:
            items: what to reorder; a single one cannot but stay.
        """
        order = list(items)
        for last in range(len(order) - 1, 0, -1):
            other = int(self.number() * last)
            order[last], order[other] = order[other], order[last]
        return order
