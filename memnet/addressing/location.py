"""Addressing by location: gate, shift and sharpen around any other addressing (the Neural Turing Machine's)."""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from memnet.addressing.base import Addressing
from memnet.checks import check_odd
from memnet.functional import SlotMask, circular_shift, interpolate, sharpen
from memnet.starts import FirstSlot, WeightsStart


class LocationState(NamedTuple):
    """What location addressing remembers."""

    prev_weights: Float[Tensor, "batch head slot"]
    inner: Any


class LocationAddressing(Addressing[LocationState]):
    """Content first, then gate, circular shift and sharpening (NTM sec. 3.3.2, eq. 7 to 9).

    A head emits what ``inner`` asks for, then the gate g = sigmoid(.), the shift weighting s = softmax(.) and the
    sharpening gamma = 1 + softplus(.).

    Args:
        inner: the addressing whose weights are moved.
        num_shifts: how many shifts are allowed, odd; 3 means -1, 0 and 1. May exceed the number of slots.
        start: the weights before the first step; all on slot 0 by default.

    Raises:
        ValueError: ``num_shifts`` is not a positive odd number.
    """

    def __init__(self, inner: Addressing, num_shifts: int = 3, start: WeightsStart | None = None):
        super().__init__()
        self.inner = inner
        self.num_shifts = check_odd("num_shifts", num_shifts)
        self.start = start if start is not None else FirstSlot()

    @property
    def emit_size(self) -> int:
        return self.inner.emit_size + 1 + self.num_shifts + 1

    @property
    def emission_start(self) -> tuple[float, ...]:
        return self.inner.emission_start + (0.0,) * (1 + self.num_shifts + 1)

    @property
    def shared_emit_size(self) -> int:
        return self.inner.shared_emit_size

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> LocationState:
        return LocationState(self.start(keys, num_heads), self.inner.init_state(keys, num_heads))

    def before_step(self, shared_emission: Float[Tensor, "batch shared"], state: LocationState) -> LocationState:
        return state._replace(inner=self.inner.before_step(shared_emission, state.inner))

    def kept(self, state: LocationState) -> Float[Tensor, "batch slot"] | None:
        return self.inner.kept(state.inner)

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: LocationState,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], LocationState]:
        sizes = [self.inner.emit_size, 1, self.num_shifts, 1]
        inner_emission, gate, shift, sharpening = emission.split(sizes, dim=-1)
        weights, inner_state = self.inner(inner_emission, keys, state.inner, mask)
        weights = interpolate(weights, state.prev_weights, gate.sigmoid())
        weights = circular_shift(weights, shift.softmax(-1))
        weights = sharpen(weights, 1 + F.softplus(sharpening), mask)
        return weights, LocationState(weights, inner_state)

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: LocationState) -> LocationState:
        return state._replace(inner=self.inner.after_write(weights, state.inner))

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: LocationState) -> LocationState:
        return state._replace(inner=self.inner.after_read(weights, state.inner))
