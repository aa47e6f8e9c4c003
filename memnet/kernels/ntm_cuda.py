"""The whole-sequence Neural Turing Machine on a GPU.

The recurrence is in ``ntm_triton_forward.py`` and ``ntm_triton_backward.py``: one launch for all steps of a forward and
one for all steps of a backward pass, a program for each batch item, whose memory stays in its registers. What is no
part of the recurrence is a product over all steps at once (see ``ntm_cuda_passes.py``).
"""

import importlib.util
import math
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.functional import NORM_EPS
from memnet.kernels import ntm_cuda_passes
from memnet.kernels.ntm_cell import fits_shapes, parameters, sizes_of, state_of, state_tensors
from memnet.kernels.ntm_cuda_passes import Call, Kept
from memnet.kernels.ntm_cuda_sizes import Sizes

DEVICE = "cuda"

MAX_MEMORY = 16384
"""Slots times width, both rounded up to powers of 2: three such matrices must have room in one multiprocessor."""

MAX_SHIFTS = 64

OLDEST_CAPABILITY = (7, 0)
"""Of a GPU: what Triton can compile for."""

_tried: dict[tuple[Sizes, torch.device], bool] = {}


def fits(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether ``run`` computes what the plain loop would, and can.

    Beyond ``MAX_MEMORY`` and ``MAX_SHIFTS`` it does not try. A GPU that Triton has no code for, or a failure of the
    first, small run are told in a warning, once.
    """
    if inputs.device.type != DEVICE or torch.is_autocast_enabled(DEVICE):
        return False
    if not fits_shapes(cell, inputs, state):
        return False
    sizes = Sizes(sizes_of(cell), cell.max_gradient is not None)
    if sizes.padded_memory > MAX_MEMORY or sizes.cell.shifts > MAX_SHIFTS or not _has_triton():
        return False
    return _works(sizes, inputs.device)


def run(cell: Any, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """``memnet.unroll`` for a cell that ``fits``."""
    tensors = [*(state_tensors(state) or ()), *parameters(cell)]
    batch, time, _ = inputs.shape
    call = Call(
        Sizes(sizes_of(cell), cell.max_gradient is not None),
        batch,
        time,
        padded=lengths is not None,
        segment=_segment(time),
        norm_eps=cell.access.read_addressing.inner.score.eps,
        max_gradient=math.inf if cell.max_gradient is None else cell.max_gradient,
        training=torch.is_grad_enabled() and any(x.requires_grad for x in (inputs, *tensors)),
    )
    if lengths is None:
        steps = torch.full((batch,), time, dtype=torch.int64, device=inputs.device)
    else:
        # A copy: the backward pass needs what it was.
        steps = lengths.detach().to(inputs.device, torch.int64, copy=True).contiguous()
    if call.training:
        outputs, *end = _Sequence.apply(call, steps, inputs, *tensors)
    else:
        outputs, end, _ = ntm_cuda_passes.forward(call, steps, inputs, tensors)
    return outputs, state_of(end)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, lengths: Tensor, inputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs, end, kept = ntm_cuda_passes.forward(call, lengths, inputs, tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        # Saved as tensors are, so that they are freed with the graph, and changed parameters are noticed.
        ctx.save_for_backward(*kept, *tensors[len(end) :])
        return outputs, *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_outputs: Tensor | None, *d_end: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(Kept._fields)
        kept, listed = Kept(*ctx.saved_tensors[:count]), ctx.saved_tensors[count:]
        return None, None, *ntm_cuda_passes.backward(ctx.call, kept, listed, d_outputs, d_end, ctx.needs_input_grad[2:])


def _segment(time: int) -> int:
    """The memory is kept before every so many-th step, and those between are written anew in the backward pass."""
    return max(1, round(time**0.5))


@cache
def _has_triton() -> bool:
    """On AMD's GPUs, which PyTorch calls "cuda" too, nobody has tried the kernels."""
    return torch.version.hip is None and importlib.util.find_spec("triton") is not None


def _works(sizes: Sizes, device: torch.device) -> bool:
    """Whether the kernels have run there, which is tried once: whatever is missing is missed before any real work."""
    if (sizes, device) not in _tried:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # a graph must not hold the attempt
        reason = _failure(sizes, device)
        if reason is not None:
            warnings.warn(
                f"The Neural Turing Machine runs without its GPU kernel, many times slower: {reason}. MEMNET_KERNELS=0 "
                "in the environment turns the attempt off.",
                stacklevel=2,
            )
        _tried[sizes, device] = reason is None
    return _tried[sizes, device]


def _failure(sizes: Sizes, device: torch.device) -> str | None:
    """Runs both kernels for one step."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST_CAPABILITY:
            needed = ".".join(map(str, OLDEST_CAPABILITY))
            return f"{torch.cuda.get_device_name(device)} is older than compute capability {needed}"
    cell = sizes.cell
    shapes = [*cell.state_shapes(1), *cell.parameter_shapes()]
    call = Call(sizes, 1, 1, padded=False, segment=1, norm_eps=NORM_EPS, max_gradient=1.0, training=True)
    try:
        with torch.no_grad():
            inputs, *tensors = (torch.zeros(shape, device=device) for shape in [(1, 1, cell.input), *shapes])
            lengths = torch.ones(1, dtype=torch.int64, device=device)
            ntm_cuda_passes.forward(call._replace(training=False), lengths, inputs, tensors)
            outputs, end, kept = ntm_cuda_passes.forward(call, lengths, inputs, tensors)
            ntm_cuda_passes.backward(call, kept, tensors[len(end) :], outputs, end, [True] * (1 + len(shapes)))
            # What goes wrong on a GPU is only told when it is waited for.
            outputs.tolist()
    except Exception as error:  # of the compiler, of the one that it calls, of the driver: each has its own
        reason = next(iter(str(error).strip().splitlines()), "")
        return f"{type(error).__name__}: {reason}".rstrip(" .:")
    return None
