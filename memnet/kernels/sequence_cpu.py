"""Whole sequences on the CPU: what the kernels of all cells have in common.

The arithmetic is in C++: one call for a forward and one for a backward pass (``cell_calls.h``).
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.kernels import build, workspace
from memnet.sparse_search import untouched_zeros


def fits(source: str, fits_shapes: Callable[[Any, Tensor, Any], bool], cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether a kernel computes what the plain loop would.

    Args:
        source: its C++ file.
        fits_shapes: whether cell, inputs and state are what it is for.
        cell: as for ``memnet.unroll``, like what follows.
        inputs: its inputs.
        state: its first state.
    """
    if inputs.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return fits_shapes(cell, inputs, state) and build.load(source) is not None


def segment(time: int) -> int:
    """What a step changes is kept before every so many-th step, and made anew between them in the backward pass.

    That takes less memory than to keep it all, and also less time: it would have to come from far away (for the links
    of copy, 32 sequences and 128 slots, a third more time and 100 MB).
    """
    return round(time**0.5)


def num_threads(batch: int, items_per_thread: int) -> int:
    """How many threads to share the batch out among.

    Args:
        batch: how many sequences.
        items_per_thread: fewer are not worth a thread.
    """
    return max(1, min(torch.get_num_threads(), batch // items_per_thread))


class Call(NamedTuple):
    """What a forward pass and its backward pass have in common.

    Attributes:
        source: the C++ file.
        name: the cell's, as in the names of its functions.
        sizes: whatever the C++ calls so, in its order.
        numbers: the same of numbers that are no sizes.
        batch: how many sequences.
        time: how many steps.
        input: width of the inputs.
        output: width of the outputs.
        state_shapes: of the state's tensors.
        lengths: how many steps of each sequence are real.
        training: whether there will be a backward pass.
        zeroed: which of the state's final tensors are handed over as zeros, which take room only where they are written
            (see ``memnet.sparse_search.untouched_zeros``).
    """

    source: str
    name: str
    sizes: tuple[int, ...]
    numbers: tuple[float, ...]
    batch: int
    time: int
    input: int
    output: int
    state_shapes: list[tuple[int, ...]]
    lengths: Tensor | None
    training: bool
    zeroed: frozenset[int] = frozenset()

    def arguments(self) -> tuple[Any, ...]:
        """Sizes, numbers and lengths."""
        sizes, numbers = self.sizes, self.numbers
        return (
            (ctypes.c_int64 * len(sizes))(*map(int, sizes)),
            (ctypes.c_float * len(numbers))(*numbers),
            _address(self.lengths),
        )

    def invoke(self, function: str, *arguments: Any) -> None:
        if getattr(build.load(self.source), f"memnet_{self.name}_{function}")(*arguments):
            raise MemoryError(f"The kernel {self.source} ran out of memory.")


def run(call: Call, inputs: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the tensors of the final state.

    Args:
        call: what is to be done.
        inputs: ``(batch, time, input)``.
        tensors: those of the state, then the parameters.
    """
    if call.training:
        outputs, *end = _Sequence.apply(call, inputs, *tensors)
    else:
        outputs, end, _, _ = _forward(call, inputs, tensors)
    return outputs, end


def needs_gradients(*tensors: Tensor) -> bool:
    """Whether there will be a backward pass."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def own_lengths(lengths: Tensor | None) -> Tensor | None:
    """A copy: the backward pass needs what they were."""
    return None if lengths is None else lengths.detach().to("cpu", torch.int64, copy=True).contiguous()


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, end, kept, ctx.scratch_size = _forward(call, inputs, tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(x for x in end if not x.is_floating_point()))
        # Saved as tensors are, so that they are freed with the graph, and changed parameters are noticed.
        ctx.save_for_backward(kept, *tensors[len(end) :])
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        kept, *listed = ctx.saved_tensors
        _, inputs_wanted, *wanted = ctx.needs_input_grad
        states_wanted, listed_wanted = wanted[: len(d_end)], wanted[len(d_end) :]
        d_inputs = kept.new_empty(call.batch, call.time, call.input) if inputs_wanted else None
        shapes = call.state_shapes
        d_states = [kept.new_empty(x) if want else None for x, want in zip(shapes, states_wanted, strict=True)]
        d_listed = [kept.new_empty(x.shape) for x in listed]
        scratch = workspace.floats(ctx.scratch_size)
        # Named, so that copies live until the call is over.
        d_outputs, *d_end_rows = (None if d is None else d.contiguous() for d in (d_outputs, *d_end))
        listed = [x.contiguous() for x in listed]
        call.invoke(
            "backward",
            *call.arguments(),
            _addresses(listed),
            _address(d_outputs),
            _addresses(d_end_rows),
            _address(d_inputs),
            _addresses(d_states),
            _addresses(d_listed) if any(listed_wanted) else None,
            _address(kept),
            _address(scratch),
        )
        d_wanted = [d if want else None for d, want in zip(d_listed, listed_wanted, strict=True)]
        return None, d_inputs, *d_states, *d_wanted


def _forward(call: Call, inputs: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor, int]:
    """Outputs, the final state's tensors, what the backward pass needs, and how many floats of scratch it needs."""
    inputs = inputs.contiguous()
    tensors = [x.contiguous() for x in tensors]
    arguments = call.arguments()
    floats = (ctypes.c_int64 * 3)()
    call.invoke("plan", arguments[0], arguments[2], floats)
    kept_size, scratch_size, backward_scratch_size = floats
    kept, scratch = workspace.floats(kept_size), workspace.floats(scratch_size)
    outputs = inputs.new_empty(call.batch, call.time, call.output)
    end = [
        untouched_zeros(shape, x.dtype, x.device) if i in call.zeroed else x.new_empty(shape)
        for i, (shape, x) in enumerate(zip(call.state_shapes, tensors, strict=False))
    ]
    call.invoke(
        "forward",
        *arguments,
        _addresses(tensors[len(end) :]),
        _address(inputs),
        _addresses(tensors[: len(end)]),
        _address(outputs),
        _addresses(end),
        _address(kept),
        _address(scratch),
    )
    return outputs, end, kept, backward_scratch_size


def _address(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])
