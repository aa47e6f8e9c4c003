"""Training examples that grow longer as a network learns; who decides when is ``memnet.training.Curriculum``."""

import abc
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .base import SequenceBatch
from .sampling import TRAIN, BatchStream, Sampler, stream_key
from .streams import StreamTask


class Growth:
    """How long training examples may be, by the number of the batch: what a resumed run must know.

    Attributes:
        longest: number of the first batch to the longest examples from there on, ascending.

    Args:
        start: the longest examples of the first batch.
    """

    def __init__(self, start: int) -> None:
        self.longest = {0: start}

    def at(self, batch: int) -> int:
        """The longest examples of a batch.

        Args:
            batch: its number in the stream.
        """
        return max((first, longest) for first, longest in self.longest.items() if first <= batch)[1]


class GrowingStream:
    """An endless training stream whose examples grow. Each batch is drawn when it is asked for.

    Args:
        up_to: gives the sampler of examples up to some length.
        growth: says which length; it may get later entries while the stream is read.
        key: the stream, from ``stream_key``.
        batch_size: samples in a batch over all processes.
        first_batch: the batch to start at.
        rank: which process this is.
        num_ranks: number of processes.
    """

    def __init__(
        self,
        up_to: Callable[[int], Sampler],
        growth: Growth,
        key: np.ndarray,
        batch_size: int,
        first_batch: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._up_to = up_to
        self._growth = growth
        self._key = key
        self._batch_size = batch_size
        self._first_batch = first_batch
        self._ranks = rank, num_ranks

    def __len__(self) -> int:
        """There is none."""
        raise TypeError("an endless stream of batches has no length")

    def __iter__(self) -> Iterator[SequenceBatch]:
        """Draws the batches one by one."""
        for batch in itertools.count(self._first_batch):
            sample, end = self._up_to(self._growth.at(batch)), (batch + 1) * self._batch_size
            yield from BatchStream(sample, self._key, self._batch_size, end, batch, *self._ranks)


class GrowingTask(StreamTask):
    """A task on random sequences whose examples can be limited in length, or in whatever makes them long.

    Attributes:
        growth: how long training examples may be; None for all that the task has from the beginning.
    """

    growth: Growth | None = None

    @abc.abstractmethod
    def up_to(self, longest: int) -> Sampler:
        """Samples like those of ``sample``, but limited.

        Args:
            longest: the limit; what it counts is the task's to say, such as vectors, items or edges.
        """

    def train_dataloader(self) -> BatchStream | GrowingStream:  # type: ignore[override]
        """The endless training stream, from batch ``batches_consumed`` on."""
        if self.growth is None:
            return super().train_dataloader()
        key, first = stream_key(TRAIN, self.seed), self.batches_consumed
        return GrowingStream(self.up_to, self.growth, key, self.batch_size, first, *self.ranks())
