"""Local attention: only the slots near a position are looked at (Luong, Pham and Manning 2015, sec. 3.2).

Slots are counted from 0, over those that exist: a slot's place s is the number of unmasked slots before it, the
sequence's length S the number of them all. So it does not matter how long, or on which side, a sequence is padded.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.addressing.base import Addressing
from memnet.checks import check_greater_than_zero, check_positive
from memnet.functional import SlotMask, in_full_precision, per_head


class LocalState(NamedTuple):
    """What local attention remembers.

    Attributes:
        step: t, the target position that each head asks for next: how many it has asked for so far.
        inner: what the addressing within the window remembers.
    """

    step: Int64[Tensor, "batch head"]
    inner: Any


class LocalAddressing(Addressing[LocalState], abc.ABC):
    """Addresses by ``inner`` within a window around a position p_t alone; a subclass says which position and window.

    Positions are counted in the state. Where the heads of several target positions ask at once, position by position,
    each gets the weights that it gets step by step. Who starts elsewhere than at position 0 sets ``step`` of the state.

    Weights are exactly 0 outside the window, and all 0 where it holds no slot, as p_t lies beyond the sequence's end:
    hence not ``normalized``.

    Args:
        inner: how the slots in the window are told apart. It sees the others as masked.
        half_window: D, how many slots to either side of p_t are looked at.

    Raises:
        ValueError: ``half_window`` is not positive; in forward, if the heads are no whole number of target positions.
    """

    normalized: ClassVar[bool] = False

    def __init__(self, inner: Addressing, half_window: int):
        super().__init__()
        self.inner = inner
        self.half_window = check_positive("half_window", half_window)

    @property
    def emit_size(self) -> int:
        return self.inner.emit_size

    @property
    def emission_start(self) -> tuple[float, ...]:
        return self.inner.emission_start

    @property
    def shared_emit_size(self) -> int:
        return self.inner.shared_emit_size

    @property
    def steps_at_once(self) -> bool:
        return self.inner.steps_at_once

    @abc.abstractmethod
    def positions(
        self,
        emission: Float[Tensor, "batch head emit"],
        steps: Int64[Tensor, "batch head"],
        lengths: Int64[Tensor, "batch #head"],
    ) -> Float[Tensor, "batch head"]:
        """p_t, where each head looks.

        Args:
            emission: what ``inner`` is given.
            steps: t, each head's target position.
            lengths: S, how many slots there are for each head, or for all of them.
        """

    @abc.abstractmethod
    def window(self, distances: Float[Tensor, "batch head slot"]) -> Float[Tensor, "batch head slot"]:
        """What the weights within the window are multiplied by, in (0, 1]; exactly 0 outside.

        Args:
            distances: s - p_t.
        """

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> LocalState:
        step = torch.zeros(keys.shape[0], num_heads, dtype=torch.int64, device=keys.device)
        return LocalState(step, self.inner.init_state(keys, num_heads))

    def before_step(self, shared_emission: Float[Tensor, "batch shared"], state: LocalState) -> LocalState:
        return state._replace(inner=self.inner.before_step(shared_emission, state.inner))

    def kept(self, state: LocalState) -> Float[Tensor, "batch slot"] | None:
        return self.inner.kept(state.inner)

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: LocalState,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], LocalState]:
        num_heads = state.step.shape[1]
        num_steps, rest = divmod(emission.shape[1], num_heads)
        if rest:
            raise ValueError(
                f"emission holds {emission.shape[1]} heads, but must hold a multiple of the {num_heads} that the state "
                "was made for: those of one target position after the other."
            )
        later = torch.arange(num_steps, device=keys.device)
        steps = rearrange(state.step, "batch head -> batch 1 head") + rearrange(later, "step -> step 1")
        steps = rearrange(steps, "batch step head -> batch (step head)")
        exists = per_head(keys.new_ones(keys.shape[:2], dtype=torch.bool) if mask is None else mask)
        positions = self.positions(emission, steps, exists.sum(-1))
        places = exists.cumsum(-1) - 1
        window = self.window(places - rearrange(positions, "batch head -> batch head 1"))
        weights, inner = self.inner(emission, keys, state.inner, exists & (window > 0))
        return weights * window, LocalState(state.step + num_steps, inner)

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: LocalState) -> LocalState:
        return state._replace(inner=self.inner.after_write(weights, state.inner))

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: LocalState) -> LocalState:
        return state._replace(inner=self.inner.after_read(weights, state.inner))


class MonotonicLocalAddressing(LocalAddressing):
    """Local-m: the window moves on with the target, p_t = t, and within it all is left to ``inner`` (sec. 3.2, eq. 7).

    Args:
        inner: how the slots in the window are told apart.
        half_window: D, how many slots to either side of p_t are looked at.
        slots_per_step: how many slots the window moves on by at each target position. 1 in the paper; for sources that
            are as a rule so many times longer than their targets, p_t = slots_per_step t.

    Raises:
        ValueError: ``half_window`` is not positive, or ``slots_per_step`` is not greater than 0.
    """

    def __init__(self, inner: Addressing, half_window: int = 10, slots_per_step: float = 1.0):
        super().__init__(inner, half_window)
        self.slots_per_step = check_greater_than_zero("slots_per_step", slots_per_step)

    def positions(
        self,
        emission: Float[Tensor, "batch head emit"],
        steps: Int64[Tensor, "batch head"],
        lengths: Int64[Tensor, "batch #head"],
    ) -> Float[Tensor, "batch head"]:
        return self.slots_per_step * steps.float()

    def window(self, distances: Float[Tensor, "batch head slot"]) -> Float[Tensor, "batch head slot"]:
        return (distances.abs() <= self.half_window).to(distances.dtype)


class PredictiveLocalAddressing(LocalAddressing):
    """Local-p: each head predicts where it looks, p_t = S sigmoid(v_p . tanh(W_p h_t)) (sec. 3.2, eq. 9 and 10).

    The window is a Gaussian cut off at D: weights are multiplied by exp(-(s - p_t)^2 / (2 sigma^2)) with sigma = D / 2,
    which is what p_t learns by. As in the paper the product is not normalised again: weights sum to at most 1, and to
    less the farther from p_t a head finds what it asks for.

    h_t is what a head emits for ``inner``; in the paper both are the decoder's state.

    Args:
        inner: how the slots in the window are told apart.
        half_window: D, how many slots to either side of p_t are looked at.

    Raises:
        ValueError: ``half_window`` is not positive, or ``inner`` is emitted nothing to predict from.
    """

    def __init__(self, inner: Addressing, half_window: int = 10):
        super().__init__(inner, half_window)
        size = check_positive("inner.emit_size", inner.emit_size)
        self.projection = nn.Linear(size, size, bias=False)
        self.direction = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))

    def positions(
        self,
        emission: Float[Tensor, "batch head emit"],
        steps: Int64[Tensor, "batch head"],
        lengths: Int64[Tensor, "batch #head"],
    ) -> Float[Tensor, "batch head"]:
        return lengths * _fraction(emission, self.projection.weight, self.direction)

    def window(self, distances: Float[Tensor, "batch head slot"]) -> Float[Tensor, "batch head slot"]:
        std = self.half_window / 2
        return torch.exp(-distances.square() / (2 * std**2)) * (distances.abs() <= self.half_window)


@in_full_precision
def _fraction(
    states: Float[Tensor, "batch head emit"], matrix: Float[Tensor, "hidden emit"], direction: Float[Tensor, " hidden"]
) -> Float[Tensor, "batch head"]:
    hidden = einsum(states, matrix, "batch head emit, hidden emit -> batch head hidden").tanh()
    return einsum(hidden, direction, "batch head hidden, hidden -> batch head").sigmoid()
