"""The memory of sparse access while a sequence is under way: written in place, and the writes undone by backward."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.functional_sparse import (
    Reading,
    note_access,
    read_rows,
    read_rows_gradient,
    sparse_write_weights,
    write_rows_gradient,
)
from memnet.sparse_search import Search, untouched_zeros
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


class ReadingGradient(NamedTuple):
    """Gradients of what reading goes by, of the last step's weights (None for none), and of rows of some slots."""

    looking: Sequence[Tensor]
    prev_weights: Float[Tensor, "batch head near"] | None
    slots: Int64[Tensor, "batch head row"]
    rows: Float[Tensor, "batch head row val"]


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
        self.memory = copy_of_part(state.memory.detach(), used)
        self.position = 0
        self.alive: Bool[Tensor, " batch"] | None = None
        self._log: list[tuple[Tensor, Tensor]] = []
        self._stand_in = _Open.apply(state.memory)
        # Its memory stays as it was given; the one that is written stands apart.
        self._state = state._replace(last_access=copy_of_part(state.last_access, used))
        self._nearest = search.open(self.memory, state.in_use)
        self._threshold = access_threshold
        self._order = AccessOrder()

    def step(
        self,
        add: Float[Tensor, "batch head val"],
        write_gate: Float[Tensor, "batch head 1"],
        interpolation: Float[Tensor, "batch head 1"],
        looking: Sequence[Tensor],
    ) -> Float[Tensor, "batch head val"]:
        """Writes, then reads. The arguments are those of ``memnet.functional_sparse``.

        Args:
            add: a.
            write_gate: alpha.
            interpolation: gamma.
            looking: what reading goes by; here query and key strength.
        """
        _, read_slots, prev_weights, least_used, last_access, in_use, time = self._state
        alive = self.alive
        chosen = self._order.least_recently_used(last_access, least_used, in_use)
        if alive is not None:
            chosen = torch.where(alive[:, None], chosen, least_used)
        in_use = torch.maximum(in_use, chosen.amax(1) + 1)
        write_slots = torch.cat([read_slots, chosen[:, :, None]], -1)
        self.choose(least_used, chosen)
        with torch.autocast(add.device.type, enabled=False):
            reads, read_weights, self._stand_in, read_slots = _Step.apply(
                self, self._stand_in, add, write_gate, interpolation, prev_weights, write_slots, in_use, *looking
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

    def choose(self, before: Int64[Tensor, "batch head"], chosen: Int64[Tensor, "batch head"]) -> None:
        """Takes note of the slots into which the heads write next, besides those that they have read.

        Args:
            before: those of the last step.
            chosen: those of this one; the same where a write was too weak to count.
        """

    def look(self, looking: Sequence[Tensor], prev_slots: Tensor, in_use: Tensor, num_reads: int) -> Sequence[Tensor]:
        """Which rows may be read in this step: tensors without gradients, of which the first are slots.

        Args:
            looking: what reading goes by.
            prev_slots: the slots that were read in the last step.
            in_use: how many slots are in use.
            num_reads: K.
        """
        slots = self._nearest.nearest(looking[0], num_reads, in_use)
        there = slots < in_use[:, None, None]
        return slots * there, there

    def read(self, looking: Sequence[Tensor], prev_weights: Tensor, seen: Sequence[Tensor]) -> Reading:
        """Reads the memory as it is.

        Args:
            looking: what reading goes by.
            prev_weights: of the last step.
            seen: from ``look``.
        """
        query, strength = looking
        slots, there = seen
        reads, weights, *_ = read_rows(query, strength, self.gather(slots), there)
        return Reading(reads, weights, slots)

    def read_gradient(
        self, looking: Sequence[Tensor], prev_weights: Tensor, seen: Sequence[Tensor], grad: Sequence[Tensor | None]
    ) -> ReadingGradient:
        """The gradients of ``read``, from those of its reads and weights.

        Args:
            looking: what reading goes by.
            prev_weights: of the last step.
            seen: from ``look``.
            grad: of reads and of weights; None where there is none.
        """
        query, strength = looking
        slots, there = seen
        grad_reads = torch.zeros_like(query) if grad[0] is None else grad[0]
        rows = self.gather(slots)
        read = read_rows(query, strength, rows, there)
        *grad_looking, grad_rows = read_rows_gradient(query, strength, rows, read, grad_reads, grad[1])
        return ReadingGradient(grad_looking, None, slots, grad_rows)

    def gather(self, slots: Int64[Tensor, "batch head near"]) -> Float[Tensor, "batch head near val"]:
        """The rows of some slots, as they are now."""
        rows = _rows_of(slots, self.memory).flatten()
        return self.memory.flatten(0, 1).index_select(0, rows).unflatten(0, slots.shape)

    def close(self) -> Any:
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
        add, write_gate, interpolation, prev_weights, write_slots, in_use, *looking = given
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
        seen = opened.look(looking, write_slots[:, :, :-1], in_use, prev_weights.shape[-1])
        reads, read_weights, slots = opened.read(looking, prev_weights, seen)
        ctx.opened, ctx.position, ctx.alive, ctx.num_looking = opened, opened.position, alive, len(looking)
        if record:
            ctx.save_for_backward(*given[:4], rows, erase, *looking, *seen)
        ctx.mark_non_differentiable(slots)
        ctx.set_materialize_grads(False)
        return reads, read_weights, _stand_in(opened.memory), slots

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_reads: Any, grad_weights: Any, grad_memory: Any, _: Any) -> tuple[Tensor | None, ...]:
        add, write_gate, interpolation, prev_weights, rows, erase, *rest = ctx.saved_tensors
        looking, seen = rest[: ctx.num_looking], rest[ctx.num_looking :]
        opened = ctx.opened
        if grad_memory is None:
            grad_memory = untouched_zeros(opened.memory.shape, opened.memory.dtype, opened.memory.device)
        flat = grad_memory.flatten(0, 1)
        grad_looking: Sequence[Tensor | None] = [None] * len(looking)
        of_reading = None
        if grad_reads is not None or grad_weights is not None:
            opened.seek(ctx.position)
            grad_looking, of_reading, slots, grad_near = opened.read_gradient(
                looking, prev_weights, seen, (grad_reads, grad_weights)
            )
            flat.index_add_(0, _rows_of(slots, opened.memory).flatten(), grad_near.flatten(0, 2))
        grad_rows = flat.index_select(0, rows.flatten()).unflatten(0, rows.shape)
        grad_prev, grad_gate, grad_interpolation, grad_add = write_rows_gradient(
            prev_weights, write_gate, interpolation, add, ctx.alive, grad_rows
        )
        if of_reading is not None:
            grad_prev = grad_prev + of_reading
        flat.index_fill_(0, erase, 0)  # what was erased is without influence
        # The stand-in's gradient is this step's own to change: nobody else has seen it (see ``_Close``).
        before = grad_memory if ctx.needs_input_grad[1] else None
        return None, before, grad_add, grad_gate, grad_interpolation, grad_prev, None, None, *grad_looking


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
        return copy_of_part(opened.memory, used)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.clone(memory_format=torch.contiguous_format), None, None


def _rows_of(slots: Tensor, memory: Tensor) -> Tensor:
    """The rows' numbers among those of all memories of the batch."""
    return slots + (torch.arange(len(memory), device=slots.device) * memory.shape[1])[:, None, None]


def _stand_in(memory: Tensor) -> Tensor:
    """A tensor of the same shape that takes no room."""
    return memory.new_zeros(()).expand(memory.shape)


def copy_of_part(whole: Tensor, used: int) -> Tensor:
    """A copy of rows of which only the first ``used`` are not 0."""
    if 2 * used > whole.shape[1]:
        return whole.clone(memory_format=torch.contiguous_format)
    copied = untouched_zeros(whole.shape, whole.dtype, whole.device)
    copied[:, :used] = whole[:, :used]
    return copied
