"""The equations of sparse access memory on the few rows that it touches, with their gradients by hand.

Rae et al. 2016, "Scaling memory-augmented neural networks with sparse reads and writes",
https://arxiv.org/abs/1610.09027. Axis words as in ``memnet.functional``; ``near`` counts the K rows that a head reads,
``row`` the K + 1 rows that it writes.

The gradients stand beside the equations because the rows are not kept for the backward pass: it finds them again in the
memory whose writes it undoes (see ``memnet.sparse_memory``).
"""

from typing import NamedTuple

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from memnet.functional import NORM_EPS, sharpen


class SparseRead(NamedTuple):
    """What reading K rows gives, and what its gradient needs."""

    reads: Float[Tensor, "batch head val"]
    weights: Float[Tensor, "batch head near"]
    similarity: Float[Tensor, "batch head near"]
    inverse_query: Float[Tensor, "batch head 1"]
    inverse_rows: Float[Tensor, "batch head near"]


def read_rows(
    query: Float[Tensor, "batch head val"],
    strength: Float[Tensor, "batch head 1"],
    rows: Float[Tensor, "batch head near val"],
    there: Bool[Tensor, "batch head near"],
    eps: float = NORM_EPS,
) -> SparseRead:
    """w = softmax(beta K[q, M(s_i)]) over the K rows s_1 ... s_K, and r = sum_i w(i) M(s_i) (sec. 3.1, eq. 2 and 4).

    Args:
        query: q, what is looked for.
        strength: beta > 0, the key strength.
        rows: M(s_i).
        there: false where fewer than K slots are in use; such a row gets no weight.
        eps: added to squared norms, as in ``memnet.functional.cosine_similarity``.
    """
    inverse_query = (query.square().sum(-1, keepdim=True) + eps).rsqrt()
    inverse_rows = (rows.square().sum(-1) + eps).rsqrt()
    products = einsum(query, rows, "batch head val, batch head near val -> batch head near")
    similarity = products * inverse_query * inverse_rows
    scores = (strength * similarity).masked_fill(~there, torch.finfo(rows.dtype).min)
    weights = scores.softmax(-1) * there
    reads = einsum(weights, rows, "batch head near, batch head near val -> batch head val")
    return SparseRead(reads, weights, similarity, inverse_query, inverse_rows)


def read_rows_gradient(
    query: Float[Tensor, "batch head val"],
    strength: Float[Tensor, "batch head 1"],
    rows: Float[Tensor, "batch head near val"],
    forward: SparseRead,
    grad_reads: Float[Tensor, "batch head val"],
    grad_weights: Float[Tensor, "batch head near"] | None,
) -> tuple[Float[Tensor, "batch head val"], Float[Tensor, "batch head 1"], Float[Tensor, "batch head near val"]]:
    """From the gradients of ``read_rows``'s reads and weights to those of query, strength and rows."""
    _, weights, similarity, inverse_query, inverse_rows = forward
    given = einsum(grad_reads, rows, "batch head val, batch head near val -> batch head near")
    if grad_weights is not None:
        given = given + grad_weights
    grad_scores = weights * (given - (weights * given).sum(-1, keepdim=True))
    grad_strength = (grad_scores * similarity).sum(-1, keepdim=True)
    grad_similarity = strength * grad_scores
    # d cos(q, m) / d q = m / (|q| |m|) - cos q / |q|^2, and the same with q and m changed.
    across = grad_similarity * inverse_query * inverse_rows
    grad_query = einsum(across, rows, "batch head near, batch head near val -> batch head val")
    grad_query -= query * ((grad_similarity * similarity).sum(-1, keepdim=True) * inverse_query.square())
    along = grad_similarity * similarity * inverse_rows.square()
    grad_rows = einsum(weights, grad_reads, "batch head near, batch head val -> batch head near val")
    grad_rows += einsum(across, query, "batch head near, batch head val -> batch head near val")
    grad_rows -= rows * rearrange(along, "batch head near -> batch head near 1")
    return grad_query, grad_strength, grad_rows


class Reading(NamedTuple):
    """What a step reads, with which weights, and where."""

    reads: Float[Tensor, "batch head val"]
    weights: Float[Tensor, "batch head near"]
    slots: Int64[Tensor, "batch head near"]


def read_linked_rows(
    query: Float[Tensor, "batch head val"],
    strength: Float[Tensor, "batch head 1"],
    modes: Float[Tensor, "batch head 3"],
    sharpening: Float[Tensor, "batch head 1"],
    prev_weights: Float[Tensor, "batch head near"],
    rows: Float[Tensor, "batch head seen val"],
    there: Bool[Tensor, "batch head seen"],
    slots: Int64[Tensor, "batch head seen"],
) -> Reading:
    """w = pi_1 b + pi_2 c + pi_3 f (DNC, "Read weighting"), of which the K largest are kept and sharpened (NTM eq. 9).

    The 3 K rows that are seen: K from which the links lead to what was read last (b), K that are like the query (c),
    and K to which they lead from there (f). One slot may be several of them; its weights are added. Where no slot has
    any weight, zeros are read.

    Args:
        query: q, what is looked for by content.
        strength: beta > 0, the key strength.
        modes: pi, which sum to 1: backward, by content, forward.
        sharpening: gamma >= 1.
        prev_weights: w_t-1, on the K rows that were read at the last step.
        rows: of the memory as it is now.
        there: false where a link is missing, or fewer than K slots are in use.
        slots: the rows' numbers.
    """
    num_reads = prev_weights.shape[-1]
    near = slice(num_reads, 2 * num_reads)
    content = read_rows(query, strength, rows[:, :, near], there[:, :, near]).weights
    backward, by_content, forward = modes.split(1, -1)
    weights = torch.cat([backward * prev_weights, by_content * content, forward * prev_weights], -1) * there
    numbers = torch.where(there, slots, -1)
    same = there[..., None] & (numbers[..., :, None] == numbers[..., None, :])
    first = there & ~same.tril(-1).any(-1)
    weights = einsum(weights, same.to(weights.dtype), "batch head two, batch head one two -> batch head one") * first
    first = first & ~(weights <= 0)
    kept = weights.detach().topk(num_reads).indices
    first = first.gather(-1, kept)
    weights = sharpen(weights.gather(-1, kept), sharpening, first) * first
    kept_rows = rows.gather(2, kept[..., None].expand(*kept.shape, rows.shape[-1]))
    reads = einsum(weights, kept_rows, "batch head near, batch head near val -> batch head val")
    return Reading(reads, weights, slots.gather(-1, kept) * first)


def sparse_write_weights(
    prev_weights: Float[Tensor, "batch head near"],
    write_gate: Float[Tensor, "batch head 1"],
    interpolation: Float[Tensor, "batch head 1"],
) -> Float[Tensor, "batch head row"]:
    """w_W = alpha (gamma w_R,t-1 + (1 - gamma) I_U) on the rows read last and, in the last place, the least used one.

    Sec. 3.2, eq. 5.

    Args:
        prev_weights: w_R,t-1, on the K rows that were read at the last step.
        write_gate: alpha in (0, 1), whether to write at all.
        interpolation: gamma in (0, 1): 1 writes where was read, 0 into the least recently used slot.
    """
    return write_gate * torch.cat([interpolation * prev_weights, 1 - interpolation], -1)


def write_rows_gradient(
    prev_weights: Float[Tensor, "batch head near"],
    write_gate: Float[Tensor, "batch head 1"],
    interpolation: Float[Tensor, "batch head 1"],
    add: Float[Tensor, "batch head val"],
    alive: Bool[Tensor, "batch 1 1"] | None,
    grad_rows: Float[Tensor, "batch head row val"],
) -> tuple[
    Float[Tensor, "batch head near"],
    Float[Tensor, "batch head 1"],
    Float[Tensor, "batch head 1"],
    Float[Tensor, "batch head val"],
]:
    """From the gradients of the K + 1 written rows to those of previous weights, gates and what is added.

    ``alive`` is false for sequences that have ended and write nothing; None where there are none.
    """
    if alive is not None:
        grad_rows = grad_rows * rearrange(alive, "batch 1 1 -> batch 1 1 1")
    inner = torch.cat([interpolation * prev_weights, 1 - interpolation], -1)
    grad_add = einsum(write_gate * inner, grad_rows, "batch head row, batch head row val -> batch head val")
    grad_weights = einsum(add, grad_rows, "batch head val, batch head row val -> batch head row")
    grad_gate = reduce(grad_weights * inner, "batch head row -> batch head 1", "sum")
    grad_read, grad_unused = (write_gate * grad_weights).split([prev_weights.shape[-1], 1], -1)
    grad_interpolation = (grad_read * prev_weights).sum(-1, keepdim=True) - grad_unused
    return interpolation * grad_read, grad_gate, grad_interpolation, grad_add


def least_recently_used(
    last_access: Int64[Tensor, "batch slot"],
    prev_least_used: Int64[Tensor, "batch head"],
    in_use: Int64[Tensor, " batch"],
) -> Int64[Tensor, "batch head"]:
    """The slots whose last access lies farthest back, the first of equals; one for each head (sec. 3.2, U^(2)).

    Slots enter use in the order of their index, and those in use but never accessed (a write can be too weak to count)
    are among what was chosen at the last step. So as long as a slot is free nothing has to be searched.

    Args:
        last_access: the step of each slot's last access, counted from 1; 0 for none.
        prev_least_used: what this function gave at the last step.
        in_use: how many slots were ever chosen: slots 0 ... in_use - 1.
    """
    num_heads, num_slots = prev_least_used.shape[1], last_access.shape[1]
    if int(in_use.max()) + num_heads <= num_slots:
        fresh = in_use[:, None] + torch.arange(num_heads, device=in_use.device)
        candidates = torch.cat([prev_least_used, fresh], 1)
        candidates = torch.where(last_access.gather(1, candidates) > 0, num_slots, candidates)
        return candidates.sort(1).values[:, :num_heads]
    # Unlike equal times, these keys cannot tie.
    keys = last_access * num_slots + torch.arange(num_slots, device=last_access.device)
    return keys.topk(num_heads, largest=False).indices


def note_access(
    last_access: Int64[Tensor, "batch slot"],
    slots: Int64[Tensor, "batch touched"],
    weights: Float[Tensor, "batch touched"],
    time: Int64[Tensor, " batch"],
    threshold: float,
) -> None:
    """Sets the time of slots whose weights, read and written by all heads, sum to more than delta. In place.

    Args:
        last_access: as in ``least_recently_used``.
        slots: every slot that was touched; one may stand here several times.
        weights: the weight of each touch.
        time: the step's number; 0 for sequences in which nothing is to be noted.
        threshold: delta.
    """
    same = slots[:, :, None] == slots[:, None, :]
    sums = torch.where(same, weights[:, None, :], 0).sum(-1)
    times = torch.where(sums > threshold, time[:, None], 0)
    last_access.scatter_reduce_(1, slots, times, "amax")


def link_slots(
    after: Int64[Tensor, "batch slot"],
    before: Int64[Tensor, "batch slot"],
    last: Int64[Tensor, "batch head"],
    chosen: Int64[Tensor, "batch head"],
) -> None:
    """Puts what each head takes after what it took last, and out of the order in which it stood before. In place.

    Nothing comes after a slot that its head has lost to another one, which can only be in the step in which it takes
    the next: a write that is too weak to count leaves a slot among those that were accessed longest ago.

    Args:
        after: for each slot the next one, counted from 1; 0 for none.
        before: for each slot the one whose next it is, counted from 1; 0 for none.
        last: the slot that each head took last.
        chosen: those that they take now, all different; the same where a head stays.
    """
    taken = chosen != last
    for forth, back in ((after, before), (before, after)):
        neighbours = forth.gather(1, chosen) * taken
        if bool(neighbours.any()):  # only once slots are taken anew
            items, heads = neighbours.nonzero(as_tuple=True)
            back[items, neighbours[items, heads] - 1] = 0
            forth[items, chosen[items, heads]] = 0
    linked = taken & ~(last[:, :, None] == chosen[:, None, :]).any(-1)
    after.scatter_(1, last, torch.where(linked, chosen + 1, after.gather(1, last)))
    before.scatter_(1, chosen, torch.where(linked, last + 1, before.gather(1, chosen)))
