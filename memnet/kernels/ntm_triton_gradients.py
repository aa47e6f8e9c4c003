"""The parts of a step backwards, in Triton: addressing, writing, a layer of the controller."""

from typing import no_type_check

import triton
import triton.language as tl

from memnet.kernels.ntm_triton_common import (
    by_content,
    erase_and_add,
    inverse_norms,
    neighbour,
    product,
    shift_softmax,
    shift_weight,
    shifted,
    sigmoid,
    softplus,
    tanh,
)


@triton.jit
@no_type_check
def bounded(gradient, most, CLIP: tl.constexpr):
    """Within [-most, most]; NaN stays NaN."""
    if CLIP:
        gradient = tl.where(gradient > most, most, tl.where(gradient < -most, -most, gradient))
    return gradient


@triton.jit
@no_type_check
def address_gradient(
    memory,
    d_weights,
    d_memory,
    emission,
    d_emission,
    previous,
    weights,
    d_previous,
    ring,
    d_ring,
    norm_eps,
    weight_eps,
    most,
    n,
    w,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHIFTS: tl.constexpr,
    SHIFT_BLOCK: tl.constexpr,
    CLIP: tl.constexpr,
):
    """Backwards through ``address`` of the forward kernel, whose numbers are computed once more.

    Stores the gradients of the previous weights and of the head's emission, before its activations; returns d_memory
    with what the cosines add to it.
    """
    inside = n < SLOTS
    inverse_norm = inverse_norms(memory, norm_eps)
    key, inverse_key, strength, cosine, content = by_content(
        memory, inverse_norm, emission, norm_eps, n, w, SLOTS, WIDTH
    )
    gate = sigmoid(tl.load(emission + WIDTH + 1))
    before = tl.load(previous + n, mask=inside, other=0.0)
    tl.store(ring + n, gate * content + (1.0 - gate) * before, mask=inside)
    shift = emission + WIDTH + 2
    top, total = shift_softmax(shift, SHIFTS, SHIFT_BLOCK)
    tl.debug_barrier()

    # Equation 9, as the softmax that it is computed as.
    raw_sharpening = tl.load(shift + SHIFTS)
    moved = shifted(ring, n, shift, top, total, -1, SLOTS, SHIFTS)
    after = tl.load(weights + n, mask=inside, other=0.0)
    d_power = after * (d_weights - tl.sum(after * d_weights, 0))
    d_sharpening = tl.sum(tl.where(inside, d_power * tl.log(moved + weight_eps), 0.0), 0)
    d_moved = tl.where(inside, (1.0 + softplus(raw_sharpening)) * d_power / (moved + weight_eps), 0.0)
    tl.store(d_ring + n, d_moved, mask=inside)
    d_shift_mean = tl.sum(tl.where(inside, d_moved * moved, 0.0), 0)
    for j in range(SHIFTS):
        d_shift = tl.sum(d_moved * neighbour(ring, n, SHIFTS // 2 - j, SLOTS, SHIFTS), 0)
        s = shift_weight(shift, j, top, total)
        tl.store(d_emission + WIDTH + 2 + j, s * (d_shift - d_shift_mean))
    tl.debug_barrier()

    # Equations 8 and 7.
    d_gated = tl.where(inside, shifted(d_ring, n, shift, top, total, 1, SLOTS, SHIFTS), 0.0)
    d_gate = tl.sum(d_gated * (content - before), 0)
    tl.store(d_previous + n, bounded((1.0 - gate) * d_gated, most, CLIP), mask=inside)
    # Equations 5 and 6.
    d_score = gate * content * (d_gated - tl.sum(d_gated * content, 0))
    d_strength = tl.sum(d_score * cosine, 0)
    d_cosine = strength * d_score
    d_dot = d_cosine * inverse_norm * inverse_key
    d_norm = d_cosine * cosine
    d_memory += d_dot[:, None] * key[None, :] - (d_norm * inverse_norm * inverse_norm)[:, None] * memory
    d_key = tl.sum(d_dot[:, None] * memory, 0) - tl.sum(d_norm, 0) * inverse_key * inverse_key * key
    tl.store(d_emission + w, d_key * (1.0 - key * key), mask=w < WIDTH)
    tl.store(d_emission + WIDTH, d_strength * sigmoid(tl.load(emission + WIDTH)))
    tl.store(d_emission + WIDTH + 1, d_gate * gate * (1.0 - gate))
    tl.store(d_emission + WIDTH + 2 + SHIFTS, d_sharpening * sigmoid(raw_sharpening))
    return d_memory


@triton.jit
@no_type_check
def kept_by(
    emissions,
    weights,
    but,
    n,
    w,
    HEADS: tl.constexpr,
    WRITES: tl.constexpr,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHIFTS: tl.constexpr,
    SLOT_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
):
    """What the write heads except ``but`` leave of the memory, and add: prod_h (1 - w_h e_h) and sum_h w_h a_h."""
    kept = tl.full([SLOT_BLOCK, WIDTH_BLOCK], 1.0, tl.float32)
    added = tl.zeros([SLOT_BLOCK, WIDTH_BLOCK], tl.float32)
    for h in range(WRITES):
        weight = tl.load(weights + h * SLOTS + n, mask=n < SLOTS, other=0.0)
        weight = tl.where(h == but, 0.0, weight)
        erase, add = erase_and_add(emissions, h, w, HEADS, WRITES, WIDTH, SHIFTS)
        kept *= 1.0 - weight[:, None] * erase[None, :]
        added += weight[:, None] * add[None, :]
    return kept, added


@triton.jit
@no_type_check
def layer_gradient(
    d_hidden_after,
    d_hidden,
    d_cell,
    gates,
    cell_before,
    cell_after,
    hidden_after,
    d_gates,
    matrix,
    d_below,
    most,
    BELOW: tl.constexpr,
    HIDDEN: tl.constexpr,
    LSTM: tl.constexpr,
    CLIP: tl.constexpr,
    CLIP_BELOW: tl.constexpr,
    HIDDEN_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Backwards through one layer of the controller for one step.

    ``d_hidden`` and ``d_cell`` are what the step after has left for this one, and get what the step before is to find.
    """
    for first in range(0, HIDDEN, HIDDEN_COLUMNS):
        j = first + tl.arange(0, HIDDEN_COLUMNS)
        inside = j < HIDDEN
        d = tl.load(d_hidden_after + j, mask=inside, other=0.0)
        if LSTM:
            d += tl.load(d_hidden + j, mask=inside, other=0.0)
            i = tl.load(gates + j, mask=inside, other=0.0)
            f = tl.load(gates + HIDDEN + j, mask=inside, other=0.0)
            g = tl.load(gates + 2 * HIDDEN + j, mask=inside, other=0.0)
            o = tl.load(gates + 3 * HIDDEN + j, mask=inside, other=0.0)
            squashed = tanh(tl.load(cell_after + j, mask=inside, other=0.0))
            d_c = tl.load(d_cell + j, mask=inside, other=0.0) + d * o * (1.0 - squashed * squashed)
            c = tl.load(cell_before + j, mask=inside, other=0.0)
            tl.store(d_gates + j, d_c * g * i * (1.0 - i), mask=inside)
            tl.store(d_gates + HIDDEN + j, d_c * c * f * (1.0 - f), mask=inside)
            tl.store(d_gates + 2 * HIDDEN + j, d_c * i * (1.0 - g * g), mask=inside)
            tl.store(d_gates + 3 * HIDDEN + j, d * squashed * o * (1.0 - o), mask=inside)
            tl.debug_barrier()
            tl.store(d_cell + j, bounded(d_c * f, most, CLIP), mask=inside)
        else:
            y = tl.load(hidden_after + j, mask=inside, other=0.0)
            tl.store(d_gates + j, d * (1.0 - y * y), mask=inside)
    tl.debug_barrier()
    GATES: tl.constexpr = 4 * HIDDEN if LSTM else HIDDEN
    ALL: tl.constexpr = BELOW + HIDDEN if LSTM else BELOW
    for first in range(0, ALL, COLUMNS):
        c = first + tl.arange(0, COLUMNS)
        d = product(d_gates, matrix, c, c < ALL, GATES, ALL, ROWS, COLUMNS)
        tl.store(d_below + c, bounded(d, most, CLIP_BELOW), mask=c < BELOW)
        if LSTM:
            tl.store(d_hidden + c - BELOW, bounded(d, most, CLIP), mask=(c >= BELOW) & (c < ALL))
    tl.debug_barrier()
