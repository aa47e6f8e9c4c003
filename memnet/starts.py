"""What a memory and its heads start from at the beginning of each sequence.

The choice decides whether a Neural Turing Machine learns at all: Collier and Beel, "Implementing Neural Turing
Machines" (2018), https://arxiv.org/abs/1807.08518, compare the memory's starts.
"""

import abc

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from memnet.checks import check_positive, check_size


class MemoryStart(nn.Module, abc.ABC):
    """The memory before the first step."""

    @abc.abstractmethod
    def forward(self, batch_size: int, num_slots: int, slot_size: int, like: Tensor) -> Float[Tensor, "batch slot val"]:
        """A memory with the dtype and device of ``like``."""


class ConstantMemory(MemoryStart):
    """Every number of the memory starts as ``value``: 1e-6 in Collier and Beel 2018, the fastest start they found.

    Args:
        value: any finite number.
    """

    def __init__(self, value: float = 1e-6):
        super().__init__()
        self.value = value

    def forward(self, batch_size: int, num_slots: int, slot_size: int, like: Tensor) -> Float[Tensor, "batch slot val"]:
        return like.new_full((batch_size, num_slots, slot_size), self.value)


class LearnedMemory(MemoryStart):
    """The memory starts as a learned parameter, the same for every sequence (Graves et al. 2014, sec. 4).

    Args:
        num_slots: N of the memory this is for.
        slot_size: W of the memory this is for.
        std: standard deviation of the parameter's own start, at least 0.

    Raises:
        ValueError: a size is not positive; in forward, if the memory has another size.
    """

    def __init__(self, num_slots: int, slot_size: int, std: float = 0.1):
        super().__init__()
        shape = check_positive("num_slots", num_slots), check_positive("slot_size", slot_size)
        self.memory = nn.Parameter(std * torch.randn(shape))

    def forward(self, batch_size: int, num_slots: int, slot_size: int, like: Tensor) -> Float[Tensor, "batch slot val"]:
        check_size("memory_start.num_slots", self.memory.shape[0], "the memory's num_slots", num_slots)
        check_size("memory_start.slot_size", self.memory.shape[1], "the memory's slot_size", slot_size)
        return repeat(self.memory, "slot val -> batch slot val", batch=batch_size)


class RandomMemory(MemoryStart):
    """Every sequence starts from fresh Gaussian noise. Collier and Beel 2018 could not solve copy with it.

    Args:
        std: standard deviation, at least 0.
    """

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.std = std

    def forward(self, batch_size: int, num_slots: int, slot_size: int, like: Tensor) -> Float[Tensor, "batch slot val"]:
        noise = torch.randn(batch_size, num_slots, slot_size, dtype=like.dtype, device=like.device)
        return self.std * noise


class WeightsStart(nn.Module, abc.ABC):
    """A head's weights before the first step."""

    @abc.abstractmethod
    def forward(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> Float[Tensor, "batch head slot"]:
        """Weights over the slots of ``keys`` that sum to 1 for each head."""


class FirstSlot(WeightsStart):
    """All weight on slot 0. Fits a memory of any size."""

    def forward(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> Float[Tensor, "batch head slot"]:
        weights = keys.new_zeros(keys.shape[0], num_heads, keys.shape[1])
        weights[..., 0] = 1
        return weights


class LearnedWeights(WeightsStart):
    """The softmax of learned numbers, the same for every sequence (Graves et al. 2014, sec. 4).

    They start with most weight on slot 0: nearly uniform weights over equal slots are close to a saddle point, where a
    shift changes nothing, and copy was not learned from there.

    Args:
        num_heads: how many heads this is for.
        num_slots: N of the memory this is for.
        peak: slot 0's number at the start, the others being 0; 5 gives it 54% of 128 slots' weight.

    Raises:
        ValueError: a size is not positive; in forward, if heads or slots are others.
    """

    def __init__(self, num_heads: int, num_slots: int, peak: float = 5.0):
        super().__init__()
        shape = check_positive("num_heads", num_heads), check_positive("num_slots", num_slots)
        self.logits = nn.Parameter(torch.zeros(shape))
        with torch.no_grad():
            self.logits[:, 0] = peak

    def forward(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> Float[Tensor, "batch head slot"]:
        check_size("start.num_heads", self.logits.shape[0], "the access's number of heads", num_heads)
        check_size("start.num_slots", self.logits.shape[1], "the memory's num_slots", keys.shape[1])
        return repeat(self.logits.softmax(-1), "head slot -> batch head slot", batch=keys.shape[0])
