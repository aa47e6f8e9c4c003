"""Addressing by usage: where the Differentiable Neural Computer writes what is new."""

from typing import Any, ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from memnet.addressing.base import Addressing
from memnet.checks import check_positive, check_size
from memnet.functional import SlotMask, in_full_precision, per_head
from memnet.functional_dnc import allocation, retention, usage_after_write


class AllocationState(NamedTuple):
    """What allocation remembers.

    Attributes:
        usage: u in [0, 1], how far each slot holds something that is still wanted.
        read_weights: where the read heads have read last, which the next step may free.
        retention: psi of this step, where freed slots are erased; else None.
        inner: what the addressing by content remembers.
    """

    usage: Float[Tensor, "batch slot"]
    read_weights: Float[Tensor, "batch read slot"]
    retention: Float[Tensor, "batch slot"] | None
    inner: Any


class AllocationAddressing(Addressing[AllocationState]):
    """w = g_w (g_a a + (1 - g_a) c): to the least used slots or by content (DNC, "Dynamic memory allocation").

    For write heads. A head emits what ``inner`` asks for, then the allocation gate g_a = sigmoid(.) and the write gate
    g_w = sigmoid(.); for each read head comes a free gate f = sigmoid(.), which belongs to no write head.

    Several write heads allocate one after the other: each as if the ones before it had written what they allocate.

    When all slots are used, allocation has nothing to give: weights come near 0, and so what does not fit in is not
    written, unless it is by content or the free gates let go of something.

    Args:
        inner: the addressing by content, c.
        num_read_heads: how many heads read the memory.
        erase_freed: whether the contents of freed slots are erased (de-allocation, Csordas and Schmidhuber 2019). In
            the Nature paper they stay, and are found by content until they are written over.

    Raises:
        ValueError: ``num_read_heads`` is not positive; in ``after_read``, if the memory has another number of them.
    """

    normalized: ClassVar[bool] = False

    def __init__(self, inner: Addressing, num_read_heads: int = 1, erase_freed: bool = False):
        super().__init__()
        self.inner = inner
        self.num_read_heads = check_positive("num_read_heads", num_read_heads)
        self.erase_freed = erase_freed

    @property
    def emit_size(self) -> int:
        return self.inner.emit_size + 2

    @property
    def emission_start(self) -> tuple[float, ...]:
        return (*self.inner.emission_start, 0.0, 0.0)

    @property
    def shared_emit_size(self) -> int:
        return self.num_read_heads + self.inner.shared_emit_size

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> AllocationState:
        usage = keys.new_zeros(keys.shape[:2])
        return AllocationState(
            usage,
            keys.new_zeros(keys.shape[0], self.num_read_heads, keys.shape[1]),
            torch.ones_like(usage) if self.erase_freed else None,
            self.inner.init_state(keys, num_heads),
        )

    def before_step(self, shared_emission: Float[Tensor, "batch shared"], state: AllocationState) -> AllocationState:
        free_gates, inner_shared = shared_emission.split([self.num_read_heads, self.inner.shared_emit_size], dim=-1)
        kept = retention(free_gates.sigmoid(), state.read_weights)
        return AllocationState(
            state.usage * kept,
            state.read_weights,
            kept if self.erase_freed else None,
            self.inner.before_step(inner_shared, state.inner),
        )

    def kept(self, state: AllocationState) -> Float[Tensor, "batch slot"] | None:
        inner = self.inner.kept(state.inner)
        if inner is None or state.retention is None:
            return state.retention if inner is None else inner
        return inner * state.retention

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: AllocationState,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], AllocationState]:
        inner_emission, gates = emission.split([self.inner.emit_size, 2], dim=-1)
        content, inner_state = self.inner(inner_emission, keys, state.inner, mask)
        weights = _write_weights(state.usage, content, gates, mask)
        return weights, state._replace(inner=inner_state)

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: AllocationState) -> AllocationState:
        return state._replace(
            usage=usage_after_write(state.usage, weights), inner=self.inner.after_write(weights, state.inner)
        )

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: AllocationState) -> AllocationState:
        check_size("num_read_heads", self.num_read_heads, "the memory's number of read heads", weights.shape[1])
        return state._replace(read_weights=weights, inner=self.inner.after_read(weights, state.inner))


@in_full_precision
def _write_weights(
    usage: Float[Tensor, "batch slot"],
    content: Float[Tensor, "batch head slot"],
    gates: Float[Tensor, "batch head 2"],
    mask: SlotMask | None,
) -> Float[Tensor, "batch head slot"]:
    allocation_gate, write_gate = gates.sigmoid().split(1, -1)
    num_heads = content.shape[1]
    masks = None if mask is None else per_head(mask).expand_as(content)
    allocated: list[Tensor] = []
    for head in range(num_heads):
        # A slot that may not be written to is as good as used.
        given = allocation(usage if masks is None else usage.masked_fill(~masks[:, head], 1))
        allocated.append(given)
        if head + 1 < num_heads:
            taken = allocation_gate[:, head] * write_gate[:, head] * given
            usage = usage_after_write(usage, rearrange(taken, "batch slot -> batch 1 slot"))
    return write_gate * torch.lerp(content, torch.stack(allocated, 1), allocation_gate)
