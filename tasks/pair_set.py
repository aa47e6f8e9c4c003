"""Pairs of symbol sequences, and batches of them."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from memnet.decoding import BOS, EOS, PAD


class PairBatch(NamedTuple):
    """Sources and targets, padded with PAD to the longest of each. What is named lengths stays on the CPU.

    Attributes:
        source: symbols.
        target: symbols, from BOS to EOS.
        source_lengths: how many symbols of each source are real, at least 1.
        target_lengths: how many symbols of each target are real, BOS and EOS counted; 2 where the target is not known.
        references: each target as the text it was; empty where the batch was made of symbols alone.
    """

    source: Int64[Tensor, "batch source"]
    target: Int64[Tensor, "batch target"]
    source_lengths: Int64[Tensor, " batch"]
    target_lengths: Int64[Tensor, " batch"]
    references: tuple[str, ...] = ()


class PairSet:
    """Pairs of symbol sequences, any of which make a batch.

    Args:
        sources: each source's symbols, at least one.
        targets: each target's symbols, without BOS and EOS.
        references: each target's text.
    """

    def __init__(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], references: Sequence[str]
    ) -> None:
        self._sources = _Rows(sources)
        self._targets = _Rows([[BOS, *target, EOS] for target in targets])
        self._references = references

    def __len__(self) -> int:
        return len(self._references)

    @property
    def source_lengths(self) -> np.ndarray:
        """How many symbols each source has, ``(pairs,)`` of int64."""
        return self._sources.lengths

    @property
    def target_lengths(self) -> np.ndarray:
        """How many symbols each target has, BOS and EOS counted, ``(pairs,)`` of int64."""
        return self._targets.lengths

    def batch(self, items: np.ndarray) -> PairBatch:
        """Some of the pairs, padded.

        Args:
            items: which, at least one.
        """
        return PairBatch(
            torch.from_numpy(self._sources.padded(items)),
            torch.from_numpy(self._targets.padded(items)),
            torch.from_numpy(self._sources.lengths[items]),
            torch.from_numpy(self._targets.lengths[items]),
            tuple(self._references[item] for item in items.tolist()),
        )


class _Rows:
    """Rows of different lengths, end to end in one array: tens of thousands of small arrays would be slow to pad."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths
        self._flat = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(self.lengths.sum()))

    def padded(self, items: np.ndarray) -> np.ndarray:
        lengths, starts = self.lengths[items, None], self._starts[items, None]
        places = np.arange(lengths.max())
        inside = places < lengths
        return np.where(inside, self._flat[np.where(inside, starts + places, 0)], PAD)
