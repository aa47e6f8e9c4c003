"""Which cells are the standard Neural Turing Machine, and its tensors in the order in which kernels take them."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memnet.access import ReadWriteAccess, ReadWriteState
from memnet.addressing import ContentAddressing, LocationAddressing, LocationState
from memnet.cells import FeedForwardController, LSTMController, LSTMState, MemoryCell, MemoryState
from memnet.functional import in_forward_mode
from memnet.normalizers import Softmax
from memnet.recording import is_hooked
from memnet.scores import CosineScore


class CellSizes(NamedTuple):
    """What a standard cell's shapes follow from."""

    input: int
    output: int
    slots: int
    width: int
    read_heads: int
    write_heads: int
    shifts: int
    hidden: int
    layers: int
    lstm: bool

    def state_shapes(self, batch: int) -> list[tuple[int, ...]]:
        """Of the tensors that ``state_tensors`` lists."""
        controller: list[tuple[int, ...]] = [(batch, self.layers, self.hidden)] * 2 if self.lstm else []
        return [
            *controller,
            (batch, self.slots, self.width),
            (batch, self.write_heads, self.slots),
            (batch, self.read_heads, self.slots),
            (batch, self.read_heads, self.width),
        ]

    def parameter_shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors that ``parameters`` lists."""
        reads = self.read_heads * self.width
        shapes = layer_shapes(self.input + reads, self.hidden, self.layers, self.lstm)
        emission = self.width + 1 + 1 + self.shifts + 1
        interface = (self.read_heads + self.write_heads) * emission + 2 * self.write_heads * self.width
        outputs = [(self.output, self.hidden + reads), (self.output,)]
        return [*shapes, (interface, self.hidden), (interface,), *outputs]


def layer_shapes(input_size: int, hidden_size: int, num_layers: int, lstm: bool) -> list[tuple[int, ...]]:
    """Of the tensors that ``layer_parameters`` lists."""
    shapes: list[tuple[int, ...]] = []
    for _ in range(num_layers):
        if lstm:
            gates = 4 * hidden_size
            shapes += [(gates, input_size), (gates, hidden_size), (gates,), (gates,)]
        else:
            shapes += [(hidden_size, input_size), (hidden_size,)]
        input_size = hidden_size
    return shapes


def is_standard(cell: Any) -> bool:
    """Exact types all the way down: a subclass may have other equations. And nobody to be called at each step."""
    if type(cell) is not MemoryCell or type(cell.access) is not ReadWriteAccess:
        return False
    controller, access = cell.controller, cell.access
    addressings: list[Any] = [access.read_addressing, access.write_addressing]
    return (
        is_standard_controller(controller)
        and type(cell.output) is nn.Linear
        and type(access.interface) is nn.Linear
        and all(map(_is_standard_addressing, addressings))
        and len({addressing.num_shifts for addressing in addressings}) == 1
        and len({addressing.inner.score.eps for addressing in addressings}) == 1
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
        read_heads=access.num_read_heads,
        write_heads=access.num_write_heads,
        shifts=access.read_addressing.num_shifts,
        hidden=controller.hidden_size,
        layers=controller.num_layers,
        lstm=type(controller) is LSTMController,
    )


def parameters(cell: Any) -> list[Any]:
    """The parameters of a standard cell: each layer's, in the order of its class, the interface's, the output's.

    None stands for a bias that a layer does without.
    """
    listed = layer_parameters(cell.controller)
    for linear in (cell.access.interface, cell.output):
        listed += [linear.weight, linear.bias]
    return listed


def layer_parameters(controller: Any) -> list[Any]:
    """Those of each layer of a standard controller, in the order of its class."""
    listed = []
    for layer in controller.layers:
        if type(layer) is nn.LSTMCell:
            listed += [layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh]
        else:
            listed += [layer.weight, layer.bias]
    return listed


def state_tensors(state: Any) -> list[Tensor] | None:
    """Hidden and cell (LSTM), memory, write weights, read weights, reads. None if it is not a standard cell's state."""
    if type(state) is not MemoryState or type(state.access) is not ReadWriteState:
        return None
    access = state.access
    for location in (access.write, access.read):
        if type(location) is not LocationState or location.inner is not None:
            return None
    if state.controller is not None and type(state.controller) is not LSTMState:
        return None
    return [
        *(state.controller or ()),
        access.memory,
        access.write.prev_weights,
        access.read.prev_weights,
        state.reads,
    ]


def state_of(tensors: list[Tensor]) -> MemoryState:
    """The state whose ``state_tensors`` these are."""
    *controller, memory, write_weights, read_weights, reads = tensors
    access = ReadWriteState(memory, LocationState(write_weights, None), LocationState(read_weights, None))
    return MemoryState(LSTMState(*controller) if controller else None, access, reads)


def fits_shapes(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether all is standard: the cell, the call, the shapes, and float32 tensors on the device of the inputs."""
    if not is_standard(cell) or not is_plain_call():
        return False
    states, sizes = state_tensors(state), sizes_of(cell)
    return fits_tensors(inputs, sizes.input, states, sizes.state_shapes, parameters(cell), sizes.parameter_shapes())


def fits_tensors(
    inputs: Tensor,
    input_size: int,
    states: list[Tensor] | None,
    state_shapes: Callable[[int], list[tuple[int, ...]]],
    listed: list[Any],
    shapes: list[tuple[int, ...]],
) -> bool:
    """Whether all are plain float32 tensors on the device of the inputs, of the shapes that a cell wants.

    Args:
        inputs: ``(batch, time, input)``.
        input_size: their width.
        states: the state's tensors; None if it is no state of this cell.
        state_shapes: their shapes for a batch size.
        listed: the parameters.
        shapes: their shapes.
    """
    return (
        states is not None
        and all(is_plain_tensor(x, inputs.device) for x in (inputs, *states, *listed))
        and inputs.dim() == 3
        and 0 not in inputs.shape
        and inputs.shape[2] == input_size
        and [tuple(x.shape) for x in states] == state_shapes(len(inputs))
        and [tuple(x.shape) for x in listed] == shapes
    )


def is_plain_call() -> bool:
    """No transformation of torch's looks at or changes the single operations, which a kernel does not have."""
    return not (
        torch.compiler.is_compiling()
        or torch.nn.modules.module._has_any_global_hook()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack() > 0
        or in_forward_mode()
    )


def is_standard_controller(controller: Any) -> bool:
    """Layers of the kind that its class makes, and no others."""
    layer_types = {LSTMController: nn.LSTMCell, FeedForwardController: nn.Linear}
    layer_type = layer_types.get(type(controller))
    return (
        layer_type is not None
        and len(controller.layers) == controller.num_layers
        and all(type(layer) is layer_type for layer in controller.layers)
    )


def _is_standard_addressing(addressing: Any) -> bool:
    return (
        type(addressing) is LocationAddressing
        and type(addressing.inner) is ContentAddressing
        and type(addressing.inner.score) is CosineScore
        and type(addressing.inner.normalizer) is Softmax
    )


def is_plain_tensor(x: Tensor | None, device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    """No subclass, and numbers of that type, on that device, laid out by strides."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype is dtype  # type: ignore[union-attr]
        and x.device == device  # type: ignore[union-attr]
        and x.layout is torch.strided  # type: ignore[union-attr]
    )


def _modules(cell: Any) -> Iterator[nn.Module]:
    """Those that take part in a step."""
    access = cell.access
    yield from (cell, cell.output, cell.controller, *cell.controller.layers, access, access.interface)
    for addressing in (access.write_addressing, access.read_addressing):
        content = addressing.inner
        yield from (addressing, content, content.score, content.normalizer)


_METHODS_OF_A_STEP = {"forward", "compare", "before_step", "kept", "after_write", "after_read"}


def is_watched(module: nn.Module) -> bool:
    """Somebody has to be called at each step, or has replaced the step."""
    return is_hooked(module) or not _METHODS_OF_A_STEP.isdisjoint(module.__dict__)
