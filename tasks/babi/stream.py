"""The training questions, epoch after epoch, each story told anew where that is wanted."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from ..epochs import Numbered, Shuffled
from .encode import Encoded, StoryBatch
from .exchange import Exchange
from .names import NUM_TASKS
from .reorder import Reorder


def repeated(
    encoded: Encoded, items: Int64[np.ndarray, " item"], repeats: Mapping[int, int]
) -> tuple[Int64[np.ndarray, " place"], Int64[np.ndarray, " place"]]:
    """The questions of an epoch, each as often as it comes, and which time it is.

    Args:
        encoded: all questions.
        items: those for training.
        repeats: how often each question of a task comes in an epoch, once where the task is not named.
    """
    times = np.array([repeats.get(task, 1) for task in range(NUM_TASKS + 1)])[encoded.tasks[items]]
    # All questions, then once more those that come at least twice, and so on.
    rounds = [items[times > copy] for copy in range(int(times.max()))]
    return np.concatenate(rounds), np.repeat(np.arange(len(rounds)), [len(each) for each in rounds])


class TrainingStream:
    """Questions in an order of each epoch, those of some tasks several times.

    The number of a question in the stream is ``epoch * size + place``. A question that comes several times in an epoch
    belongs to as many stories, and each of them is a telling of its own.

    Args:
        encoded: all questions.
        items: those for training.
        repeats: see ``repeated``.
        key: the stream of random numbers.
        num_sentences: how many sentences of a story are kept.
        exchange: whether stories are told in other words.
        reorder: whether facts are told in another order.

    Attributes:
        size: how many questions an epoch has.
    """

    def __init__(
        self,
        encoded: Encoded,
        items: np.ndarray,
        repeats: Mapping[int, int],
        key: np.ndarray,
        num_sentences: int,
        exchange: bool = False,
        reorder: bool = False,
    ) -> None:
        self._items, self._copies = repeated(encoded, items, repeats)
        self._most = int(self._copies.max()) + 1
        self._encoded, self._key, self._num_sentences = encoded, key, num_sentences
        kept = 2 * self._most  # a batch may begin in one epoch and end in the next
        self._tell = [make(encoded, key, kept) for make, wanted in ((Exchange, exchange), (Reorder, reorder)) if wanted]

    @property
    def size(self) -> int:
        """How many questions an epoch has."""
        return len(self._items)

    def order(self, batch_size: int, by_story: bool) -> Numbered:
        """Which questions each batch holds.

        Args:
            batch_size: questions in a batch.
            by_story: whether those of a story follow one another.
        """
        story = self._encoded.starts[self._items].astype(np.int64) * self._most + self._copies
        return Numbered(Shuffled(self.size, batch_size, self._key, story if by_story else None))

    def batch(self, numbers: np.ndarray) -> StoryBatch:
        """Some questions of the stream.

        Args:
            numbers: theirs.
        """
        epochs, places = np.divmod(numbers, self.size)
        items, tellings = self._items[places], epochs * self._most + self._copies[places]
        batch = self._encoded.batch(items, self._num_sentences)
        for tell in self._tell:
            batch = tell(batch, items, tellings)
        return batch
