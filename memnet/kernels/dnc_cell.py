"""Which cells are the standard Differentiable Neural Computer, and its tensors as its kernel takes them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from memnet.access import ReadWriteAccess, ReadWriteState
from memnet.addressing import AllocationAddressing, ContentAddressing, LinkAddressing
from memnet.addressing.allocation import AllocationState
from memnet.addressing.link import LinkState
from memnet.cells import BypassedOutput, LSTMController, LSTMState, MemoryCell, MemoryState, NormalizedController
from memnet.kernels.ntm_cell import (
    fits_tensors,
    is_plain_call,
    is_standard_controller,
    is_watched,
    layer_parameters,
    layer_shapes,
)
from memnet.normalizers import Softmax
from memnet.scores import CosineScore, MaskedCosineScore


class CellSizes(NamedTuple):
    """What a standard cell's shapes follow from."""

    input: int
    slots: int
    width: int
    read_heads: int
    write_heads: int
    hidden: int
    layers: int
    lstm: bool
    normalized: bool
    masked: bool
    erase_freed: bool
    sharpen: bool

    def top(self) -> int:
        """Width of the controller's output and of what is read, together."""
        return self.hidden + self.read_heads * self.width

    def state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Of the tensors that ``state_tensors`` lists."""
        controller: list[tuple[int, ...]] = [(batch, self.layers, self.hidden)] * 2 if self.lstm else []
        by_slot, read_weights = (batch, self.slots), (batch, self.read_heads, self.slots)
        followed = (batch, self.write_heads, self.read_heads, self.slots)
        return [
            *controller,
            (batch, self.slots, self.width),
            by_slot,
            read_weights,
            *([by_slot] if self.erase_freed else []),
            (batch, self.write_heads, self.slots, self.slots),
            (batch, self.write_heads, self.slots),
            followed,
            followed,
            read_weights,
            (batch, self.read_heads, self.width),
        ]

    def parameter_shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors that ``parameters`` lists."""
        shapes = layer_shapes(self.input + self.read_heads * self.width, self.hidden, self.layers, self.lstm)
        shapes += [(self.hidden,)] * 2 if self.normalized else []
        score = self.width + 1 + self.masked * self.width
        writing = self.write_heads * (score + 2 + 2 * self.width)
        reading = self.read_heads * (score + 1 + 2 * self.write_heads + 2 * self.sharpen + 1)
        return [*shapes, (writing + reading, self.hidden), (writing + reading,)]


def is_standard(cell: Any) -> bool:
    """Exact types all the way down: a subclass may have other equations. And nobody to be called at each step."""
    if type(cell) is not MemoryCell or type(cell.access) is not ReadWriteAccess:
        return False
    access: Any = cell.access
    controller: Any = cell.controller
    output: Any = cell.output
    read, write = access.read_addressing, access.write_addressing
    return (
        _is_standard_controller(controller)
        and type(output) in (nn.Linear, BypassedOutput)
        and getattr(output, "control_size", controller.output_size) == controller.output_size
        and type(access.interface) is nn.Linear
        and type(read) is LinkAddressing
        and type(write) is AllocationAddressing
        and read.num_write_heads == access.num_write_heads
        and write.num_read_heads == access.num_read_heads
        and _are_standard_contents(read.inner, write.inner)
        and not any(map(is_watched, _modules(cell)))
    )


def sizes_of(cell: Any) -> CellSizes:
    """The sizes of a standard cell."""
    controller, access = _inner_controller(cell.controller), cell.access
    return CellSizes(
        input=cell.input_size,
        slots=access.num_slots,
        width=access.slot_size,
        read_heads=access.num_read_heads,
        write_heads=access.num_write_heads,
        hidden=controller.hidden_size,
        layers=controller.num_layers,
        lstm=type(controller) is LSTMController,
        normalized=type(cell.controller) is NormalizedController,
        masked=type(access.read_addressing.inner.score) is MaskedCosineScore,
        erase_freed=bool(access.write_addressing.erase_freed),
        sharpen=bool(access.read_addressing.sharpen),
    )


def parameters(cell: Any) -> list[Any]:
    """The parameters of a standard cell: the controller's layers', its normalisation's, the interface's.

    Those of the output layer are not among them: no step waits for it, so it is left to torch.
    """
    listed = layer_parameters(_inner_controller(cell.controller))
    if type(cell.controller) is NormalizedController:
        listed += [cell.controller.norm.weight, cell.controller.norm.bias]
    return [*listed, cell.access.interface.weight, cell.access.interface.bias]


def state_tensors(state: Any) -> list[Tensor] | None:
    """Hidden and cell (LSTM), memory, the allocation's tensors, the link's, reads. None if it is not such a state."""
    if type(state) is not MemoryState or type(state.access) is not ReadWriteState:
        return None
    if state.controller is not None and type(state.controller) is not LSTMState:
        return None
    memory, write, read = state.access
    if type(write) is not AllocationState or type(read) is not LinkState:
        return None
    if write.inner is not None or read.inner is not None:
        return None
    freed = [] if write.retention is None else [write.retention]
    return [*(state.controller or ()), memory, write.usage, write.read_weights, *freed, *read[:-1], state.reads]


def state_of(tensors: list[Tensor], lstm: bool, erase_freed: bool) -> MemoryState:
    """The state whose ``state_tensors`` these are."""
    left = iter(tensors)
    controller = LSTMState(next(left), next(left)) if lstm else None
    memory = next(left)
    write = AllocationState(next(left), next(left), next(left) if erase_freed else None, None)
    link, precedence, backward, forward, read_weights, reads = left
    read = LinkState(link, precedence, backward, forward, read_weights, None)
    return MemoryState(controller, ReadWriteState(memory, write, read), reads)


def fits_shapes(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether all is standard: the cell, the call, the shapes, and float32 tensors on the device of the inputs."""
    if not is_standard(cell) or not is_plain_call():
        return False
    sizes, states, output = sizes_of(cell), state_tensors(state), cell.output
    output_shapes = [(cell.output_size, sizes.top()), (cell.output_size,)]
    return fits_tensors(
        inputs,
        sizes.input,
        states,
        sizes.state_shapes,
        [*parameters(cell), output.weight, output.bias],
        [*sizes.parameter_shapes(), *output_shapes],
    )


def _inner_controller(controller: Any) -> Any:
    return controller.controller if type(controller) is NormalizedController else controller


def _is_standard_controller(controller: Any) -> bool:
    normalized = type(controller) is NormalizedController
    return is_standard_controller(_inner_controller(controller)) and (
        not normalized or type(controller.norm) is nn.LayerNorm
    )


def _are_standard_contents(*contents: Any) -> bool:
    return (
        all(type(content) is ContentAddressing and type(content.normalizer) is Softmax for content in contents)
        and all(type(content.score) in (CosineScore, MaskedCosineScore) for content in contents)
        and len({type(content.score) for content in contents}) == 1
        and len({content.score.eps for content in contents}) == 1
    )


def _modules(cell: Any) -> Iterator[nn.Module]:
    """Those that take part in a step."""
    access, controller = cell.access, cell.controller
    yield from (cell, cell.output, controller, access, access.interface)
    if type(controller) is NormalizedController:
        yield from (controller.controller, controller.norm)
    yield from _inner_controller(controller).layers
    for addressing in (access.write_addressing, access.read_addressing):
        content = addressing.inner
        yield from (addressing, content, content.score, content.normalizer)
