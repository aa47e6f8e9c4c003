"""Random examples as a function of (stream, index) only, and the batches made of them.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a counter-based generator: its numbers are
a function of a key and a counter. The key names the stream, the counter's top word numbers what a task draws for a
sample (lengths, bits, ...), and its lowest word is the sample's index times the counters one sample takes. So a sample
is the same in every batch size, order and process, and the numbers of a range of samples are one call.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .base import SequenceBatch

# One counter of Philox 4x64 yields four words of 64 bits.
WORDS_PER_COUNTER = 4
# Examples drawn at once, however small the batch: a NumPy call costs the same for one example as for a hundred.
EXAMPLES_PER_CHUNK = 256

TRAIN, VALIDATION, TEST = 0, 1, 2


def stream_key(split: int, number: int) -> np.ndarray:
    """The Philox key of a stream.

    Args:
        split: TRAIN, VALIDATION or TEST.
        number: the seed of a training stream, the position of a test set in the ladder.
    """
    return np.random.SeedSequence((split, number)).generate_state(2, np.uint64)


def uniform_of(words: np.ndarray) -> np.ndarray:
    """Random words as numbers from U[0, 1), float64.

    Args:
        words: of uint64.
    """
    return (words >> np.uint64(11)) * 2.0**-53


class Draws:
    """The random numbers of some samples of one stream; each call draws the next thing for all of them.

    Attributes:
        count: how many samples.
        indices: their numbers in the stream, ``(count,)``.

    Args:
        key: the stream, from ``stream_key``.
        indices: the samples' numbers in the stream, 0 or larger, ascending. What lies between the first and the last
            is generated too, so they should be close together.
    """

    def __init__(self, key: np.ndarray, indices: np.ndarray) -> None:
        self.count = len(indices)
        self.indices = indices
        self._key = key
        self._first = int(indices[0])
        self._last = int(indices[-1])
        self._rows = None if self._last - self._first + 1 == self.count else indices - self._first
        self._field = 0

    def words(self, size: int) -> np.ndarray:
        """Random words, ``(count, size)`` of uint64.

        Args:
            size: words for each sample.
        """
        counters = -(-size // WORDS_PER_COUNTER)
        counter = np.array([self._first * counters, 0, 0, self._field], dtype=np.uint64)
        self._field += 1
        generator = np.random.Philox(key=self._key, counter=counter)
        words = generator.random_raw((self._last - self._first + 1) * counters * WORDS_PER_COUNTER)
        words = words.reshape(-1, counters * WORDS_PER_COUNTER)
        return (words if self._rows is None else words[self._rows])[:, :size]

    def uniform(self, size: int) -> np.ndarray:
        """Numbers from U[0, 1), ``(count, size)`` of float64.

        Args:
            size: numbers for each sample.
        """
        return uniform_of(self.words(size))

    def bits(self, *shape: int) -> np.ndarray:
        """Fair coin flips, ``(count, *shape)`` of uint8, 0 or 1.

        Args:
            *shape: the shape of one sample's bits.
        """
        size = int(np.prod(shape))
        octets = self.words(-(-size // 64)).astype("<u8", order="C").view(np.uint8)
        return np.unpackbits(octets, axis=1, count=size).reshape(self.count, *shape)

    def integers(self, low: int, high: int | np.ndarray) -> np.ndarray:
        """One integer for each sample, uniform from ``low`` to ``high``, both included; ``(count,)`` of int64.

        Args:
            low: smallest value.
            high: largest value, for all samples or one for each.
        """
        return low + (self.uniform(1)[:, 0] * (high - low + 1)).astype(np.int64)


Sampler = Callable[[Draws], SequenceBatch]


class BatchStream:
    """A stream's batches in order, for one of the processes that share them.

    A plain iterable and no ``DataLoader``: with nothing to load and nothing to collate, a DataLoader's bookkeeping
    would cost more than the batch, and its worker processes would only repeat samples.

    Args:
        sample: makes a batch from its random numbers.
        key: the stream, from ``stream_key``.
        batch_size: samples in a batch over all processes: batch k holds samples [k * batch_size, (k + 1) * batch_size).
        num_samples: where a finite stream ends; None for one that never does.
        first_batch: the batch to start at.
        rank: which process this is; it gets the rank-th part of each batch.
        num_ranks: number of processes.

    Raises:
        ValueError: batch_size or num_samples cannot be split evenly over the processes.
    """

    def __init__(
        self,
        sample: Sampler,
        key: np.ndarray,
        batch_size: int,
        num_samples: int | None = None,
        first_batch: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        for name, size in {"batch size": batch_size, "number of sequences": num_samples or 0}.items():
            if size % num_ranks:
                raise ValueError(f"the {name} is {size}, but must be a multiple of the {num_ranks} processes.")
        self._sample = sample
        self._key = key
        self._batch_size = batch_size
        self._num_samples = num_samples
        self._first_batch = first_batch
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        """Number of batches of a finite stream."""
        if self._num_samples is None:
            raise TypeError("an endless stream of batches has no length")
        return -(-self._num_samples // self._batch_size)

    def __iter__(self) -> Iterator[SequenceBatch]:
        """Draws many batches at once and hands them out one by one."""
        per_chunk = max(1, EXAMPLES_PER_CHUNK // self._batch_size)
        if self._num_samples is None:
            chunks = (range(first, first + per_chunk) for first in itertools.count(self._first_batch, per_chunk))
        else:
            batches = range(self._first_batch, len(self))
            chunks = (batches[first : first + per_chunk] for first in range(0, len(batches), per_chunk))
        for chunk in chunks:
            parts = [self._indices(batch) for batch in chunk]
            drawn = self._sample(Draws(self._key, np.concatenate(parts)))
            lengths = drawn.lengths.tolist()
            stop = 0
            for part in parts:
                start, stop = stop, stop + len(part)
                time = max(lengths[start:stop])
                yield SequenceBatch(
                    drawn.inputs[start:stop, :time].contiguous(),
                    drawn.targets[start:stop, :time].contiguous(),
                    drawn.mask[start:stop, :time].contiguous(),
                    drawn.lengths[start:stop],
                )

    def _indices(self, batch: int) -> np.ndarray:
        first = batch * self._batch_size
        size = self._batch_size if self._num_samples is None else min(self._batch_size, self._num_samples - first)
        part = size // self._num_ranks
        return np.arange(first + self._rank * part, first + (self._rank + 1) * part)
