"""What both Triton kernels of the Neural Turing Machine compute: functions, products, addressing up to the shift.

Nothing imports this but the kernels themselves, since Triton is there only where a GPU is.

One program runs one batch item. Numbers that change hands between its threads, as when a vector is multiplied by a
matrix or shifted, go through device memory (which is the chip's own cache for so few numbers) with ``tl.debug_barrier``
between writing and reading, and also between reading and writing anew: a vector shorter than the program has threads is
held, and so loaded, by several of them.
"""

from typing import no_type_check

import triton
import triton.language as tl

# ``no_type_check`` keeps type checkers that wrap functions away from what Triton compiles.


@triton.jit
@no_type_check
def tanh(x):
    """Exact for small numbers too, where 1 - e cancels."""
    size = tl.abs(x)
    e = tl.exp(-2.0 * size)
    square = x * x
    series = size * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    y = tl.where(size < 0.1, series, (1.0 - e) / (1.0 + e))
    return tl.where(x < 0.0, -y, y)


@triton.jit
@no_type_check
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
@no_type_check
def softplus(x):
    e = tl.exp(-tl.abs(x))
    series = e * (1.0 - e * (1.0 / 2.0 - e * (1.0 / 3.0 - e * (1.0 / 4.0))))
    return tl.maximum(x, 0.0) + tl.where(e < 0.01, series, tl.log(1.0 + e))


@triton.jit
@no_type_check
def softmax(scores, inside):
    """0 outside."""
    scores = tl.where(inside, scores, float("-inf"))
    e = tl.exp(scores - tl.max(scores, 0))
    return e / tl.sum(e, 0)


@triton.jit
@no_type_check
def copy(source, target, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    for first in range(0, COUNT, BLOCK):
        i = first + tl.arange(0, BLOCK)
        tl.store(target + i, tl.load(source + i, mask=i < COUNT), mask=i < COUNT)


@triton.jit
@no_type_check
def add_products(sums, vector, matrix, columns, inside, COUNT: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr):
    """sums[r, c] += the products of ``vector`` and ``matrix`` in rows r, r + ROWS, ...: summed over r, a product."""
    for first in range(0, COUNT, ROWS):
        r = first + tl.arange(0, ROWS)
        x = tl.load(vector + r, mask=r < COUNT, other=0.0)
        at = matrix + r[:, None] * STRIDE + columns[None, :]
        sums += x[:, None] * tl.load(at, mask=(r < COUNT)[:, None] & inside[None, :], other=0.0)
    return sums


@triton.jit
@no_type_check
def product(
    vector,
    matrix,
    columns,
    inside,
    COUNT: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """vector @ matrix[:, columns], of COUNT rows that lie STRIDE apart."""
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    return tl.sum(add_products(sums, vector, matrix, columns, inside, COUNT, STRIDE, ROWS), 0)


@triton.jit
@no_type_check
def inverse_norms(memory, norm_eps):
    """1 / |M_n| by slot."""
    return 1.0 / tl.sqrt(tl.sum(memory * memory, 1) + norm_eps)


@triton.jit
@no_type_check
def by_content(memory, inverse_norm, emission, norm_eps, n, w, SLOTS: tl.constexpr, WIDTH: tl.constexpr):
    """Key, its inverse norm and strength; cosines; content weights (equations 5 and 6)."""
    key = tanh(tl.load(emission + w, mask=w < WIDTH, other=0.0))
    inverse_key = 1.0 / tl.sqrt(tl.sum(key * key, 0) + norm_eps)
    strength = softplus(tl.load(emission + WIDTH))
    cosine = tl.sum(memory * key[None, :], 1) * inverse_key * inverse_norm
    return key, inverse_key, strength, cosine, softmax(strength * cosine, n < SLOTS)


@triton.jit
@no_type_check
def shift_softmax(shift, SHIFTS: tl.constexpr, SHIFT_BLOCK: tl.constexpr):
    """The highest score and the sum of the exponentials: what ``shift_weight`` needs."""
    j = tl.arange(0, SHIFT_BLOCK)
    x = tl.load(shift + j, mask=j < SHIFTS, other=float("-inf"))
    top = tl.max(x, 0)
    return top, tl.sum(tl.exp(x - top), 0)


@triton.jit
@no_type_check
def shift_weight(shift, j, top, total):
    return tl.exp(tl.load(shift + j) - top) / total


@triton.jit
@no_type_check
def neighbour(ring, n, offset, SLOTS: tl.constexpr, SHIFTS: tl.constexpr):
    """ring[n + offset] around the ring of slots; an offset may be larger than the ring."""
    TURNS: tl.constexpr = SHIFTS // 2 // SLOTS + 1
    return tl.load(ring + (n + offset + TURNS * SLOTS) % SLOTS)


@triton.jit
@no_type_check
def shifted(ring, n, shift, top, total, SIGN: tl.constexpr, SLOTS: tl.constexpr, SHIFTS: tl.constexpr):
    """sum_j s_j ring[n + SIGN offset_j]: equation 8 with SIGN -1, its gradient with 1."""
    sums = tl.zeros_like(n).to(tl.float32)
    if SHIFTS <= 5:
        # Written out, so that no load waits for the one before.
        for j in tl.static_range(SHIFTS):
            s = shift_weight(shift, j, top, total)
            sums += s * neighbour(ring, n, SIGN * (j - SHIFTS // 2), SLOTS, SHIFTS)
    else:
        for j in range(SHIFTS):
            s = shift_weight(shift, j, top, total)
            sums += s * neighbour(ring, n, SIGN * (j - SHIFTS // 2), SLOTS, SHIFTS)
    return sums


@triton.jit
@no_type_check
def erase_and_add(
    emissions, h, w, HEADS: tl.constexpr, WRITES: tl.constexpr, WIDTH: tl.constexpr, SHIFTS: tl.constexpr
):
    """e and a of write head h, 0 beyond WIDTH."""
    at = emissions + HEADS * (WIDTH + 3 + SHIFTS) + h * WIDTH + w
    erase = sigmoid(tl.load(at, mask=w < WIDTH, other=float("-inf")))
    add = tanh(tl.load(at + WRITES * WIDTH, mask=w < WIDTH, other=0.0))
    return erase, add
