"""The temporal link's step on the CPU; the arithmetic is in ``dnc_link.cpp``, one pass over each matrix."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from memnet.kernels import build, workspace
from memnet.kernels.ntm_cell import is_plain_call

SOURCE = "dnc_link.cpp"

_NUMBERS_PER_THREAD = 2**18
"""A thread is not worth its start for less of the link than this."""


def fits(*tensors: Tensor) -> bool:
    """Whether ``step`` takes these: plain numbers in float32 on the CPU."""
    return (
        all(type(x) is Tensor and x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)
        and tensors[0].numel() > 0
        and is_plain_call()
        and build.load(SOURCE) is not None
    )


def step(link: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor) -> tuple[Tensor, ...]:
    """New link and precedence, backward and forward weights."""
    given = [x.contiguous() for x in (link, precedence, write_weights, read_weights)]
    batch, num_writes, num_slots = write_weights.shape
    followed = batch, num_writes, read_weights.shape[1], num_slots
    results = [_like(link), torch.empty_like(given[1]), link.new_empty(followed), link.new_empty(followed)]
    _library().memnet_link_forward(_sizes(given), _addresses([*given, *results]))
    return tuple(results)


def step_back(saved: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """The gradients by what ``step`` was given.

    Args:
        saved: what ``step`` was given, and the new link, which is made of it once more.
        gradients: by what ``step`` has returned.
    """
    given = [x.contiguous() for x in saved[:4]]
    # Named, so that copies live until the call is over.
    of_results = [None if x is None else x.contiguous() for x in gradients]
    link, precedence, write_weights, read_weights = given
    by_write_head = link.new_empty(*write_weights.shape[:2], *read_weights.shape[1:])
    results = [_like(link), torch.empty_like(precedence), torch.empty_like(write_weights), by_write_head]
    _library().memnet_link_backward(_sizes(given), _addresses([*given, *of_results, *results]))
    return *results[:3], by_write_head.sum(1)


def _like(link: Tensor) -> Tensor:
    return workspace.floats(link.numel()).view(link.shape)


def _library() -> ctypes.CDLL:
    library = build.load(SOURCE)
    assert library is not None
    return library


def _sizes(given: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int64]:
    """As the C++ ``Sizes``."""
    link, read_weights = given[0], given[3]
    batch, num_writes, num_slots, _ = link.shape
    threads = max(1, min(torch.get_num_threads(), link.numel() // _NUMBERS_PER_THREAD))
    return (ctypes.c_int64 * 5)(batch, num_writes, read_weights.shape[1], num_slots, threads)


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array[ctypes.c_void_p]:
    """As the C++ ``Forward`` and ``Backward``."""
    return (ctypes.c_void_p * len(tensors))(*(None if x is None else x.data_ptr() for x in tensors))
