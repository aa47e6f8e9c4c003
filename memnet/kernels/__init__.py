"""Whole-sequence kernels: the same numbers as the plain loop of ``memnet.unroll``, many times faster.

``find`` says whether a kernel fits a cell; ``unroll`` asks it and takes the plain loop otherwise. Nothing has to be
switched on. ``MEMNET_KERNELS=0`` in the environment or the block ``with memnet.kernels.disabled():`` switches them off.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from memnet.kernels import dnc_cpu, entity_network, link_cpu, memn2n_cpu, ntm_cpu, ntm_cuda, sam_cpu

Kernel = Callable[[Any, Tensor, Any, Tensor | None], tuple[Tensor, Any]]

_switched_off: ContextVar[bool] = ContextVar("memnet.kernels.disabled", default=False)


@contextmanager
def disabled() -> Iterator[None]:
    """Takes the plain loop within the block, as when comparing the two."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def find(cell: Any, inputs: Tensor, state: Any) -> Kernel | None:
    """The kernel that can run ``cell`` over ``inputs`` from ``state``, or None for the plain loop.

    There is one for the Neural Turing Machine on the CPU and one on NVIDIA GPUs: for a ``MemoryCell`` of an
    ``LSTMController`` or ``FeedForwardController`` and a ``ReadWriteAccess`` whose heads all use ``LocationAddressing``
    around ``ContentAddressing(CosineScore, Softmax)``, in float32. There is one for the Differentiable Neural Computer
    on the CPU: for such a cell, also with a ``NormalizedController`` or ``BypassedOutput``, whose read heads use
    ``LinkAddressing`` and whose write heads use ``AllocationAddressing``, both around ``ContentAddressing(CosineScore,
    Softmax)`` or both with ``MaskedCosineScore``, with all their options. There is one for sparse access memory on the
    CPU: for a ``MemoryCell`` of an ``LSTMController`` or ``FeedForwardController`` and a ``SparseAccess`` or
    ``LinkedSparseAccess`` with ``ExactSearch``, without ``max_gradient``.

    They step aside for anything else: a subclass (its equations may be others), another dtype, hooks (somebody watches
    the steps), autocast, compilation, ``torch.func``. So they do where no C++ compiler is found, or the GPU's kernel
    does not run, after one warning.

    Slots that are used alike but for a rounding change places in the Differentiable Neural Computer's allocation when
    they are rounded otherwise, and so do numbers that follow from it: between kernel and plain loop as between any two
    machines.

    The GPU's kernel needs Triton (which comes with PyTorch for CUDA) and takes memories of up to
    ``ntm_cuda.MAX_MEMORY`` numbers and ``ntm_cuda.MAX_SHIFTS`` shifts. It is compiled when it is first used.

    Returns:
        A function ``(cell, inputs, state, lengths) -> (outputs, state)``.
    """
    if _switched_off.get() or os.environ.get("MEMNET_KERNELS") == "0":
        return None
    for kernel in (ntm_cpu, ntm_cuda, dnc_cpu, sam_cpu):
        if kernel.fits(cell, inputs, state):
            return kernel.run
    return None


def find_memory_network(model: Any, *inputs: Tensor) -> Callable[..., Tensor] | None:
    """The kernel that can run ``model`` on a story and a question, or None for the model's own operations.

    There is one, for ``MemN2N`` on the CPU with ``BagOfWords`` or ``PositionEncoding``, ``Softmax`` or ``LateSoftmax``,
    no activation or ``torch.nn.ReLU``, in float32; also for all members of an ``Ensemble`` at once. It steps aside
    where ``find`` says.

    Returns:
        A function ``(model, story, question, noise) -> logits``.
    """
    if _switched_off.get() or os.environ.get("MEMNET_KERNELS") == "0":
        return None
    return memn2n_cpu.run if len(inputs) == 2 and memn2n_cpu.fits(model, *inputs) else None


def find_link(*tensors: Tensor) -> Any:
    """What takes a step of the DNC's temporal link forwards and backwards, or None for torch's own operations.

    There is one, in float32 on the CPU. It steps aside for compilation and ``torch.func``.

    Returns:
        A module with ``step`` and ``step_back``.
    """
    if _switched_off.get() or os.environ.get("MEMNET_KERNELS") == "0":
        return None
    return link_cpu if link_cpu.fits(*tensors) else None


def find_entity_network(model: Any) -> Callable[[Any, Tensor, Tensor], Tensor] | None:
    """What runs a ``memnet.EntityNetwork`` on any device, or None for the model's own loop.

    On the CPU, in float32, the whole network is one kernel but for autocast and for parts in place of its own. It steps
    aside for hooks (somebody watches the steps), another gate, compilation and ``torch.func``.

    Returns:
        A function ``(model, story, question) -> logits``.
    """
    if _switched_off.get() or os.environ.get("MEMNET_KERNELS") == "0":
        return None
    return entity_network.run if entity_network.fits(model) else None
