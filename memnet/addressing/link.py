"""Addressing by the order of writing: how the Differentiable Neural Computer reads what it has written."""

from typing import Any, ClassVar, NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from memnet.addressing.base import Addressing
from memnet.checks import check_positive, check_size
from memnet.functional import SlotMask, per_head
from memnet.functional_dnc import mix_read_modes, sharpen_link
from memnet.linking import link_and_follow


class LinkState(NamedTuple):
    """What temporal linkage remembers, each for every write head.

    Attributes:
        link: L, how far slot i was written right after slot j; rows and columns sum to at most 1, the diagonal is 0.
        precedence: p, how far each slot is the one written last.
        backward: b, what was written right before what was read last.
        forward: f, what was written right after what was read last.
        read_weights: where the read heads have read last.
        inner: what the addressing by content remembers.
    """

    link: Float[Tensor, "batch write slot slot"]
    precedence: Float[Tensor, "batch write slot"]
    backward: Float[Tensor, "batch write read slot"]
    forward: Float[Tensor, "batch write read slot"]
    read_weights: Float[Tensor, "batch read slot"]
    inner: Any


class LinkAddressing(Addressing[LinkState]):
    """w = pi_1 b + pi_2 c + pi_3 f: backward, by content, or forward in the order of writing (DNC, "Read weighting").

    For read heads. A head emits what ``inner`` asks for, then the read modes pi = softmax(.), one for content and two
    for each write head.

    The link's matrix is slot x slot for each write head and sequence: the largest part of the DNC's state.

    Args:
        inner: the addressing by content, c.
        num_write_heads: how many heads write the memory.
        sharpen: whether b and f are raised to learned powers s = 1 + softplus(.), which a head then emits last: through
            many steps the plain ones blur (Csordas and Schmidhuber 2019).

    Raises:
        ValueError: ``num_write_heads`` is not positive; in ``after_write``, if the memory has another number of them.
    """

    normalized: ClassVar[bool] = False

    def __init__(self, inner: Addressing, num_write_heads: int = 1, sharpen: bool = False):
        super().__init__()
        self.inner = inner
        self.num_write_heads = check_positive("num_write_heads", num_write_heads)
        self.sharpen = sharpen

    @property
    def emit_size(self) -> int:
        return self.inner.emit_size + 1 + 2 * self.num_write_heads + 2 * self.sharpen

    @property
    def emission_start(self) -> tuple[float, ...]:
        return self.inner.emission_start + (0.0,) * (self.emit_size - self.inner.emit_size)

    @property
    def shared_emit_size(self) -> int:
        return self.inner.shared_emit_size

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> LinkState:
        batch_size, num_slots, _ = keys.shape
        followed = batch_size, self.num_write_heads, num_heads, num_slots
        return LinkState(
            keys.new_zeros(batch_size, self.num_write_heads, num_slots, num_slots),
            keys.new_zeros(batch_size, self.num_write_heads, num_slots),
            keys.new_zeros(followed),
            keys.new_zeros(followed),
            keys.new_zeros(batch_size, num_heads, num_slots),
            self.inner.init_state(keys, num_heads),
        )

    def before_step(self, shared_emission: Float[Tensor, "batch shared"], state: LinkState) -> LinkState:
        return state._replace(inner=self.inner.before_step(shared_emission, state.inner))

    def kept(self, state: LinkState) -> Float[Tensor, "batch slot"] | None:
        return self.inner.kept(state.inner)

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: LinkState,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], LinkState]:
        sizes = [self.inner.emit_size, 1 + 2 * self.num_write_heads, 2 * self.sharpen]
        inner_emission, modes, sharpness = emission.split(sizes, dim=-1)
        content, inner_state = self.inner(inner_emission, keys, state.inner, mask)
        backward, forward = state.backward, state.forward
        there = None if mask is None else per_head(mask).to(content.dtype)  # which slots may get weight
        if there is not None:
            of_links = rearrange(there, "batch head slot -> batch 1 head slot")
            backward, forward = backward * of_links, forward * of_links
        if self.sharpen:
            powers = rearrange(1 + F.softplus(sharpness), "batch head both -> both batch 1 head 1")
            backward, forward = sharpen_link(backward, powers[0]), sharpen_link(forward, powers[1])
        weights = mix_read_modes(modes.softmax(-1), backward, content, forward)
        if there is not None:
            weights = weights * there
        return weights, state._replace(inner=inner_state)

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: LinkState) -> LinkState:
        check_size("num_write_heads", self.num_write_heads, "the memory's number of write heads", weights.shape[1])
        link, precedence, backward, forward = link_and_follow(state.link, state.precedence, weights, state.read_weights)
        inner = self.inner.after_write(weights, state.inner)
        return LinkState(link, precedence, backward, forward, state.read_weights, inner)

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: LinkState) -> LinkState:
        return state._replace(read_weights=weights, inner=self.inner.after_read(weights, state.inner))
