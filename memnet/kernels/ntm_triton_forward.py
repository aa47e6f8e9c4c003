"""The sequence forwards, in Triton: one program for each batch item (see ``ntm_cuda``)."""

from typing import no_type_check

import triton
import triton.language as tl

from memnet.kernels.ntm_triton_common import (
    by_content,
    copy,
    erase_and_add,
    inverse_norms,
    product,
    shift_softmax,
    shifted,
    sigmoid,
    softmax,
    softplus,
    tanh,
)


@triton.jit
@no_type_check
def add_gates(
    i, f, g, o, vector, matrix, columns, inside, COUNT: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr
):
    """``add_products`` for the four gates, whose columns lie HIDDEN apart."""
    for first in range(0, COUNT, ROWS):
        r = first + tl.arange(0, ROWS)
        x = tl.load(vector + r, mask=r < COUNT, other=0.0)[:, None]
        at = matrix + r[:, None] * (4 * HIDDEN) + columns[None, :]
        mask = (r < COUNT)[:, None] & inside[None, :]
        i += x * tl.load(at, mask=mask, other=0.0)
        f += x * tl.load(at + HIDDEN, mask=mask, other=0.0)
        g += x * tl.load(at + 2 * HIDDEN, mask=mask, other=0.0)
        o += x * tl.load(at + 3 * HIDDEN, mask=mask, other=0.0)
    return i, f, g, o


@triton.jit
@no_type_check
def layer(
    below,
    own,
    matrix,
    start,
    gates,
    cell_before,
    cell_after,
    hidden_after,
    BELOW: tl.constexpr,
    HIDDEN: tl.constexpr,
    LSTM: tl.constexpr,
    KEEP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One layer of the controller for one step; ``start`` is what is added to the product with ``matrix``."""
    for first in range(0, HIDDEN, COLUMNS):
        j = first + tl.arange(0, COLUMNS)
        inside = j < HIDDEN
        if LSTM:
            i = tl.zeros([ROWS, COLUMNS], tl.float32)
            f = tl.zeros([ROWS, COLUMNS], tl.float32)
            g = tl.zeros([ROWS, COLUMNS], tl.float32)
            o = tl.zeros([ROWS, COLUMNS], tl.float32)
            i, f, g, o = add_gates(i, f, g, o, below, matrix, j, inside, BELOW, HIDDEN, ROWS)
            i, f, g, o = add_gates(i, f, g, o, own, matrix + BELOW * 4 * HIDDEN, j, inside, HIDDEN, HIDDEN, ROWS)
            i = sigmoid(tl.sum(i, 0) + tl.load(start + j, mask=inside, other=0.0))
            f = sigmoid(tl.sum(f, 0) + tl.load(start + HIDDEN + j, mask=inside, other=0.0))
            g = tanh(tl.sum(g, 0) + tl.load(start + 2 * HIDDEN + j, mask=inside, other=0.0))
            o = sigmoid(tl.sum(o, 0) + tl.load(start + 3 * HIDDEN + j, mask=inside, other=0.0))
            c = f * tl.load(cell_before + j, mask=inside, other=0.0) + i * g
            tl.store(cell_after + j, c, mask=inside)
            tl.store(hidden_after + j, o * tanh(c), mask=inside)
            if KEEP:
                tl.store(gates + j, i, mask=inside)
                tl.store(gates + HIDDEN + j, f, mask=inside)
                tl.store(gates + 2 * HIDDEN + j, g, mask=inside)
                tl.store(gates + 3 * HIDDEN + j, o, mask=inside)
        else:
            z = product(below, matrix, j, inside, BELOW, HIDDEN, ROWS, COLUMNS)
            tl.store(hidden_after + j, tanh(z + tl.load(start + j, mask=inside, other=0.0)), mask=inside)


@triton.jit
@no_type_check
def address(
    memory,
    inverse_norm,
    emission,
    previous,
    ring,
    weights,
    norm_eps,
    weight_eps,
    n,
    w,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHIFTS: tl.constexpr,
    SHIFT_BLOCK: tl.constexpr,
):
    """A head's weights (equations 5 to 9), also stored in ``weights``."""
    inside = n < SLOTS
    _, _, _, _, content = by_content(memory, inverse_norm, emission, norm_eps, n, w, SLOTS, WIDTH)
    gate = sigmoid(tl.load(emission + WIDTH + 1))
    gated = gate * content + (1.0 - gate) * tl.load(previous + n, mask=inside, other=0.0)
    tl.store(ring + n, gated, mask=inside)
    shift = emission + WIDTH + 2
    top, total = shift_softmax(shift, SHIFTS, SHIFT_BLOCK)
    tl.debug_barrier()
    sharpening = 1.0 + softplus(tl.load(shift + SHIFTS))
    # In log space: the quotient of powers becomes 0 / 0 as soon as all of them underflow.
    moved = shifted(ring, n, shift, top, total, -1, SLOTS, SHIFTS)
    new = softmax(sharpening * tl.log(moved + weight_eps), inside)
    tl.store(weights + n, new, mask=inside)
    return new


@triton.jit(do_not_specialize=["batch", "time", "rows", "emission_rows", "segment"])
@no_type_check
def forward(
    lengths,  # (batch)
    first_hidden,  # the state before the first step, as ntm_cell.state_tensors has it
    first_cell,
    first_memory,
    first_write,
    first_read,
    first_reads,
    last_hidden,  # the state after the last one
    last_cell,
    last_memory,
    last_write,
    last_read,
    last_reads,
    recurrent,  # by layer: from (below without the inputs, own output) to gates
    bias,  # (layer - 1, gate)
    interface,  # (hidden, emission)
    interface_bias,
    projection,  # (time, batch, gate): what the inputs and the biases give to the first layer
    gates,  # (layer, time, batch, gate)
    hidden,  # (layer, time + 1, batch, hidden), before the first step and after each
    cell,  # (layer, rows, batch, hidden), likewise; with 2 rows only the latest are kept
    reads,  # (time + 1, batch, head * width)
    weights,  # (rows, batch, head, slot)
    emissions,  # (emission_rows, batch, emission), before the activations
    ring,  # (batch, head, slot)
    memories,  # (segment, batch, slot, width), before the first step of each
    batch,
    time,
    rows,
    emission_rows,
    segment,
    norm_eps,
    weight_eps,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    READS: tl.constexpr,
    WRITES: tl.constexpr,
    SHIFTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    LAYERS: tl.constexpr,
    LSTM: tl.constexpr,
    KEEP: tl.constexpr,
    SLOT_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    SHIFT_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EMISSION_ROWS: tl.constexpr,
    EMISSION_COLUMNS: tl.constexpr,
):
    HEADS: tl.constexpr = READS + WRITES
    EMISSION: tl.constexpr = WIDTH + 3 + SHIFTS
    INTERFACE: tl.constexpr = HEADS * EMISSION + 2 * WRITES * WIDTH
    GATES: tl.constexpr = 4 * HIDDEN if LSTM else HIDDEN
    OWN: tl.constexpr = HIDDEN if LSTM else 0
    READ: tl.constexpr = READS * WIDTH
    item = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + item).to(tl.int32)
    hidden_layer = (time + 1) * batch.to(tl.int64) * HIDDEN
    cell_layer = rows * batch.to(tl.int64) * HIDDEN
    gates_layer = time * batch.to(tl.int64) * GATES
    n = tl.arange(0, SLOT_BLOCK)
    w = tl.arange(0, WIDTH_BLOCK)
    tile = n[:, None] * WIDTH + w[None, :]
    filled = (n < SLOTS)[:, None] & (w < WIDTH)[None, :]
    ring += item * HEADS * SLOTS

    memory = tl.load(first_memory + item * SLOTS * WIDTH + tile, mask=filled, other=0.0)
    copy(first_write + item * WRITES * SLOTS, weights + item * HEADS * SLOTS, WRITES * SLOTS, SLOT_BLOCK)
    copy(first_read + item * READS * SLOTS, weights + (item * HEADS + WRITES) * SLOTS, READS * SLOTS, SLOT_BLOCK)
    copy(first_reads + item * READ, reads + item * READ, READ, WIDTH_BLOCK)
    if LSTM:
        for level in range(LAYERS):
            at = (item * LAYERS + level) * HIDDEN
            copy(first_hidden + at, hidden + level * hidden_layer + item * HIDDEN, HIDDEN, COLUMNS)
            copy(first_cell + at, cell + level * cell_layer + item * HIDDEN, HIDDEN, COLUMNS)
    tl.debug_barrier()

    for t in range(length):
        row = t * batch + item
        row_after = row + batch
        kept = (t % rows) * batch + item
        kept_after = ((t + 1) % rows) * batch + item
        layer(
            reads + row * READ,
            hidden + row * HIDDEN,
            recurrent,
            projection + row * GATES,
            gates + row * GATES,
            cell + kept * HIDDEN,
            cell + kept_after * HIDDEN,
            hidden + row_after * HIDDEN,
            READ,
            HIDDEN,
            LSTM,
            KEEP,
            ROWS,
            COLUMNS,
        )
        tl.debug_barrier()
        for level in range(1, LAYERS):
            layer(
                hidden + (level - 1) * hidden_layer + row_after * HIDDEN,
                hidden + level * hidden_layer + row * HIDDEN,
                recurrent + (READ + OWN + (level - 1) * (HIDDEN + OWN)) * GATES,
                bias + (level - 1) * GATES,
                gates + level * gates_layer + row * GATES,
                cell + level * cell_layer + kept * HIDDEN,
                cell + level * cell_layer + kept_after * HIDDEN,
                hidden + level * hidden_layer + row_after * HIDDEN,
                HIDDEN,
                HIDDEN,
                LSTM,
                KEEP,
                ROWS,
                COLUMNS,
            )
            tl.debug_barrier()

        emitted = emissions + ((t % emission_rows) * batch + item) * INTERFACE
        control = hidden + (LAYERS - 1) * hidden_layer + row_after * HIDDEN
        for first in range(0, INTERFACE, EMISSION_COLUMNS):
            c = first + tl.arange(0, EMISSION_COLUMNS)
            inside = c < INTERFACE
            z = product(control, interface, c, inside, HIDDEN, INTERFACE, EMISSION_ROWS, EMISSION_COLUMNS)
            tl.store(emitted + c, z + tl.load(interface_bias + c, mask=inside, other=0.0), mask=inside)
        tl.debug_barrier()

        if KEEP:  # noqa: SIM102 - known when compiled, and the other is not
            if t % segment == 0:
                at = memories + ((t // segment) * batch + item) * SLOTS * WIDTH
                tl.store(at + tile, memory, mask=filled)
        before = weights + kept * HEADS * SLOTS
        after = weights + kept_after * HEADS * SLOTS
        inverse_norm = inverse_norms(memory, norm_eps)
        kept_part = tl.full([SLOT_BLOCK, WIDTH_BLOCK], 1.0, tl.float32)
        added = tl.zeros([SLOT_BLOCK, WIDTH_BLOCK], tl.float32)
        for h in range(WRITES):
            weight = address(
                memory,
                inverse_norm,
                emitted + h * EMISSION,
                before + h * SLOTS,
                ring + h * SLOTS,
                after + h * SLOTS,
                norm_eps,
                weight_eps,
                n,
                w,
                SLOTS,
                WIDTH,
                SHIFTS,
                SHIFT_BLOCK,
            )
            erase, add = erase_and_add(emitted, h, w, HEADS, WRITES, WIDTH, SHIFTS)
            kept_part *= 1.0 - weight[:, None] * erase[None, :]
            added += weight[:, None] * add[None, :]
        memory = memory * kept_part + added
        inverse_norm = inverse_norms(memory, norm_eps)
        for h in range(WRITES, HEADS):
            weight = address(
                memory,
                inverse_norm,
                emitted + h * EMISSION,
                before + h * SLOTS,
                ring + h * SLOTS,
                after + h * SLOTS,
                norm_eps,
                weight_eps,
                n,
                w,
                SLOTS,
                WIDTH,
                SHIFTS,
                SHIFT_BLOCK,
            )
            read = tl.sum(weight[:, None] * memory, 0)
            tl.store(reads + row_after * READ + (h - WRITES) * WIDTH + w, read, mask=w < WIDTH)
        tl.debug_barrier()

    tl.store(last_memory + item * SLOTS * WIDTH + tile, memory, mask=filled)
    row = length * batch + item
    kept = (length % rows) * batch + item
    copy(weights + kept * HEADS * SLOTS, last_write + item * WRITES * SLOTS, WRITES * SLOTS, SLOT_BLOCK)
    copy(weights + (kept * HEADS + WRITES) * SLOTS, last_read + item * READS * SLOTS, READS * SLOTS, SLOT_BLOCK)
    copy(reads + row * READ, last_reads + item * READ, READ, WIDTH_BLOCK)
    if LSTM:
        for level in range(LAYERS):
            at = (item * LAYERS + level) * HIDDEN
            copy(hidden + level * hidden_layer + row * HIDDEN, last_hidden + at, HIDDEN, COLUMNS)
            copy(cell + level * cell_layer + kept * HIDDEN, last_cell + at, HIDDEN, COLUMNS)
