"""Sparse access memory: each head reads K rows and writes K + 1, and backward undoes the writes (Rae et al. 2016)."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.access import Access
from memnet.checks import check_fraction, check_positive
from memnet.sparse_memory import OpenMemory, SparseState
from memnet.sparse_search import ExactSearch, Search, untouched_zeros


class SparseAccess(Access):
    """One step of sparse access memory (Rae et al. 2016, sec. 3): writes first, then reads.

    The memory starts empty, all zeros, and only slots that were ever chosen for writing are read: so long as there are
    fewer than K of them, fewer are read. A head writes where it read at the last step and into the slot whose last
    access lies farthest back, which is erased before; a weight of at most ``access_threshold`` is no access. Once all
    slots are in use, the least recently used one makes room: a sequence may be longer than the memory has slots.

    Each head emits a key q (tanh), the key strength beta (softplus), what it adds a (tanh), the write gate alpha and
    the interpolation gate gamma (sigmoid).

    This ``forward`` is one step for itself and copies the slots in use, so as to leave the given state alone; see
    ``open`` for sequences.

    Args:
        control_size: width of the controller's output.
        num_slots: N.
        slot_size: W.
        num_heads: how many heads read, and how many write.
        num_reads: K, how many slots a head reads.
        access_threshold: delta in [0, 1).
        search: finds the K nearest slots; exactly by default.

    Raises:
        ValueError: a size is not positive, more slots are to be read, or more heads to write, than there are slots, or
            the threshold is not in [0, 1).
    """

    def __init__(
        self,
        control_size: int,
        num_slots: int = 1024,
        slot_size: int = 32,
        num_heads: int = 1,
        num_reads: int = 4,
        access_threshold: float = 0.005,
        search: Search | None = None,
    ):
        super().__init__()
        self.num_slots = check_positive("num_slots", num_slots)
        self.slot_size = check_positive("slot_size", slot_size)
        self.num_read_heads = self.num_heads = check_positive("num_heads", num_heads)
        self.num_reads = check_positive("num_reads", num_reads)
        for name, count in [("num_reads", num_reads), ("num_heads", num_heads)]:
            if count > num_slots:
                raise ValueError(f"{name} is {count}, but must not be larger than num_slots, which is {num_slots}.")
        self.access_threshold = check_fraction("access_threshold", access_threshold)
        self.search = search if search is not None else ExactSearch()
        self._sizes = [slot_size, slot_size, 1, 1, 1, *self._more_sizes()]
        self.interface = nn.Linear(check_positive("control_size", control_size), num_heads * sum(self._sizes))

    def _more_sizes(self) -> list[int]:
        """Of what a head emits besides."""
        return []

    def init_state(self, batch_size: int) -> Any:
        weight, heads, long = self.interface.weight, (batch_size, self.num_heads), torch.int64
        device = weight.device
        return SparseState(
            memory=untouched_zeros((batch_size, self.num_slots, self.slot_size), weight.dtype, device),
            read_slots=torch.zeros(*heads, self.num_reads, dtype=long, device=device),
            read_weights=weight.new_zeros(*heads, self.num_reads),
            least_used=torch.arange(self.num_heads, device=device).expand(heads).clone(),
            last_access=untouched_zeros((batch_size, self.num_slots), long, device),
            in_use=torch.full((batch_size,), self.num_heads, device=device),
            time=torch.zeros(batch_size, dtype=long, device=device),
        )

    def open(self, state: Any) -> "OpenMemory":
        """A memory to run a sequence with: given to ``forward`` as its state, it is written in place.

        It begins with a copy of the slots in use. After the last step, its ``close`` gives the state that follows.
        """
        return OpenMemory(state, self.search, self.access_threshold)

    def forward(self, control: Float[Tensor, "batch ctrl"], state: Any) -> tuple[Float[Tensor, "batch head val"], Any]:
        opened = state if isinstance(state, OpenMemory) else self.open(state)
        emissions = rearrange(self.interface(control), "batch (head emit) -> batch head emit", head=self.num_heads)
        emitted = emissions.to(opened.memory.dtype).split(self._sizes, -1)
        query, add, strength, write_gate, interpolation, *more = emitted
        looking = query.tanh(), F.softplus(strength), *self._activated(more)
        reads = opened.step(add.tanh(), write_gate.sigmoid(), interpolation.sigmoid(), looking)
        return reads, opened if opened is state else opened.close()

    def _activated(self, more: Sequence[Tensor]) -> list[Tensor]:
        """What a head emits besides, each in its range."""
        return []
