"""The papers' equations as pure functions: read this file first.

Axis words: ``batch, head, slot, key, val``. Weights over slots are ``(batch, head, slot)``, a memory is
``(batch, slot, val)``. NTM is Graves, Wayne and Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Everything here stays in at least float32: under autocast the arguments are widened and the products are not narrowed,
because a similarity, a sharpened weighting and the memory itself do not survive half precision.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

NORM_EPS = 1e-2
"""Added to squared norms.

The cosine ignores how long a vector is, so with a tiny epsilon the traces that weights of 0.001 leave in an unused slot
make it as similar to a key as the slot that was meant. With this one a slot counts from a length of about 0.1, and the
gradient of its norm stays below 10. Copy learns either way; associative recall learns much faster (RESULTS.md).
"""

SHARPEN_EPS = 1e-8
"""Added to weights before their logarithm: a slot without weight has a finite logarithm and a finite gradient."""

SlotMask = Bool[Tensor, "batch slot"] | Bool[Tensor, "batch head slot"]
"""Which slots exist, or may be looked at: the same for all heads, or for each head its own."""

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Runs ``function`` outside autocast, its half-precision tensors widened to float32."""

    def widen(x: object) -> object:
        return x.float() if isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16) else x

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)).device.type
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*map(widen, args), **{name: widen(x) for name, x in kwargs.items()})  # type: ignore[arg-type]

    return wrapped


def per_head(mask: SlotMask) -> Bool[Tensor, "batch #head slot"]:
    """The mask with a head axis, of size 1 where it is the same for all heads."""
    return mask if mask.dim() == 3 else rearrange(mask, "batch slot -> batch 1 slot")


@in_full_precision
def cosine_similarity(
    queries: Float[Tensor, "batch head key"], keys: Float[Tensor, "batch slot key"], eps: float = NORM_EPS
) -> Float[Tensor, "batch head slot"]:
    """K[k, M(i)] = k . M(i) / (|k| |M(i)|), each head's query against each slot (NTM eq. 6).

    ``eps`` stands inside the roots, so that zero vectors have similarity 0 and a finite gradient.
    """
    query_norms = (queries.square().sum(-1, keepdim=True) + eps).sqrt()
    key_norms = (keys.square().sum(-1) + eps).sqrt()
    products = einsum(queries, keys, "batch head key, batch slot key -> batch head slot")
    return products / (query_norms * rearrange(key_norms, "batch slot -> batch 1 slot"))


def fill_masked(
    scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
) -> Float[Tensor, "batch head slot"]:
    """The lowest finite number instead of the scores where ``mask`` is false: minus infinity would make a row NaN."""
    return scores if mask is None else scores.masked_fill(~per_head(mask), torch.finfo(scores.dtype).min)


@in_full_precision
def masked_softmax(
    scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
) -> Float[Tensor, "batch head slot"]:
    """Softmax over the slots where ``mask`` is true; 0 elsewhere, and all 0 (not NaN) where no slot is left."""
    weights = fill_masked(scores, mask).softmax(-1)
    return weights if mask is None else weights * per_head(mask)


@in_full_precision
def masked_log_softmax(
    scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
) -> Float[Tensor, "batch head slot"]:
    """The logarithm of ``masked_softmax`` where ``mask`` is true; 0, and not minus infinity, elsewhere."""
    log_weights = fill_masked(scores, mask).log_softmax(-1)
    return log_weights if mask is None else log_weights.masked_fill(~per_head(mask), 0)


@in_full_precision
def best_slot(
    scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
) -> Float[Tensor, "batch head slot"]:
    """1 on the slot with the highest score (the first of equals) where ``mask`` is true, and 0 elsewhere.

    All 0 where no slot is left. It has no gradient.
    """
    best = fill_masked(scores, mask).argmax(-1, keepdim=True)
    weights = torch.zeros_like(scores).scatter(-1, best, 1.0)
    return weights if mask is None else weights * per_head(mask)


def gumbel_noise(like: Tensor) -> Tensor:
    """g = -log(-log u) with u uniform on (0, 1), in the form of ``like`` (Jang, Gu and Poole 2017, sec. 2.1).

    The slot that is best by scores + g is a sample of softmax(scores). Computed by way of the exponential distribution,
    -log u, whose samples are never 0.
    """
    return -torch.empty_like(like).exponential_().log()


@in_full_precision
def interpolate(
    content_weights: Float[Tensor, "batch head slot"],
    prev_weights: Float[Tensor, "batch head slot"],
    gate: Float[Tensor, "batch head 1"],
) -> Float[Tensor, "batch head slot"]:
    """w_g = g w_c + (1 - g) w_prev, with the interpolation gate g in (0, 1) (NTM eq. 7)."""
    return gate * content_weights + (1 - gate) * prev_weights


def bound_gradient(x: Tensor, max_gradient: float) -> Tensor:
    """``x``, whose gradient is clipped elementwise to [-max_gradient, max_gradient] on its way back through here.

    As Graves 2013 ("Generating sequences with recurrent neural networks", sec. 2.1) does inside recurrent layers.
    In forward mode there is nothing to clip: it is passed by, as torch.compile takes no Function with a jvp of its own.
    """
    if not torch.is_grad_enabled() or in_forward_mode():
        return x
    return _BoundGradient.apply(x, max_gradient)


def in_forward_mode() -> bool:
    """Whether derivatives are being computed in forward mode."""
    return torch.autograd.forward_ad._current_level >= 0


class _BoundGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, max_gradient: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.max_gradient = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.clamp(-ctx.max_gradient, ctx.max_gradient), None


@in_full_precision
def circular_shift(
    weights: Float[Tensor, "batch head slot"], shift_weights: Float[Tensor, "batch head shift"]
) -> Float[Tensor, "batch head slot"]:
    """Circular convolution w~(i) = sum_j w(j) s(i - j) (NTM eq. 8).

    Args:
        weights: w_g, the weighting to move.
        shift_weights: s, a distribution over an odd number of shifts; the middle one stays in place,
            the ones after it move towards higher slots.
    """
    num_shifts = shift_weights.shape[-1]
    moved = [weights.roll(shift - num_shifts // 2, dims=-1) for shift in range(num_shifts)]
    return einsum(torch.stack(moved, -1), shift_weights, "batch head slot shift, batch head shift -> batch head slot")


@in_full_precision
def sharpen(
    weights: Float[Tensor, "batch head slot"],
    sharpening: Float[Tensor, "batch head 1"],
    mask: SlotMask | None = None,
    eps: float = SHARPEN_EPS,
) -> Float[Tensor, "batch head slot"]:
    """w(i) = w~(i)^gamma / sum_j w~(j)^gamma with gamma >= 1 (NTM eq. 9), computed as a softmax of gamma log w~.

    The quotient of powers becomes 0/0 as soon as every power underflows; in log space it cannot.
    """
    return masked_softmax(sharpening * (weights + eps).log(), mask)


@in_full_precision
def read(
    values: Float[Tensor, "batch slot val"], weights: Float[Tensor, "batch head slot"]
) -> Float[Tensor, "batch head val"]:
    """r = sum_i w(i) M(i) (NTM eq. 2)."""
    return einsum(weights, values, "batch head slot, batch slot val -> batch head val")


@in_full_precision
def erase_and_add(
    memory: Float[Tensor, "batch slot val"],
    weights: Float[Tensor, "batch head slot"],
    erase: Float[Tensor, "batch head val"],
    add: Float[Tensor, "batch head val"],
) -> Float[Tensor, "batch slot val"]:
    """M(i) prod_h [1 - w_h(i) e_h] + sum_h w_h(i) a_h, with e_h in (0, 1) (NTM eq. 3 and 4).

    All heads erase before any head adds, so that the order of the heads does not matter.
    """
    kept = 1 - einsum(weights, erase, "batch head slot, batch head val -> batch head slot val")
    # A product over a single head would cost a copy of the memory and, backward, a division.
    kept = kept.squeeze(1) if kept.shape[1] == 1 else kept.prod(1)
    return memory * kept + einsum(weights, add, "batch head slot, batch head val -> batch slot val")
