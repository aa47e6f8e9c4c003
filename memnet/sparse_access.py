"""Sparse access memory: each head reads K rows and writes K + 1, and backward undoes the writes (Rae et al. 2016)."""

from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from memnet.access import Access
from memnet.checks import check_fraction, check_positive
from memnet.functional_sparse import (
    note_access,
    read_rows,
    read_rows_gradient,
    sparse_write_weights,
    write_rows_gradient,
)
from memnet.sparse_search import ExactSearch, Search, untouched_zeros
from memnet.sparse_usage import AccessOrder


class SparseState(NamedTuple):
    """A memory that is written in few rows, and what the next step must know of the past."""

    memory: Float[Tensor, "batch slot val"]
    read_slots: Int64[Tensor, "batch head near"]
    read_weights: Float[Tensor, "batch head near"]
    least_used: Int64[Tensor, "batch head"]
    last_access: Int64[Tensor, "batch slot"]
    in_use: Int64[Tensor, " batch"]
    time: Int64[Tensor, " batch"]


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
        self._sizes = [slot_size, slot_size, 1, 1, 1]
        self.interface = nn.Linear(check_positive("control_size", control_size), num_heads * sum(self._sizes))

    def init_state(self, batch_size: int) -> SparseState:
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

    def open(self, state: SparseState) -> "OpenMemory":
        """A memory to run a sequence with: given to ``forward`` as its state, it is written in place.

        It begins with a copy of the slots in use. After the last step, its ``close`` gives the state that follows.
        """
        return OpenMemory(state, self.search, self.access_threshold)

    def forward(self, control: Float[Tensor, "batch ctrl"], state: Any) -> tuple[Float[Tensor, "batch head val"], Any]:
        opened = state if isinstance(state, OpenMemory) else self.open(state)
        emissions = rearrange(self.interface(control), "batch (head emit) -> batch head emit", head=self.num_heads)
        query, add, strength, write_gate, interpolation = emissions.to(opened.memory.dtype).split(self._sizes, -1)
        reads = opened.step(
            query.tanh(), F.softplus(strength), add.tanh(), write_gate.sigmoid(), interpolation.sigmoid()
        )
        return reads, opened if opened is state else opened.close()


class OpenMemory:
    """The memory of a sequence that is under way, and the log by which its writes are undone.

    Autograd sees one function for each step. They hand on the memory not as a tensor, which each would have to keep,
    but as an empty stand-in of its shape; its gradient is a real tensor, which every step's backward changes in a few
    rows and passes on. Old and new rows change places when a step is undone, so that it can be done again: the graph
    can be walked more than once, and from any step.

    Attributes:
        memory: as it is after ``position`` steps.
        position: how many steps are done and not undone.
        alive: which sequences go on in the next step, ``(batch,)``; the others are left as they are. None for all.
    """

    def __init__(self, state: SparseState, search: Search, access_threshold: float):
        used = int(state.in_use.max())
        self.memory = _copy_of_part(state.memory.detach(), used)
        self.position = 0
        self.alive: Bool[Tensor, " batch"] | None = None
        self._log: list[tuple[Tensor, Tensor]] = []
        self._stand_in = _Open.apply(state.memory)
        # Its memory stays as it was given; the one that is written stands apart.
        self._state = state._replace(last_access=_copy_of_part(state.last_access, used))
        self._nearest = search.open(self.memory, state.in_use)
        self._threshold = access_threshold
        self._order = AccessOrder()

    def step(
        self,
        query: Float[Tensor, "batch head val"],
        strength: Float[Tensor, "batch head 1"],
        add: Float[Tensor, "batch head val"],
        write_gate: Float[Tensor, "batch head 1"],
        interpolation: Float[Tensor, "batch head 1"],
    ) -> Float[Tensor, "batch head val"]:
        """Writes, then reads. The arguments are those of ``memnet.functional_sparse``."""
        _, read_slots, prev_weights, least_used, last_access, in_use, time = self._state
        alive = self.alive
        chosen = self._order.least_recently_used(last_access, least_used, in_use)
        if alive is not None:
            chosen = torch.where(alive[:, None], chosen, least_used)
        in_use = torch.maximum(in_use, chosen.amax(1) + 1)
        write_slots = torch.cat([read_slots, chosen[:, :, None]], -1)
        with torch.autocast(query.device.type, enabled=False):
            reads, read_weights, self._stand_in, read_slots = _Step.apply(
                self, self._stand_in, query, strength, add, write_gate, interpolation, prev_weights, write_slots, in_use
            )
            with torch.no_grad():
                write_weights = sparse_write_weights(prev_weights, write_gate, interpolation)
                slots = torch.cat([write_slots, read_slots], -1).flatten(1)
                weights = torch.cat([write_weights, read_weights], -1).flatten(1)
                time = time + (1 if alive is None else alive.long())
                noted = time if alive is None else time * alive
                note_access(last_access, slots, weights, noted, self._threshold)
        if alive is not None:
            going_on = alive[:, None, None]
            read_weights = torch.where(going_on, read_weights, prev_weights)
            read_slots = torch.where(going_on, read_slots, self._state.read_slots)
        given = self._state.memory
        self._state = SparseState(given, read_slots, read_weights, chosen, last_access, in_use, time)
        return reads

    def close(self) -> SparseState:
        """The state after the last step. Undoing the writes leaves it as it is."""
        state, stand_in = self._state, self._stand_in
        # The graph holds on to this object, which must not hold on to the graph: nobody would free the two.
        del self._state, self._stand_in
        memory = self.memory
        if torch.is_grad_enabled():
            memory = _Close.apply(stand_in, self, int(state.in_use.max()))
        return state._replace(memory=memory)

    def write(self, rows: Tensor, weights: Tensor, add: Tensor, erase: Tensor, record: bool) -> None:
        """M = (1 - R) M + w a, in place and in the log.

        Args:
            rows: numbers of rows among those of all memories, ``(batch, head, row)``.
            weights: w, ``(batch, head, row)``.
            add: a, ``(batch, head, val)``.
            erase: rows that are erased before.
            record: whether the log is needed.
        """
        flat, touched = self.memory.flatten(0, 1), rows.flatten()
        old = flat.index_select(0, touched) if record else None
        flat.index_fill_(0, erase, 0)
        flat.index_add_(0, touched, (weights[..., None] * add[:, :, None]).flatten(0, 2))
        if old is not None:
            self._log.append((touched, old))
            self.position += 1

    def seek(self, position: int) -> None:
        """Undoes writes, or does them again, until the memory is as after so many steps, to the bit."""
        while self.position > position:
            self.position -= 1
            self._swap(self.position)
        while self.position < position:
            self._swap(self.position)
            self.position += 1

    def _swap(self, step: int) -> None:
        touched, other = self._log[step]
        flat = self.memory.flatten(0, 1)
        self._log[step] = touched, flat.index_select(0, touched)
        flat.index_copy_(0, touched, other)

    def log_bytes(self) -> int:
        """The size of the log."""
        return sum(rows.nbytes + old.nbytes for rows, old in self._log)


class _Step(torch.autograd.Function):
    """One step of an ``OpenMemory``."""

    @staticmethod
    def forward(ctx: Any, opened: OpenMemory, stand_in: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        query, strength, add, write_gate, interpolation, prev_weights, write_slots, in_use = given
        record = any(ctx.needs_input_grad)
        alive = None if opened.alive is None else opened.alive[:, None, None]
        weights = sparse_write_weights(prev_weights, write_gate, interpolation)
        rows = _rows_of(write_slots, opened.memory)
        erase = rows[:, :, -1]
        if alive is not None:
            weights, erase = weights * alive, erase[opened.alive]
        erase = erase.flatten()
        opened.write(rows, weights, add, erase, record)
        opened._nearest.update(write_slots.flatten(1), in_use)
        slots = opened._nearest.nearest(query, prev_weights.shape[-1], in_use)
        there = slots < in_use[:, None, None]
        slots = slots * there
        read = _read(opened, query, strength, slots, there)
        ctx.opened, ctx.position, ctx.alive = opened, opened.position, alive
        if record:
            ctx.save_for_backward(*given[:6], rows, erase, slots, there)
        ctx.mark_non_differentiable(slots)
        ctx.set_materialize_grads(False)
        return read.reads, read.weights, _stand_in(opened.memory), slots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_reads: Any, grad_weights: Any, grad_memory: Any, _: Any) -> tuple[Tensor | None, ...]:
        query, strength, add, write_gate, interpolation, prev_weights, rows, erase, slots, there = ctx.saved_tensors
        opened = ctx.opened
        if grad_memory is None:
            grad_memory = untouched_zeros(opened.memory.shape, opened.memory.dtype, opened.memory.device)
        flat = grad_memory.flatten(0, 1)
        grad_query = grad_strength = None
        if grad_reads is not None or grad_weights is not None:
            if grad_reads is None:
                grad_reads = torch.zeros_like(query)
            opened.seek(ctx.position)
            read = _read(opened, query, strength, slots, there)
            near = _gather(opened.memory, slots)
            grad_query, grad_strength, grad_near = read_rows_gradient(
                query, strength, near, read, grad_reads, grad_weights
            )
            flat.index_add_(0, _rows_of(slots, opened.memory).flatten(), grad_near.flatten(0, 2))
        grad_rows = flat.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        grad_prev, grad_gate, grad_interpolation, grad_add = write_rows_gradient(
            prev_weights, write_gate, interpolation, add, ctx.alive, grad_rows
        )
        flat.index_fill_(0, erase, 0)  # what was erased is without influence
        # The stand-in's gradient is this step's own to change: nobody else has seen it (see ``_Close``).
        before = grad_memory if ctx.needs_input_grad[1] else None
        return None, before, grad_query, grad_strength, grad_add, grad_gate, grad_interpolation, grad_prev, None, None


class _Open(torch.autograd.Function):
    """From a state's memory to a stand-in for the copy of it that is written."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor) -> Tensor:
        return _stand_in(memory)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Close(torch.autograd.Function):
    """From the last stand-in to the memory it stands for, with rows of its own."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, opened: OpenMemory, used: int) -> Tensor:
        return _copy_of_part(opened.memory, used)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.clone(memory_format=torch.contiguous_format), None, None


def _read(opened: OpenMemory, query: Tensor, strength: Tensor, slots: Tensor, there: Tensor) -> Any:
    return read_rows(query, strength, _gather(opened.memory, slots), there)


def _gather(memory: Tensor, slots: Tensor) -> Tensor:
    return memory.flatten(0, 1).index_select(0, _rows_of(slots, memory).flatten()).unflatten(0, slots.shape)


def _rows_of(slots: Tensor, memory: Tensor) -> Tensor:
    """The rows' numbers among those of all memories of the batch."""
    return slots + (torch.arange(len(memory), device=slots.device) * memory.shape[1])[:, None, None]


def _stand_in(memory: Tensor) -> Tensor:
    """A tensor of the same shape that takes no room."""
    return memory.new_zeros(()).expand(memory.shape)


def _copy_of_part(whole: Tensor, used: int) -> Tensor:
    """A copy of rows of which only the first ``used`` are not 0."""
    if 2 * used > whole.shape[1]:
        return whole.clone(memory_format=torch.contiguous_format)
    copied = untouched_zeros(whole.shape, whole.dtype, whole.device)
    copied[:, :used] = whole[:, :used]
    return copied
