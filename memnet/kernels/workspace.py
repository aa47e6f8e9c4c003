"""Memory that kernels work in, used again and again.

A fresh block of this size comes from the system page by page, and clearing the pages takes as long as the work itself.
"""

import weakref

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

KEPT_BYTES = 512 * 2**20
"""No more than this is held while nobody uses it."""

_ALIGNMENT = 16  # floats: the widest vector, and a cache line

_free: dict[int, np.ndarray] = {}


def floats(count: int) -> Float[Tensor, " count"]:
    """Uninitialised numbers that begin on a cache line; their memory returns here when no tensor uses it any more."""
    block = _take(count + _ALIGNMENT)
    start = -block.ctypes.data // block.itemsize % _ALIGNMENT
    view = block[start : start + count]
    weakref.finalize(view, _give_back, block).atexit = False
    return torch.from_numpy(view)


def _take(count: int) -> np.ndarray:
    fitting = [block for block in list(_free.values()) if block.size >= count]
    for block in sorted(fitting, key=len):
        # Another thread may have been faster.
        if _free.pop(id(block), None) is not None:
            return block
    if _free:
        _free.popitem()  # too small by now
    # Sequences differ in length: a little more, so that the next longer one fits as well.
    return np.empty(count + count // 8, np.float32)


def _give_back(block: np.ndarray) -> None:
    if sum(other.nbytes for other in list(_free.values())) + block.nbytes <= KEPT_BYTES:
        _free[id(block)] = block
