"""The whole-sequence Neural Turing Machine on the CPU.

The arithmetic is in ``ntm_cpu.cpp`` and the headers beside it: one C call for a forward and one for a backward pass.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.functional import SHARPEN_EPS
from memnet.kernels import build, workspace
from memnet.kernels.ntm_cell import CellSizes, fits_shapes, parameters, sizes_of, state_of, state_tensors

SOURCE = "ntm_cpu.cpp"

ITEMS_PER_THREAD = 16
"""Fewer batch items than this are not worth a thread: copy at batch 4 trained 1.4 times as fast on one of two cores."""


class _Call(NamedTuple):
    """What a forward pass and its backward pass have in common."""

    cell: CellSizes
    batch: int
    time: int
    lengths: Tensor | None
    norm_eps: float
    max_gradient: float
    training: bool
    segment: int
    threads: int

    def state_shapes(self) -> list[tuple[int, ...]]:
        return self.cell.state_shapes(self.batch)

    def arguments(self) -> tuple[Any, ...]:
        """The sizes in the order of the C++ ``Sizes``, the numbers in that of ``Problem``, the lengths."""
        sizes = (self.batch, self.time, *self.cell, self.training, self.segment, self.threads)
        numbers = (self.norm_eps, SHARPEN_EPS, self.max_gradient)
        return (ctypes.c_int64 * len(sizes))(*sizes), (ctypes.c_float * 3)(*numbers), _address(self.lengths)


def fits(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether ``run`` computes what the plain loop would."""
    if inputs.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return fits_shapes(cell, inputs, state) and build.load(SOURCE) is not None


def run(cell: Any, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """``memnet.unroll`` for a cell that ``fits``."""
    tensors = [*(state_tensors(state) or ()), *parameters(cell)]
    batch, time, _ = inputs.shape
    call = _Call(
        sizes_of(cell),
        batch,
        time,
        # A copy: the backward pass needs what it was.
        lengths=None if lengths is None else lengths.detach().to("cpu", torch.int64, copy=True).contiguous(),
        norm_eps=cell.access.read_addressing.inner.score.eps,
        max_gradient=math.inf if cell.max_gradient is None else cell.max_gradient,
        training=torch.is_grad_enabled() and any(x.requires_grad for x in (inputs, *tensors)),
        segment=_segment(time),
        threads=max(1, min(torch.get_num_threads(), batch // ITEMS_PER_THREAD)),
    )
    if call.training:
        outputs, *end = _Sequence.apply(call, inputs, *tensors)
    else:
        outputs, end, _, _ = _forward(call, inputs, tensors)
    return outputs, state_of(end)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, end, kept, ctx.scratch_size = _forward(call, inputs, tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        # Saved as tensors are, so that they are freed with the graph, and changed parameters are noticed.
        ctx.save_for_backward(kept, *tensors[len(end) :])
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        kept, *listed = ctx.saved_tensors
        _, inputs_wanted, *wanted = ctx.needs_input_grad
        states_wanted, listed_wanted = wanted[: len(d_end)], wanted[len(d_end) :]
        d_inputs = kept.new_empty(call.batch, call.time, call.cell.input) if inputs_wanted else None
        shapes = call.state_shapes()
        d_states = [kept.new_empty(x) if want else None for x, want in zip(shapes, states_wanted, strict=True)]
        d_listed = [kept.new_empty(x.shape) for x in listed]
        scratch = workspace.floats(ctx.scratch_size)
        # Named, so that copies live until the call is over.
        d_outputs, *d_end_rows = (None if d is None else d.contiguous() for d in (d_outputs, *d_end))
        listed = [x.contiguous() for x in listed]
        _invoke(
            "memnet_ntm_backward",
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


def _forward(call: _Call, inputs: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor, int]:
    """Outputs, the final state's tensors, what the backward pass needs, and how many floats of scratch it needs."""
    inputs = inputs.contiguous()
    tensors = [x.contiguous() for x in tensors]
    arguments = call.arguments()
    floats = (ctypes.c_int64 * 3)()
    _invoke("memnet_ntm_plan", arguments[0], arguments[2], floats)
    kept_size, scratch_size, backward_scratch_size = floats
    kept, scratch = workspace.floats(kept_size), workspace.floats(scratch_size)
    outputs = inputs.new_empty(call.batch, call.time, call.cell.output)
    end = [inputs.new_empty(shape) for shape in call.state_shapes()]
    _invoke(
        "memnet_ntm_forward",
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


def _segment(time: int) -> int:
    """The memory is kept before every so many-th step, and those between are written anew in the backward pass.

    That takes less memory than to keep them all, and also less time: they would have to come from far away.
    """
    return round(time**0.5)


def _address(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if x is None else x.data_ptr() for x in tensors])


def _invoke(name: str, *arguments: Any) -> None:
    if getattr(build.load(SOURCE), name)(*arguments):
        raise MemoryError("The kernel of the Neural Turing Machine ran out of memory.")
