"""The memory of a recurrent entity network on the CPU; the arithmetic is in ``entity_cpu.cpp``."""

import ctypes
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from memnet.kernels import build, workspace

if TYPE_CHECKING:
    from memnet.kernels.entity_network import Packed

SOURCE = "entity_cpu.cpp"

_LANES = 16  # floats of the widest vector; the C++ may need less room


class _Sizes(ctypes.Structure):
    """As the C++ ``Sizes``."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("questions", "steps", "slots", "width", "kept", "threads"))


class _Inputs(ctypes.Structure):
    """As the C++ ``Inputs``."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("counts", "ends", "start", "told", "from_told", "scores", "from_keys", "recurrent", "slopes")
    )


class _Gradients(ctypes.Structure):
    """As the C++ ``Gradients``."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("start", "told", "scores", "from_keys", "from_told", "recurrent", "slopes")
    )


def fits(*tensors: Tensor) -> bool:
    """Whether ``run`` takes these: plain numbers in float32 on the CPU.

    Args:
        tensors: all that ``run`` is given.
    """
    return (
        all(type(x) in (Tensor, nn.Parameter) and x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)
        and build.load(SOURCE) is not None
    )


def run(*arguments: Any) -> Tensor:
    """What ``memnet.kernels.entity_network.Recurrence`` computes, with the same arguments."""
    memories: Tensor = _Recurrence.apply(*arguments, torch.is_grad_enabled())
    return memories


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        told: Tensor,
        scores: Tensor,
        from_keys: Tensor,
        from_told: Tensor,
        recurrent: Tensor,
        slopes: Tensor,
        packed: "Packed",
        graded: bool,
    ) -> Tensor:
        tensors = [x.contiguous() for x in (start, told, from_told, scores, from_keys, recurrent, slopes)]
        slots, width = start.shape
        kept = graded and any(ctx.needs_input_grad)
        sizes = _Sizes(
            questions=len(packed.ends),
            steps=len(packed.sizes) - 1,
            slots=slots,
            width=width,
            kept=kept,
            threads=max(1, min(torch.get_num_threads(), packed.sizes[0])),
        )
        numbers = 2 * slots * -(-width // _LANES) * _LANES + 2 * -(-slots // _LANES) * _LANES
        history = workspace.floats(len(told) * numbers if kept else 0)
        memories = start.new_empty(len(packed.ends), slots, width)
        ctx.sizes, ctx.counts = sizes, torch.tensor(packed.sizes)
        _invoke("forward", sizes, _inputs(ctx.counts, packed.ends, tensors), history, memories)
        if kept:
            ctx.save_for_backward(history, packed.ends, *tensors)
        return memories

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_memories: Tensor) -> tuple[Tensor | None, ...]:
        history, ends, *tensors = ctx.saved_tensors
        start, told, from_told, scores, from_keys, recurrent, slopes = map(torch.empty_like, tensors)
        gradients = start, told, scores, from_keys, from_told, recurrent, slopes
        _invoke(
            "backward",
            ctx.sizes,
            _inputs(ctx.counts, ends, tensors),
            history,
            by_memories.contiguous(),
            ctypes.byref(_Gradients(*[x.data_ptr() for x in gradients])),
        )
        return *gradients, None, None


def _inputs(counts: Tensor, ends: Tensor, tensors: list[Tensor]) -> _Inputs:
    return _Inputs(*[x.data_ptr() for x in (counts, ends, *tensors)])


def _invoke(name: str, sizes: _Sizes, inputs: _Inputs, *others: Any) -> None:
    addresses = [ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in others]
    function = getattr(build.load(SOURCE), f"memnet_entity_{name}")
    if function(ctypes.byref(sizes), ctypes.byref(inputs), *addresses):
        raise MemoryError("The kernel of the recurrent entity network ran out of memory.")
