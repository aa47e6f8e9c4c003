"""Sparse access memory whose heads can follow the order of writing."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from memnet.functional_sparse import Reading, link_slots, read_linked_rows
from memnet.sparse_access import SparseAccess
from memnet.sparse_memory import OpenMemory, ReadingGradient, SparseState, copy_of_part
from memnet.sparse_search import Search, untouched_zeros

NUM_MODES = 3
"""Backward, by content, forward."""


class LinkedState(NamedTuple):
    """A memory that is written in few rows, and in which order they were.

    Attributes:
        sparse: the memory, and where it was read and written.
        after: for each slot the one that its head took next, counted from 1; 0 for none.
        before: for each slot the one that its head had taken before it, counted from 1; 0 for none.
    """

    sparse: SparseState
    after: Int64[Tensor, "batch slot"]
    before: Int64[Tensor, "batch slot"]


class LinkedSparseAccess(SparseAccess):
    """Sparse access memory with links from each slot to the one that was written next: a sparse DNC's, but hard.

    A head reads what is like its key, or what was written right after or right before what it read last, or a mixture,
    as in the DNC (Graves et al. 2016, "Read weighting"): w = pi_1 b + pi_2 c + pi_3 f, of which the K largest are kept
    and sharpened (NTM eq. 9). Rae et al. (2016, supplement D) link slots sparsely by how much was written to them; here
    a slot is linked to the one that the same head takes next, since in this memory there is one such slot at a step,
    and following them takes K rows, not a matrix. A slot that is taken anew leaves its old place in the order.

    Each head emits, besides, the read modes pi (softmax) and the power of sharpening (1 + softplus). Arguments, errors
    and the rest as ``SparseAccess``.
    """

    def _more_sizes(self) -> list[int]:
        return [NUM_MODES, 1]

    def _activated(self, more: Sequence[Tensor]) -> list[Tensor]:
        modes, sharpening = more
        return [modes.softmax(-1), 1 + F.softplus(sharpening)]

    def init_state(self, batch_size: int) -> LinkedState:
        shape, device = (batch_size, self.num_slots), self.interface.weight.device
        after, before = (untouched_zeros(shape, torch.int64, device) for _ in range(2))
        return LinkedState(super().init_state(batch_size), after, before)

    def open(self, state: LinkedState) -> "LinkedMemory":
        return LinkedMemory(state, self.search, self.access_threshold)


class LinkedMemory(OpenMemory):
    """The memory and the links of a sequence that is under way.

    Backward needs no links: each step knows which slots it has seen.
    """

    def __init__(self, state: LinkedState, search: Search, access_threshold: float):
        super().__init__(state.sparse, search, access_threshold)
        used = int(state.sparse.in_use.max())
        self._after, self._before = copy_of_part(state.after, used), copy_of_part(state.before, used)

    def choose(self, before: Int64[Tensor, "batch head"], chosen: Int64[Tensor, "batch head"]) -> None:
        link_slots(self._after, self._before, before, chosen)

    def look(self, looking: Sequence[Tensor], prev_slots: Tensor, in_use: Tensor, num_reads: int) -> Sequence[Tensor]:
        near, there = super().look(looking, prev_slots, in_use, num_reads)
        followed = [links.gather(1, prev_slots.flatten(1)).view_as(prev_slots) for links in (self._before, self._after)]
        back, on = ((each - 1).clamp_min(0) for each in followed)
        seen = torch.cat([back, near, on], -1)
        return seen, torch.cat([followed[0] > 0, there, followed[1] > 0], -1)

    def read(self, looking: Sequence[Tensor], prev_weights: Tensor, seen: Sequence[Tensor]) -> Reading:
        query, strength, modes, sharpening = looking
        slots, there = seen
        rows = self.gather(slots)
        return read_linked_rows(query, strength, modes, sharpening, prev_weights, rows, there, slots)

    def read_gradient(
        self, looking: Sequence[Tensor], prev_weights: Tensor, seen: Sequence[Tensor], grad: Sequence[Tensor | None]
    ) -> ReadingGradient:
        slots, there = seen
        with torch.enable_grad():
            given = [x.detach().requires_grad_() for x in (*looking, prev_weights, self.gather(slots))]
            query, strength, modes, sharpening, before, rows = given
            reads, weights, _ = read_linked_rows(query, strength, modes, sharpening, before, rows, there, slots)
        results, gradients = zip(
            *[(x, d) for x, d in zip((reads, weights), grad, strict=True) if d is not None], strict=True
        )
        *grad_looking, grad_prev, grad_rows = torch.autograd.grad(results, given, gradients)
        return ReadingGradient(grad_looking, grad_prev, slots, grad_rows)

    def close(self) -> LinkedState:
        return LinkedState(super().close(), self._after, self._before)
