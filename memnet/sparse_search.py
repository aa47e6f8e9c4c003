"""Which K rows of a large memory are nearest to a query: exactly, or approximately through faiss."""

import abc
import contextlib
import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from memnet.checks import check_positive
from memnet.functional import NORM_EPS


class NearestRows(abc.ABC):
    """The rows of one batch of memories, which change from step to step."""

    @abc.abstractmethod
    def update(self, slots: Int64[Tensor, "batch touched"], in_use: Int64[Tensor, " batch"]) -> None:
        """Takes note of changed rows.

        Args:
            slots: which rows have changed; one may stand here several times.
            in_use: how many slots are in use: slots 0 ... in_use - 1. Those that are new are among the changed ones.
        """

    @abc.abstractmethod
    def nearest(
        self, query: Float[Tensor, "batch head val"], num_nearest: int, in_use: Int64[Tensor, " batch"]
    ) -> Int64[Tensor, "batch head near"]:
        """The slots in use that are most similar to the query; any slots where fewer than K are in use."""


class Search(abc.ABC):
    """How the nearest rows are found. Nothing of it is differentiated: only the scores of the found rows are."""

    @abc.abstractmethod
    def open(self, memory: Float[Tensor, "batch slot val"], in_use: Int64[Tensor, " batch"]) -> NearestRows:
        """Begins with a memory.

        Args:
            memory: is looked at again at every step, and changed between them.
            in_use: how many slots are in use at the beginning.
        """


class ExactSearch(Search):
    """Compares the query with every slot in use: one matrix product and one top-k at each step.

    Of slots that are equally near the first come first.
    """

    def open(self, memory: Float[Tensor, "batch slot val"], in_use: Int64[Tensor, " batch"]) -> NearestRows:
        return _Exact(memory, in_use)


class _Exact(NearestRows):
    def __init__(self, memory: Tensor, in_use: Tensor):
        self._memory = memory
        self._inverse_norms = untouched_zeros(memory.shape[:2], memory.dtype, memory.device)
        width = int(in_use.max())
        self._inverse_norms[:, :width] = _inverse_norms(memory[:, :width])

    def update(self, slots: Tensor, in_use: Tensor) -> None:
        rows = _take(self._memory, slots)
        self._inverse_norms.scatter_(1, slots, _inverse_norms(rows))

    def nearest(self, query: Tensor, num_nearest: int, in_use: Tensor) -> Tensor:
        return self.nearest_of(slice(None), query, num_nearest, in_use)

    def nearest_of(self, items: slice, query: Tensor, num_nearest: int, in_use: Tensor) -> Tensor:
        """In some memories of the batch, to which queries and numbers belong."""
        width = max(int(in_use.max()), num_nearest)
        # The query's own norm and the key strength change no order.
        scores = query @ rearrange(self._memory[items, :width], "batch slot val -> batch val slot")
        scores *= self._inverse_norms[items, None, :width]
        free = torch.arange(width, device=in_use.device) >= in_use[:, None]
        best, slots = scores.masked_fill_(free[:, None], -torch.inf).topk(min(num_nearest + 1, width))
        alike = ~(best[:, :, 1:] < best[:, :, :-1]) & (best[:, :, 1:] != -torch.inf)
        if alike.any():  # topk does not say which of equals it takes
            slots = scores.sort(descending=True, stable=True).indices
        return slots[:, :, :num_nearest]


class ApproximateSearch(Search):
    """Looks only into the parts of the memory that the query lies near (an inverted file of the faiss library).

    Rows are sorted into about sqrt(N) cells by the centre that they are nearest to, found by k-means over the rows
    themselves. A changed row moves to its new cell at once. The centres are those of a memory that was, so the whole is
    built anew each time as many rows have changed as half the slots in use, as in Rae et al. 2016, sec. 3.5. Memories
    of a batch are searched one after the other, on the CPU.

    A row is found in at least 9 of 10 cases where the query is that row with noise of a third of its length (a test
    holds it to this, on 20,000 rows of 32 independent Gaussian numbers). For queries like no row it is less often the
    nearest that is found: it is then hardly nearer than the rest.

    The centres of a state that is handed on from chunk to chunk are found anew, so that chunks may give other rows than
    the whole sequence.

    Args:
        num_probes: how many cells are looked at.
        beyond: how many slots in use are still searched exactly, which is then as fast.

    Raises:
        ValueError: a number is not positive.
        ImportError: the ``ann`` extra is not installed.
    """

    def __init__(self, num_probes: int = 16, beyond: int = 32_768):
        self.num_probes = check_positive("num_probes", num_probes)
        self.beyond = check_positive("beyond", beyond)
        _faiss()

    def open(self, memory: Float[Tensor, "batch slot val"], in_use: Int64[Tensor, " batch"]) -> NearestRows:
        return _Approximate(memory, in_use, self.num_probes, self.beyond)


class _Approximate(NearestRows):
    def __init__(self, memory: Tensor, in_use: Tensor, num_probes: int, beyond: int):
        self._memory = memory
        self._num_probes, self._beyond = num_probes, beyond
        self._exact = _Exact(memory, in_use)
        self._indices: list[Any] = [None] * len(memory)
        self._changes = [0] * len(memory)
        for item, used in enumerate(in_use.tolist()):
            self._build(item, used)

    def _build(self, item: int, used: int) -> None:
        if used <= self._beyond:
            return
        faiss = _faiss()
        rows = self._normalized(self._memory[item, :used])
        num_cells = round(used**0.5)
        quantizer = faiss.IndexFlatIP(rows.shape[1])
        index = faiss.IndexIVFFlat(quantizer, rows.shape[1], num_cells, faiss.METRIC_INNER_PRODUCT)
        # More rows for each centre, or more rounds, take longer and find no more.
        index.cp.max_points_per_centroid, index.cp.min_points_per_centroid, index.cp.niter = 40, 1, 6
        index.train(rows)
        index.set_direct_map_type(faiss.DirectMap.Array)
        index.add(rows)
        index.nprobe = min(self._num_probes, num_cells)
        self._indices[item], self._changes[item] = index, 0

    def update(self, slots: Tensor, in_use: Tensor) -> None:
        self._exact.update(slots, in_use)
        for item, used in enumerate(in_use.tolist()):
            index = self._indices[item]
            if index is None:
                self._build(item, used)
                continue
            changed = slots[item].unique()
            changed = changed[changed < used]
            self._changes[item] += len(changed)
            if self._changes[item] > used // 2:
                self._build(item, used)
                continue
            rows, known = self._normalized(self._memory[item, changed]), (changed < index.ntotal).numpy()
            if known.any():
                index.update_vectors(changed.numpy()[known], rows[known])
            if not known.all():
                index.add(rows[~known])

    def nearest(self, query: Tensor, num_nearest: int, in_use: Tensor) -> Tensor:
        if all(index is None for index in self._indices):
            return self._exact.nearest(query, num_nearest, in_use)
        found = []
        for item, index in enumerate(self._indices):
            slots = None if index is None else index.search(self._normalized(query[item]), num_nearest)[1]
            if slots is None or (slots < 0).any():  # the cells looked at can hold fewer rows than asked for
                own = slice(item, item + 1)
                found.append(self._exact.nearest_of(own, query[own], num_nearest, in_use[own]))
            else:
                found.append(torch.from_numpy(slots)[None])
        return torch.cat(found)

    @staticmethod
    def _normalized(rows: Tensor) -> Any:
        return (rows * _inverse_norms(rows)[..., None]).float().contiguous().numpy()


def untouched_zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, which on a CPU take room and time only where they are touched: torch's own are written at once.

    To touch all of them takes longer than with torch's.

    Args:
        shape: of the tensor.
        dtype: its numbers.
        device: where it is.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    count = math.prod(shape) * dtype.itemsize
    return (
        torch.from_numpy(_lazy_bytes(count) if count >= _LARGE else np.zeros(count, np.uint8)).view(dtype).view(shape)
    )


_LARGE = 2**20
"""Bytes from which on the system is asked for pages of its own."""


def _lazy_bytes(count: int) -> np.ndarray:
    """Zeros in small pages.

    From NumPy, a large piece comes in pages of 2 MB, all of which the first touch clears, or it has been used before
    and is cleared as a whole.
    """
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):  # not Linux
        return np.zeros(count, np.uint8)
    room = mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without large pages
        room.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(room, np.uint8)


def _inverse_norms(rows: Float[Tensor, "*axes val"]) -> Float[Tensor, "*axes"]:
    return (rows.square().sum(-1) + NORM_EPS).rsqrt()


def _take(memory: Tensor, slots: Tensor) -> Tensor:
    return memory.gather(1, slots[:, :, None].expand(-1, -1, memory.shape[2]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("ApproximateSearch needs the faiss package: pip install 'memnet[ann]'.") from error
    return faiss
