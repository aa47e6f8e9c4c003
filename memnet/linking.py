"""The temporal link's step as one operation: the DNC's largest pass over memory."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from memnet.functional import in_full_precision
from memnet.functional_dnc import backward_weights, forward_weights, precedence, temporal_link


@in_full_precision
def link_and_follow(
    prev_link: Float[Tensor, "batch write slot slot"],
    prev_precedence: Float[Tensor, "batch write slot"],
    write_weights: Float[Tensor, "batch write slot"],
    prev_read_weights: Float[Tensor, "batch read slot"],
) -> tuple[
    Float[Tensor, "batch write slot slot"],
    Float[Tensor, "batch write slot"],
    Float[Tensor, "batch write read slot"],
    Float[Tensor, "batch write read slot"],
]:
    """``temporal_link``, ``precedence``, and ``backward_weights`` and ``forward_weights`` over the new link, at once.

    The gradient needs nothing but the links themselves, and each is kept anyway, as the next step's state.

    Returns:
        Link, precedence, backward weights and forward weights.
    """
    if torch.compiler.is_compiling():
        # A compiler makes several passes of the equations: on the CPU that is slower than the kernel.
        if prev_link.device.type == "cpu" and prev_link.dtype is torch.float32:
            return torch.ops.memnet.link_step(prev_link, prev_precedence, write_weights, prev_read_weights)
        link = temporal_link(prev_link, prev_precedence, write_weights)
        new_precedence = precedence(prev_precedence, write_weights)
        return link, new_precedence, backward_weights(link, prev_read_weights), forward_weights(link, prev_read_weights)
    return _LinkAndFollow.apply(prev_link, prev_precedence, write_weights, prev_read_weights)


class _LinkAndFollow(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prev_link: Tensor, prev_precedence: Tensor, write_weights: Tensor, prev_read_weights: Tensor
    ) -> tuple[Tensor, ...]:
        given = prev_link, prev_precedence, write_weights, prev_read_weights
        results = _step(*given)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, results[0])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, ...]:
        return _step_back(ctx.saved_tensors, gradients)


def _step(*given: Tensor) -> tuple[Tensor, ...]:
    kernel = _kernel(*given)
    return kernel.step(*given) if kernel is not None else _plain_step(*given)


def _step_back(saved: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    kernel = _kernel(*saved)
    return (kernel.step_back if kernel is not None else _plain_step_back)(saved, gradients)


def _kernel(*tensors: Tensor) -> Any:
    from memnet import kernels  # which knows addressings, and so cannot be known by them when it is loaded

    return kernels.find_link(*tensors)


def _plain_step(
    prev_link: Tensor, prev_precedence: Tensor, write_weights: Tensor, prev_read_weights: Tensor
) -> tuple[Tensor, ...]:
    weights = rearrange(prev_read_weights, "batch read slot -> batch 1 read slot")
    # (1 - w(i)) L + w(i) p(j), then - w(j) L: two passes.
    link = torch.lerp(prev_link, _columns(prev_precedence), _rows(write_weights))
    link.addcmul_(prev_link, _columns(write_weights), value=-1)
    link.diagonal(dim1=-2, dim2=-1).zero_()
    precedence = _unwritten(write_weights) * prev_precedence + write_weights
    return link, precedence, (weights @ link).clamp_(min=0), (weights @ link.mT).clamp_(min=0)


def _plain_step_back(saved: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    prev_link, prev_precedence, write_weights, prev_read_weights, link = saved
    of_link, of_precedence, of_backward, of_forward = gradients
    weights = rearrange(prev_read_weights, "batch read slot -> batch 1 read slot")
    d_link = torch.zeros_like(link) if of_link is None else of_link.clone()
    d_write, d_precedence, d_read = map(torch.zeros_like, (write_weights, prev_precedence, prev_read_weights))
    if of_precedence is not None:
        d_write = of_precedence - (of_precedence * prev_precedence).sum(-1, keepdim=True)
        d_precedence = of_precedence * _unwritten(write_weights)
    # f = L w and b = L^T w, so that dL = df w^T + w db^T, and dw = L^T df + L db.
    if of_forward is not None:
        d_link += of_forward.mT @ weights.expand_as(of_forward)
        d_read = d_read + (of_forward @ link).sum(1)
    if of_backward is not None:
        d_link += weights.expand_as(of_backward).mT @ of_backward
        d_read = d_read + (of_backward @ link.mT).sum(1)
    d_link.diagonal(dim1=-2, dim2=-1).zero_()
    products = d_link * prev_link
    d_write = d_write + (d_link @ prev_precedence.unsqueeze(-1)).squeeze(-1) - products.sum(-1) - products.sum(-2)
    d_precedence = d_precedence + (write_weights.unsqueeze(-2) @ d_link).squeeze(-2)
    d_link.mul_((1 - _rows(write_weights)) - _columns(write_weights))
    return d_link, d_precedence, d_write, d_read


def _rows(x: Float[Tensor, "batch write slot"]) -> Float[Tensor, "batch write slot 1"]:
    return rearrange(x, "batch write slot -> batch write slot 1")


def _columns(x: Float[Tensor, "batch write slot"]) -> Float[Tensor, "batch write 1 slot"]:
    return rearrange(x, "batch write slot -> batch write 1 slot")


def _unwritten(write_weights: Float[Tensor, "batch write slot"]) -> Float[Tensor, "batch write 1"]:
    return 1 - write_weights.sum(-1, keepdim=True)


# The same for compiled programs, as one operation.
_operations = torch.library.Library("memnet", "DEF")
_RESULTS = "(Tensor, Tensor, Tensor, Tensor)"
_operations.define(f"link_step(Tensor link, Tensor precedence, Tensor write, Tensor read) -> {_RESULTS}")
_operations.define(f"link_step_back(Tensor[] saved, Tensor[] gradients) -> {_RESULTS}")
_operations.impl("link_step", _step, "CPU")
_operations.impl("link_step_back", _step_back, "CPU")


@torch.library.register_fake("memnet::link_step", lib=_operations)
def _(link: Tensor, precedence: Tensor, write_weights: Tensor, read_weights: Tensor) -> tuple[Tensor, ...]:
    batch, num_writes, num_slots = write_weights.shape
    followed = batch, num_writes, read_weights.shape[1], num_slots
    new = [x.new_empty(x.shape) for x in (link, precedence)]
    return *new, link.new_empty(followed), link.new_empty(followed)


@torch.library.register_fake("memnet::link_step_back", lib=_operations)
def _(saved: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in saved[:4])


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[0])


def _gradients(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, ...]:
    saved = list(ctx.saved_tensors)
    link, precedence, write_weights, read_weights, _ = saved
    followed = *write_weights.shape[:2], *read_weights.shape[1:]
    shapes = [link.shape, precedence.shape, followed, followed]
    filled = [link.new_zeros(shape) if x is None else x for x, shape in zip(gradients, shapes, strict=True)]
    return torch.ops.memnet.link_step_back(saved, filled)


torch.library.register_autograd("memnet::link_step", _gradients, setup_context=_setup_context, lib=_operations)
