"""Sparse access memory: Rae et al. 2016, https://arxiv.org/abs/1610.09027."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet import kernels
from memnet.cells import Cell, LSTMController, MemoryCell, MemoryState
from memnet.checks import check_inputs, check_lengths, check_positive
from memnet.sparse_access import SparseAccess
from memnet.sparse_links import LinkedSparseAccess
from memnet.sparse_memory import OpenMemory
from memnet.sparse_search import Search


class SAM(nn.Module):
    """A controller with a large memory of which each step touches a few rows.

    Called like ``torch.nn.LSTM`` with ``batch_first=True``; its outputs are logits. A step's time grows with the number
    of slots by the search alone, and what it keeps for the backward pass does not grow at all: backward undoes the
    writes one by one and finds the rows that were read where they were. (On the CPU, a kernel that has the same numbers
    keeps the rows that were read: they are just those that the next step overwrites.) Only slots in use are searched.

    The memory is one tensor for a sequence, ``(batch, num_slots, slot_size)``, and so is its gradient; slots that are
    never used take no room in them on systems that hand out zeroed memory on first touch, as Linux does. When all slots
    are in use they are sorted by their last access, once for many steps.

    >>> import torch
    >>> model = SAM(input_size=9, output_size=8, num_slots=65_536)
    >>> outputs, state = model(torch.zeros(2, 5, 9))
    >>> outputs.shape
    torch.Size([2, 5, 8])

    Args:
        input_size: width of the input.
        output_size: width of the output.
        num_slots: N, rows of the memory. A longer sequence overwrites what was not used for longest.
        slot_size: W, width of a row.
        num_heads: how many heads read, and how many write.
        num_reads: K, how many slots a head reads at each step, and writes again at the next.
        access_threshold: delta in [0, 1): smaller weights are no access.
        controller: makes the controller from the width of its input; ``LSTMController`` by default.
        search: how the nearest slots are found; exactly by default. See ``ApproximateSearch``.
        links: whether heads can also follow the order of writing (``LinkedSparseAccess``), for long sequences that are
            to be given back in order.

    Raises:
        ValueError: a size is not positive, ``num_reads`` or ``num_heads`` is larger than ``num_slots``, or
            ``access_threshold`` is not in [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        num_slots: int = 1024,
        slot_size: int = 32,
        num_heads: int = 1,
        num_reads: int = 4,
        access_threshold: float = 0.005,
        controller: Callable[[int], Cell] | None = None,
        search: Search | None = None,
        links: bool = False,
    ):
        super().__init__()
        self.input_size = check_positive("input_size", input_size)
        self.output_size = check_positive("output_size", output_size)
        check_positive("num_heads", num_heads)
        check_positive("slot_size", slot_size)
        make_controller = controller if controller is not None else LSTMController
        controller_cell = make_controller(input_size + num_heads * slot_size)
        access_type = LinkedSparseAccess if links else SparseAccess
        access = access_type(
            controller_cell.output_size, num_slots, slot_size, num_heads, num_reads, access_threshold, search
        )
        self.cell = MemoryCell(controller_cell, access, input_size, output_size)

    def forward(
        self,
        inputs: Float[Tensor, "batch time inp"],
        state: Any = None,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time out"], Any]:
        """Logits for every step (0 beyond a sequence's length), and the state after each sequence's last step.

        As ``memnet.unroll`` of ``cell``, with its kernel where that fits; otherwise the steps share one memory here. A
        given state is left as it is.

        Raises:
            ValueError: as ``memnet.unroll`` does.
        """
        check_inputs(inputs, self.input_size)
        batch_size, time, _ = inputs.shape
        if lengths is not None:
            check_lengths(lengths, batch_size, time)
            lengths = lengths.to(inputs.device)
        if state is None:
            state = self.cell.init_state(batch_size)
        kernel = kernels.find(self.cell, inputs, state)
        if kernel is not None:
            return kernel(self.cell, inputs, state, lengths)
        outputs, state = self.run(inputs, self.open(state), lengths)
        return outputs, state._replace(access=state.access.close())

    def open(self, state: MemoryState) -> MemoryState:
        """The state with a memory that ``run`` may write in place (see ``SparseAccess.open``)."""
        access = self.cell.access
        assert isinstance(access, SparseAccess)
        return state._replace(access=access.open(state.access))

    def run(self, inputs: Tensor, state: MemoryState, lengths: Tensor | None = None) -> tuple[Tensor, MemoryState]:
        """``forward`` without its beginning and end, from an opened state to an opened state."""
        opened = state.access
        shortest = inputs.shape[1] if lengths is None else int(lengths.min())
        outputs = []
        for step, x in enumerate(inputs.unbind(1)):
            opened.alive = alive = None if lengths is None or step < shortest else lengths > step
            output, new_state = self.cell(x, state)
            if alive is not None:
                output, new_state = _going_on(alive, (output, new_state), (torch.zeros_like(output), state))
            outputs.append(output)
            state = new_state
        return torch.stack(outputs, 1), state


def _going_on(alive: Tensor, new: Any, old: Any) -> Any:
    """New numbers for the sequences that go on; the opened memory has seen to that by itself."""
    if isinstance(new, OpenMemory) or new is None:
        return new
    if isinstance(new, Tensor):
        return torch.where(alive.reshape(-1, *[1] * (new.dim() - 1)), new, old)
    parts = [_going_on(alive, each, before) for each, before in zip(new, old, strict=True)]
    return type(new)(*parts) if hasattr(new, "_fields") else tuple(parts)
