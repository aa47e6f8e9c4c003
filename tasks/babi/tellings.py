"""Random numbers for stories that are told anew."""

import numpy as np
from jaxtyping import Float, Int64

from ..epochs import random_words
from ..sampling import uniform_of


class Tellings:
    """So many random numbers of each telling, in [0, 1): those of a telling are the same whenever it is asked for.

    Args:
        key: the stream.
        field: what they are for; see ``tasks.epochs.random_words``.
        size: how many.
        kept: of how many tellings they are kept, the last ones.
    """

    def __init__(self, key: np.ndarray, field: int, size: int, kept: int) -> None:
        self._key, self._field, self._size = key, field, size
        self._kept = kept
        self._drawn: dict[int, np.ndarray] = {}

    def __call__(
        self, tellings: Int64[np.ndarray, " item"], places: Int64[np.ndarray, "item number"]
    ) -> Float[np.ndarray, "item number"]:
        """Some of the numbers of each item's telling.

        Args:
            tellings: which telling.
            places: which of its numbers, from 0.
        """
        found = np.empty(places.shape)
        for telling in np.unique(tellings).tolist():
            told = tellings == telling
            found[told] = self._all(telling)[places[told]]
        return found

    def _all(self, telling: int) -> np.ndarray:
        """The numbers of a telling.

        Args:
            telling: which one, 0 or larger.
        """
        if telling not in self._drawn:
            while len(self._drawn) >= self._kept:
                self._drawn.pop(min(self._drawn))
            self._drawn[telling] = uniform_of(random_words(self._key, telling, self._field, self._size))
        return self._drawn[telling]
