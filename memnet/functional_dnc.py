"""The equations of the Differentiable Neural Computer as pure functions.

DNC is Graves et al., "Hybrid computing using a neural network with dynamic external memory", Nature 538 (2016); its
equations are in the section Methods. Csordas and Schmidhuber, "Improving Differentiable Neural Computers Through Memory
Masking, De-allocation, and Link Distribution Sharpness Control" (ICLR 2019), https://arxiv.org/abs/1904.10278.

Axis words are those of ``memnet.functional``; ``read`` and ``write`` stand for read and write heads. As there, nothing
is computed in half precision.
"""

import functools
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from memnet.functional import NORM_EPS, SHARPEN_EPS, in_full_precision

# All weightings here sum to at most 1; what rounding leaves beyond that must not turn a weight negative.


@in_full_precision
def retention(
    free_gates: Float[Tensor, "batch read"], prev_read_weights: Float[Tensor, "batch read slot"]
) -> Float[Tensor, "batch slot"]:
    """psi = prod_i (1 - f_i w_i), how much of each slot is not freed (DNC, "Dynamic memory allocation").

    Args:
        free_gates: f in (0, 1), whether what each read head has read last can be freed.
        prev_read_weights: where each read head has read last.
    """
    freed = rearrange(free_gates, "batch read -> batch read 1") * prev_read_weights
    return _product_over_heads((1 - freed).clamp(min=0))


@in_full_precision
def usage_after_write(
    usage: Float[Tensor, "batch slot"], write_weights: Float[Tensor, "batch write slot"]
) -> Float[Tensor, "batch slot"]:
    """u + w - u w with w = 1 - prod_h (1 - w_h), what all heads have written (DNC, "Dynamic memory allocation").

    The paper has one write head; with several, a slot is unused if it was and none of them wrote to it.
    """
    written = 1 - _product_over_heads((1 - write_weights).clamp(min=0)) if write_weights.shape[1] > 1 else None
    # In this form no rounding leads out of [0, 1].
    return torch.lerp(usage, usage.new_ones(()), write_weights.squeeze(1) if written is None else written)


def _product_over_heads(x: Float[Tensor, "batch head slot"]) -> Float[Tensor, "batch slot"]:
    """Step by step: the gradient of ``prod`` divides by its factors, which may be 0."""
    return functools.reduce(torch.mul, x.unbind(1))


@in_full_precision
def allocation(usage: Float[Tensor, "batch slot"]) -> Float[Tensor, "batch slot"]:
    """a[phi_j] = (1 - u[phi_j]) prod_{i < j} u[phi_i] (DNC, "Dynamic memory allocation").

    phi lists the slots by their usage, the least used first; of equals the lower slot comes first.

    The gradient is that for a fixed order, as in the paper: exact where no two usages are equal, and finite and defined
    where they are, or where they are 0 or 1, for no division is by a usage.
    """
    return _Allocation.apply(usage)


class _Allocation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, usage: Tensor) -> Tensor:
        used, order = usage.sort(dim=-1, stable=True)
        used = used.clamp_(0, 1)
        ctx.save_for_backward(used, order)
        before = F.pad(used[..., :-1], (1, 0), value=1.0).cumprod(-1)
        return torch.empty_like(used).scatter_(-1, order, before.mul_(1 - used))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        used, order = ctx.saved_tensors
        gradient = gradient.gather(-1, order)
        least, others, of_others = used[..., :1], used[..., 1:], gradient[..., 1:]
        if others.shape[-1] == 0:
            return -gradient
        # The products without the least usage: if any usage is 0, that one is, and derived by it they are what is left.
        before = F.pad(others[..., :-1], (1, 0), value=1.0).cumprod(-1)
        weighted = of_others * (1 - others) * before
        total = weighted.sum(-1, keepdim=True)
        later = (total - weighted.cumsum(-1)) / others.clamp(min=torch.finfo(used.dtype).tiny ** 0.5)
        # Where that bound holds, the least usage, the factor in front, is smaller still.
        sorted_gradient = torch.cat([total - gradient[..., :1], least * (later - of_others * before)], -1)
        return torch.empty_like(used).scatter_(-1, order, sorted_gradient)


@in_full_precision
def precedence(
    prev_precedence: Float[Tensor, "batch write slot"], write_weights: Float[Tensor, "batch write slot"]
) -> Float[Tensor, "batch write slot"]:
    """p = (1 - sum_i w(i)) p + w, how far each slot is the one written last (DNC, "Temporal memory linkage")."""
    return (1 - write_weights.sum(-1, keepdim=True)) * prev_precedence + write_weights


@in_full_precision
def temporal_link(
    prev_link: Float[Tensor, "batch write slot slot"],
    prev_precedence: Float[Tensor, "batch write slot"],
    write_weights: Float[Tensor, "batch write slot"],
) -> Float[Tensor, "batch write slot slot"]:
    """L[i, j] = (1 - w(i) - w(j)) L[i, j] + w(i) p(j), and L[i, i] = 0 (DNC, "Temporal memory linkage").

    How far slot i was written right after slot j.
    """
    to = rearrange(write_weights, "batch write slot -> batch write slot 1")
    since = rearrange(prev_precedence, "batch write slot -> batch write 1 slot")
    # (1 - w(i)) L + w(i) p, then - w(j) L: two passes.
    link = torch.lerp(prev_link, since, to)
    link = link.addcmul(prev_link, rearrange(write_weights, "batch write slot -> batch write 1 slot"), value=-1)
    diagonal = torch.eye(link.shape[-1], dtype=torch.bool, device=link.device)
    return link.masked_fill(diagonal, 0)


@in_full_precision
def forward_weights(
    link: Float[Tensor, "batch write slot slot"], prev_read_weights: Float[Tensor, "batch read slot"]
) -> Float[Tensor, "batch write read slot"]:
    """f = L w, what was written right after what was read last (DNC, "Temporal memory linkage")."""
    weights = rearrange(prev_read_weights, "batch read slot -> batch 1 read slot")
    return (weights @ link.mT).clamp(min=0)


@in_full_precision
def backward_weights(
    link: Float[Tensor, "batch write slot slot"], prev_read_weights: Float[Tensor, "batch read slot"]
) -> Float[Tensor, "batch write read slot"]:
    """b = L^T w, what was written right before what was read last (DNC, "Temporal memory linkage")."""
    weights = rearrange(prev_read_weights, "batch read slot -> batch 1 read slot")
    return (weights @ link).clamp(min=0)


@in_full_precision
def mix_read_modes(
    modes: Float[Tensor, "batch read mode"],
    backward: Float[Tensor, "batch write read slot"],
    content: Float[Tensor, "batch read slot"],
    forward: Float[Tensor, "batch write read slot"],
) -> Float[Tensor, "batch read slot"]:
    """w = pi_1 b + pi_2 c + pi_3 f (DNC, "Read weighting"); several write heads have a b and an f each.

    Args:
        modes: pi, a distribution over backward (of each write head), content, forward (of each write head).
        backward: b.
        content: c, the content weighting.
        forward: f.
    """
    num_links = backward.shape[1]
    by_back, by_content, by_forward = modes.split([num_links, 1, num_links], dim=-1)
    linked = backward * rearrange(by_back, "batch read write -> batch write read 1")
    linked = linked + forward * rearrange(by_forward, "batch read write -> batch write read 1")
    return linked.sum(1) + by_content * content


@in_full_precision
def sharpen_link(
    weights: Float[Tensor, "batch write read slot"],
    sharpness: Float[Tensor, "batch 1 read 1"],
    eps: float = SHARPEN_EPS,
) -> Float[Tensor, "batch write read slot"]:
    """S(d, s)_i = d(i)^s / sum_j d(j)^s with s >= 1 (Csordas and Schmidhuber 2019, "Sharpness of links").

    Times the sum of d, which is 1 once the memory is linked up: where nothing is linked, nothing is read, and a slot
    without weight has a bounded gradient. In log space, as ``memnet.functional.sharpen``.
    """
    return weights.sum(-1, keepdim=True) * (sharpness * (weights + eps).log()).softmax(-1)


@in_full_precision
def masked_cosine_similarity(
    queries: Float[Tensor, "batch head key"],
    key_mask: Float[Tensor, "batch head key"],
    keys: Float[Tensor, "batch slot key"],
    eps: float = NORM_EPS,
) -> Float[Tensor, "batch head slot"]:
    """D(k o m, M(i) o m), the cosine over what m asks for (Csordas and Schmidhuber 2019, "Masking").

    ``eps`` stands inside the roots, as in ``memnet.functional.cosine_similarity``.

    Args:
        queries: k.
        key_mask: m in [0, 1].
        keys: M.
        eps: added to squared norms.
    """
    squared_mask = key_mask.square()
    query_norms = ((queries.square() * squared_mask).sum(-1, keepdim=True) + eps).sqrt()
    key_norms = (squared_mask @ keys.square().mT + eps).sqrt()
    return (queries * squared_mask) @ keys.mT / (query_norms * key_norms)
