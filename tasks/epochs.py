"""Training over a finite set: which of its items each batch of an endless stream holds.

An epoch goes through the set once, in an order that is a function of (seed, epoch). So the items of a batch are a
function of (seed, number of the batch), whatever the number of processes and wherever a run was resumed.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np

from memnet.checks import check_positive

BatchT_co = TypeVar("BatchT_co", covariant=True)

ORDER = 3
"""The split of a stream key whose numbers put items in order, beside those of ``tasks.sampling`` that make items."""


class Schedule(Protocol):
    """Says which items a batch holds."""

    def items(self, batch: int) -> np.ndarray:
        """The items of a batch, over all processes.

        Args:
            batch: its number, 0 or larger.
        """

    def check_ranks(self, num_ranks: int) -> None:
        """Refuses batches that cannot be shared.

        Args:
            num_ranks: number of processes.

        Raises:
            ValueError: there are batches of which not every process would get a fair part.
        """


def random_words(key: np.ndarray, epoch: int, field: int, size: int) -> np.ndarray:
    """The random numbers of an epoch, ``(size,)`` of uint64.

    Args:
        key: the stream, ``tasks.sampling.stream_key(ORDER, seed)``.
        epoch: which epoch.
        field: what they are for, if an epoch needs several.
        size: how many.
    """
    # The generator's own permutation may change with NumPy's version; its words never do.
    counter = np.array([0, 0, epoch, field], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(size)


class Shuffled:
    """Batches of so many items: position k of the endless stream is item ``order(k // n)[k % n]``.

    No item is left out: a batch at the end of an epoch goes on with the next epoch's first items.

    Args:
        num_items: n, the size of the set.
        batch_size: items in a batch over all processes: batch b holds positions [b * batch_size, (b + 1) * batch_size).
        key: the stream, ``tasks.sampling.stream_key(ORDER, seed)``.
        groups: which group each item belongs to, if those of a group are to follow one another in their own order. A
            group may begin in one batch and end in the next.
    """

    def __init__(self, num_items: int, batch_size: int, key: np.ndarray, groups: np.ndarray | None = None) -> None:
        self._num_items = check_positive("num_items", num_items)
        self._groups = None if groups is None else np.unique(groups, return_inverse=True)[1]
        self._num_groups = 0 if self._groups is None else int(self._groups.max()) + 1
        self._batch_size = check_positive("batch_size", batch_size)
        self._key = key
        self._orders: dict[int, np.ndarray] = {}

    def order(self, epoch: int) -> np.ndarray:
        """The set's items in the order of an epoch.

        Args:
            epoch: which epoch.
        """
        if epoch not in self._orders:
            while len(self._orders) > 1:
                self._orders.pop(min(self._orders))
            ranks = random_words(self._key, epoch, 0, self._num_items if self._groups is None else self._num_groups)
            if self._groups is not None:
                ranks = ranks[self._groups]
            self._orders[epoch] = np.argsort(ranks, kind="stable")
        return self._orders[epoch]

    def items(self, batch: int) -> np.ndarray:
        return self.numbered(batch) % self._num_items

    def numbered(self, batch: int) -> np.ndarray:
        """The items of a batch, with epoch * n added to each.

        Args:
            batch: its number, 0 or larger.
        """
        positions = np.arange(batch * self._batch_size, (batch + 1) * self._batch_size)
        epochs, places = np.divmod(positions, self._num_items)
        own = range(int(epochs[0]), int(epochs[-1]) + 1)
        return epochs * self._num_items + np.concatenate([self.order(each)[places[epochs == each]] for each in own])

    def check_ranks(self, num_ranks: int) -> None:
        if self._batch_size % num_ranks:
            raise ValueError(
                f"the batch size is {self._batch_size}, but must be a multiple of the {num_ranks} processes."
            )


class Numbered:
    """A shuffled set's batches, whose items say which epoch they are in: item i of epoch e is e * n + i.

    Args:
        shuffled: the batches.
    """

    def __init__(self, shuffled: Shuffled) -> None:
        self._shuffled = shuffled

    def items(self, batch: int) -> np.ndarray:
        return self._shuffled.numbered(batch)

    def check_ranks(self, num_ranks: int) -> None:
        self._shuffled.check_ranks(num_ranks)


class LengthBuckets:
    """Batches of pairs of about the same length, so that little is padding.

    A batch takes, padding counted, at most ``max_tokens`` source symbols and at most ``max_tokens`` target symbols.
    Each epoch sorts the pairs by length, those of the same two lengths at random, cuts the row into batches, the same
    cuts in each epoch, and shuffles the batches.

    Args:
        source_lengths: of each pair.
        target_lengths: of each pair.
        max_tokens: see above; over all processes.
        key: the stream, ``tasks.sampling.stream_key(ORDER, seed)``.

    Raises:
        ValueError: there is no pair, or a pair alone has more than ``max_tokens`` symbols.
    """

    def __init__(
        self, source_lengths: np.ndarray, target_lengths: np.ndarray, max_tokens: int, key: np.ndarray
    ) -> None:
        check_positive("max_tokens", max_tokens)
        check_positive("the number of pairs", len(source_lengths))
        self._source_lengths, self._target_lengths = source_lengths, target_lengths
        self._widths = np.maximum(source_lengths, target_lengths)
        self._max_tokens = max_tokens
        self._key = key
        longest = int(self._widths.max())
        if longest > max_tokens:
            raise ValueError(f"max_tokens is {max_tokens}, but the longest text alone has {longest} symbols.")
        self._cuts = _cut(np.sort(self._widths), max_tokens)
        self._epoch = -1
        self._batches: list[np.ndarray] = []

    @property
    def num_batches(self) -> int:
        """How many batches an epoch has."""
        return len(self._cuts) - 1

    def items(self, batch: int) -> np.ndarray:
        epoch, place = divmod(batch, self.num_batches)
        if epoch != self._epoch:
            ties = random_words(self._key, epoch, 0, len(self._widths))
            row = np.lexsort((ties, self._target_lengths, self._source_lengths, self._widths))
            order = np.argsort(random_words(self._key, epoch, 1, self.num_batches), kind="stable")
            self._batches = [row[self._cuts[bucket] : self._cuts[bucket + 1]] for bucket in order]
            self._epoch = epoch
        return self._batches[place]

    def check_ranks(self, num_ranks: int) -> None:
        smallest = int(np.diff(self._cuts).min())
        if smallest < num_ranks:
            raise ValueError(
                f"max_tokens is {self._max_tokens}, which makes a batch of {smallest} pairs, but each of the "
                f"{num_ranks} processes must get one; {2 * num_ranks * int(self._widths.max())} would do."
            )


def _cut(widths: np.ndarray, max_tokens: int) -> list[int]:
    """Where to cut ascending widths into as many as make a full batch, from the longest on."""
    cuts = [len(widths)]
    while cuts[-1]:
        cuts.append(max(0, cuts[-1] - max_tokens // int(widths[cuts[-1] - 1])))
    cuts.reverse()
    # What is left for the shortest may be a pair or two, a step of noise; so the first two batches share alike.
    if len(cuts) > 2 and cuts[1] < cuts[2] - cuts[1]:
        cuts[1] = cuts[2] // 2
    return cuts


class InOrder:
    """A fixed set from the first item to the last.

    Args:
        num_items: size of the set.
        batch_size: items in a batch over all processes.
    """

    def __init__(self, num_items: int, batch_size: int) -> None:
        self._num_items = check_positive("num_items", num_items)
        self._batch_size = check_positive("batch_size", batch_size)

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return -(-self._num_items // self._batch_size)

    def items(self, batch: int) -> np.ndarray:
        return np.arange(batch * self._batch_size, min((batch + 1) * self._batch_size, self._num_items))

    def check_ranks(self, num_ranks: int) -> None:
        smallest = min(self._batch_size, self._num_items)
        if smallest < num_ranks:
            raise ValueError(f"a batch holds {smallest} pairs, but each of the {num_ranks} processes must get one.")


class ItemBatches(Generic[BatchT_co]):
    """The batches of a schedule in order, for one of the processes that share them.

    Args:
        collate: makes a batch of items.
        schedule: says which.
        first_batch: the batch to start at.
        num_batches: where to end; None for never.
        rank: which process this is; it gets the rank-th part of each batch, of the same size as the others' or one
            item more or less.
        num_ranks: number of processes.

    Raises:
        ValueError: the batches cannot be shared by so many processes.
    """

    def __init__(
        self,
        collate: Callable[[np.ndarray], BatchT_co],
        schedule: Schedule,
        first_batch: int = 0,
        num_batches: int | None = None,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        schedule.check_ranks(num_ranks)
        self._collate = collate
        self._schedule = schedule
        self._first_batch = first_batch
        self._num_batches = num_batches
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        """Number of batches of a stream that ends."""
        if self._num_batches is None:
            raise TypeError("an endless stream of batches has no length")
        # Only the last batch can be so small that a process gets nothing of it.
        return self._num_batches - (not len(self._own(self._num_batches - 1)))

    def __iter__(self) -> Iterator[BatchT_co]:
        numbers = itertools.count(self._first_batch) if self._num_batches is None else range(len(self))
        for batch in numbers:
            yield self._collate(self._own(batch))

    def _own(self, batch: int) -> np.ndarray:
        return np.array_split(self._schedule.items(batch), self._num_ranks)[self._rank]
