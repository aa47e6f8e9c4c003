"""Stories told anew in another order, where all that is told holds at once.

That Gray is a frog and that frogs are afraid of wolves can be said in either order, and so can where one room lies from
another, or what fits into what. A model that has heard the facts in another order in every epoch cannot learn the
story by heart, nor where in it to look.
"""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int64

from .encode import Encoded, StoryBatch
from .tellings import Tellings

REORDER = 2
"""The field of a telling's random numbers that these are."""

TIMELESS = (4, 15, 17, 18, 19)
"""The tasks. Not 16, where what was said last of a kind holds, nor 20, where few sentences come before a question."""


class Reorder:
    """Tells the facts of a story in another order each time, all its questions in the same one.

    Args:
        encoded: the set, of one or several tasks.
        key: the stream of random numbers.
        kept: see ``Tellings``.
    """

    def __init__(self, encoded: Encoded, key: np.ndarray, kept: int = 2) -> None:
        self._starts, self._stops = encoded.starts, encoded.stops
        self._draws = Tellings(key, REORDER, len(encoded.sentences), kept)

    def __call__(
        self, batch: StoryBatch, items: Int64[np.ndarray, " item"], tellings: Int64[np.ndarray, " item"]
    ) -> StoryBatch:
        """The questions after the same facts in another order; those of other tasks as they are.

        Args:
            batch: the questions.
            items: their numbers in the set.
            tellings: which telling each of them gets.
        """
        longest = batch.supports.shape[1]
        offsets = np.arange(longest)
        stops, counts = self._stops[items], np.minimum((self._stops - self._starts)[items], longest)
        timeless = np.isin(batch.task.numpy(), TIMELESS)[:, None] & (offsets < counts[:, None])
        places = np.where(timeless, (stops - counts)[:, None] + offsets, 0)
        # What stays where it is comes after what does not: the padding of a story, or the whole story.
        ranks = np.where(timeless, self._draws(tellings, places), 1.0 + offsets)
        order = torch.from_numpy(np.argsort(ranks, axis=1, kind="stable"))
        story = batch.story.take_along_dim(rearrange(order, "item sentence -> item sentence 1"), 1)
        return batch._replace(story=story, supports=batch.supports.take_along_dim(order, 1))
