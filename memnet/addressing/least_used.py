"""Addressing by least recent use: where a memory-augmented network writes (MANN)."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from memnet.addressing.base import Addressing
from memnet.checks import check_fraction
from memnet.functional import SlotMask, in_full_precision, per_head


class LeastUsedState(NamedTuple):
    """What least recent use remembers.

    Attributes:
        usage: w_u, how much each slot was read and written, the longer ago the less.
        read_weights: where was read last, for each head of this side.
        erased: what this step erases before it writes.
    """

    usage: Float[Tensor, "batch slot"]
    read_weights: Float[Tensor, "batch head slot"]
    erased: Bool[Tensor, "batch slot"]


class LeastUsedAddressing(Addressing[LeastUsedState]):
    """w_w = sigmoid(alpha) w_r,t-1 + (1 - sigmoid(alpha)) w_lu: where was read last, or where nothing is wanted.

    For write heads (Santoro et al. 2016, "Meta-learning with memory-augmented neural networks", sec. 3.2, eq. 5 to 8;
    https://arxiv.org/abs/1605.06065). A head emits alpha. Usage decays and grows, w_u = gamma w_u,t-1 + w_r + w_w, and
    the least used slots are erased before the write.

    Each head has a least used slot to itself, the h-th the h-th least used (the first of equals), and starts over where
    there are more heads than slots. It writes where the read head of its number has read, or, where there are not as
    many of them, at the mean of all. What previous reads leave of the weight, at the first step all of it, goes to the
    least used slot. When all slots are used, the least used one is overwritten: nothing limits a sequence's length.

    Args:
        decay: gamma in [0, 1), what of a step's usage is left a step later.

    Raises:
        ValueError: ``decay`` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.99):
        super().__init__()
        self.decay = check_fraction("decay", decay)

    @property
    def emit_size(self) -> int:
        return 1

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> LeastUsedState:
        usage = keys.new_zeros(keys.shape[:2])
        weights = keys.new_zeros(keys.shape[0], num_heads, keys.shape[1])
        return LeastUsedState(usage, weights, torch.zeros_like(usage, dtype=torch.bool))

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: LeastUsedState,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], LeastUsedState]:
        least = least_used(state.usage, emission.shape[1], mask)
        weights = _interpolate(emission.sigmoid(), state.read_weights, least, mask)
        return weights, state._replace(erased=least.bool().any(1))

    def kept(self, state: LeastUsedState) -> Float[Tensor, "batch slot"]:
        return (~state.erased).to(state.usage.dtype)

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: LeastUsedState) -> LeastUsedState:
        return state._replace(usage=self.decay * state.usage + weights.sum(1))

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: LeastUsedState) -> LeastUsedState:
        usage = state.usage + weights.sum(1)
        if weights.shape[1] != state.read_weights.shape[1]:
            weights = weights.mean(1, keepdim=True).expand_as(state.read_weights)
        return state._replace(usage=usage, read_weights=weights)


@in_full_precision
def least_used(
    usage: Float[Tensor, "batch slot"], num_heads: int, mask: SlotMask | None = None
) -> Float[Tensor, "batch head slot"]:
    """w_lu: for head h, 1 on the h-th least used slot (MANN eq. 6); all 0 where no slot is left."""
    # A stable order: of slots that were never used, the first ones, on every device.
    if mask is None:
        order = usage.argsort(dim=1, stable=True)
        chosen = order[:, torch.arange(num_heads, device=order.device) % usage.shape[1]]
        return torch.nn.functional.one_hot(chosen, usage.shape[1]).to(usage.dtype)
    masks = per_head(mask).expand(-1, num_heads, -1)
    order = rearrange(usage, "batch slot -> batch 1 slot").masked_fill(~masks, torch.inf).argsort(dim=2, stable=True)
    rank = torch.arange(num_heads, device=order.device) % masks.sum(2).clamp_min(1)
    chosen = order.gather(2, rearrange(rank, "batch head -> batch head 1")).squeeze(2)
    return torch.nn.functional.one_hot(chosen, usage.shape[1]).to(usage.dtype) * masks


@in_full_precision
def _interpolate(
    gate: Float[Tensor, "batch head 1"],
    prev_weights: Float[Tensor, "batch head slot"],
    least: Float[Tensor, "batch head slot"],
    mask: SlotMask | None,
) -> Float[Tensor, "batch head slot"]:
    """MANN eq. 7, whatever the previous weights sum to."""
    if mask is not None:
        prev_weights = prev_weights * per_head(mask)
    repeated = gate * prev_weights
    return repeated + (1 - repeated.sum(-1, keepdim=True)) * least
