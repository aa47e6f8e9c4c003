"""Which cells are the standard sparse access memory, and its tensors in the order in which its kernel takes them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memnet.cells import LSTMController, LSTMState, MemoryCell, MemoryState
from memnet.kernels.ntm_cell import (
    fits_tensors,
    is_plain_call,
    is_plain_tensor,
    is_standard_controller,
    is_watched,
    layer_parameters,
    layer_shapes,
)
from memnet.sparse_access import SparseAccess
from memnet.sparse_links import LinkedSparseAccess, LinkedState
from memnet.sparse_memory import SparseState
from memnet.sparse_search import ExactSearch

WHOLE_NUMBERS = [False, True, False, True, True, True, True]
"""Which tensors of a ``SparseState`` are slots or times; links are, too."""


class CellSizes(NamedTuple):
    """What a standard cell's shapes follow from."""

    input: int
    output: int
    slots: int
    width: int
    heads: int
    near: int
    hidden: int
    layers: int
    lstm: bool
    links: bool

    def state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Of the tensors that ``state_tensors`` lists."""
        controller: list[tuple[int, ...]] = [(batch, self.layers, self.hidden)] * 2 if self.lstm else []
        read, by_slot = (batch, self.heads, self.near), (batch, self.slots)
        access = [(*by_slot, self.width), read, read, (batch, self.heads), by_slot, (batch,), (batch,)]
        access += [by_slot, by_slot] if self.links else []
        return [*controller, *access, (batch, self.heads, self.width)]

    def memory_place(self) -> int:
        """Where the memory stands among the tensors that ``state_tensors`` lists."""
        return 2 if self.lstm else 0

    def places_of_zeros(self) -> set[int]:
        """The same of what is 0 for slots that were never used: memory, times of last access, links."""
        fields = SparseState._fields
        tables = [len(fields), len(fields) + 1] if self.links else []
        return {self.memory_place() + place for place in (fields.index("memory"), fields.index("last_access"), *tables)}

    def parameter_shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors that ``parameters`` lists."""
        reads = self.heads * self.width
        interface = self.heads * (2 * self.width + 3 + 4 * self.links)
        return [
            *layer_shapes(self.input + reads, self.hidden, self.layers, self.lstm),
            *((interface, self.hidden), (interface,)),
            *((self.output, self.hidden + reads), (self.output,)),
        ]


def is_standard(cell: Any) -> bool:
    """Exact types all the way down: a subclass may have other equations. And nobody to be called at each step."""
    if type(cell) is not MemoryCell or type(cell.access) not in (SparseAccess, LinkedSparseAccess):
        return False
    return (
        is_standard_controller(cell.controller)
        and type(cell.output) is nn.Linear
        and type(cell.access.interface) is nn.Linear
        and type(cell.access.search) is ExactSearch
        and cell.max_gradient is None
        and not any(map(is_watched, _modules(cell)))
    )


def sizes_of(cell: Any) -> CellSizes:
    """The sizes of a standard cell."""
    controller, access = cell.controller, cell.access
    return CellSizes(
        input=cell.input_size,
        output=cell.output_size,
        slots=access.num_slots,
        width=access.slot_size,
        heads=access.num_heads,
        near=access.num_reads,
        hidden=controller.hidden_size,
        layers=controller.num_layers,
        lstm=type(controller) is LSTMController,
        links=type(access) is LinkedSparseAccess,
    )


def parameters(cell: Any) -> list[Any]:
    """The parameters of a standard cell: each layer's, in the order of its class, the interface's, the output's."""
    interface, output = cell.access.interface, cell.output
    return [*layer_parameters(cell.controller), interface.weight, interface.bias, output.weight, output.bias]


def state_tensors(state: Any) -> list[Tensor] | None:
    """Hidden and cell (LSTM), a ``SparseState``'s, with links both tables, reads. None if no standard cell's state."""
    if type(state) is not MemoryState or type(state.access) not in (SparseState, LinkedState):
        return None
    if state.controller is not None and type(state.controller) is not LSTMState:
        return None
    return [*(state.controller or ()), *_access_tensors(state.access), state.reads]


def _access_tensors(access: SparseState | LinkedState) -> list[Tensor]:
    return [*access.sparse, access.after, access.before] if isinstance(access, LinkedState) else [*access]


def without_links(access: SparseState | LinkedState) -> SparseState:
    """The part of a state that every sparse memory has."""
    return access.sparse if isinstance(access, LinkedState) else access


def state_of(tensors: list[Tensor], links: bool) -> MemoryState:
    """The state whose ``state_tensors`` these are; with links or without."""
    *rest, reads = tensors
    rest, tables = (rest[:-2], rest[-2:]) if links else (rest, [])
    lstm, access = rest[: -len(SparseState._fields)], SparseState(*rest[-len(SparseState._fields) :])
    return MemoryState(LSTMState(*lstm) if lstm else None, LinkedState(access, *tables) if links else access, reads)


def fits_shapes(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether all is standard: the cell, the call, the shapes, types and devices of the tensors, the slots' numbers."""
    states = state_tensors(state)
    if states is None or not is_standard(cell) or not is_plain_call():
        return False
    sizes = sizes_of(cell)

    def shapes(batch: int, slots: bool) -> list[tuple[int, ...]]:
        listed = zip(states, sizes.state_shapes(batch), strict=False)
        return [shape for x, shape in listed if (x.dtype is torch.int64) == slots]

    return (
        len(states) == len(sizes.state_shapes(1))
        and isinstance(state.access, LinkedState) == sizes.links
        and [x.dtype is torch.int64 for x in _access_tensors(state.access)]
        == WHOLE_NUMBERS + [True, True] * sizes.links
        and fits_tensors(
            inputs,
            sizes.input,
            [x for x in states if x.dtype is not torch.int64],
            lambda batch: shapes(batch, slots=False),
            parameters(cell),
            sizes.parameter_shapes(),
        )
        and all(is_plain_tensor(x, inputs.device, torch.int64) for x in states if x.dtype is torch.int64)
        and [tuple(x.shape) for x in states if x.dtype is torch.int64] == shapes(len(inputs), slots=True)
        and _are_in_use(state.access, sizes.slots)
    )


def _are_in_use(access: SparseState | LinkedState, slots: int) -> bool:
    """Whether slots that were read, written and linked lie among those in use: the kernel takes their word for it."""
    sparse = without_links(access)
    used = sparse.in_use
    if used.device.type != "cpu" or int(used.max()) > slots:
        return False
    mentioned = torch.cat([sparse.read_slots.flatten(1), sparse.least_used], 1)
    if int(mentioned.min()) < 0 or not bool((mentioned.amax(1) < used).all()):
        return False
    if not isinstance(access, LinkedState):
        return True
    tables = torch.stack([access.after, access.before])[:, :, : int(used.max())]
    return int(tables.min()) >= 0 and bool((tables.amax((0, 2)) <= used).all())


def _modules(cell: Any) -> Iterator[nn.Module]:
    """Those that take part in a step."""
    yield from (cell, cell.output, cell.controller, *cell.controller.layers, cell.access, cell.access.interface)
