"""The sequence backwards, in Triton: one program for each batch item (see ``ntm_cuda``)."""

from typing import no_type_check

import triton
import triton.language as tl

from memnet.kernels.ntm_triton_common import erase_and_add, product
from memnet.kernels.ntm_triton_gradients import address_gradient, bounded, kept_by, layer_gradient


@triton.jit(do_not_specialize=["batch", "time", "segment"])
@no_type_check
def backward(
    lengths,  # (batch)
    recurrent,  # by layer: from gates to (below without the inputs, own output)
    interface,  # (emission, hidden)
    gates,  # what the forward kernel has left, see there
    hidden,
    cell,
    weights,
    emissions,
    memories,
    d_control,  # (time, batch, hidden), from the outputs
    d_reads_above,  # (time, batch, head * width), from the outputs
    d_gates,  # (layer, time, batch, gate), before the activations
    d_emissions,  # (time, batch, emission), before the activations
    d_hidden,  # the state: gradients of the last one at first, of the first one in the end
    d_cell,
    d_memory,
    d_write,
    d_read,
    d_reads,
    d_above,  # (batch, hidden)
    ring,  # (batch, head, slot)
    d_ring,  # (batch, head, slot)
    rebuilt,  # (segment, batch, slot, width)
    batch,
    time,
    segment,
    norm_eps,
    weight_eps,
    most,
    SLOTS: tl.constexpr,
    WIDTH: tl.constexpr,
    READS: tl.constexpr,
    WRITES: tl.constexpr,
    SHIFTS: tl.constexpr,
    HIDDEN: tl.constexpr,
    LAYERS: tl.constexpr,
    LSTM: tl.constexpr,
    CLIP: tl.constexpr,
    SLOT_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
    SHIFT_BLOCK: tl.constexpr,
    HIDDEN_ROWS: tl.constexpr,
    HIDDEN_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
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
    gates_layer = time * batch.to(tl.int64) * GATES
    n = tl.arange(0, SLOT_BLOCK)
    w = tl.arange(0, WIDTH_BLOCK)
    tile = n[:, None] * WIDTH + w[None, :]
    filled = (n < SLOTS)[:, None] & (w < WIDTH)[None, :]
    ring += item * HEADS * SLOTS
    d_ring += item * HEADS * SLOTS
    d_above += item * HIDDEN
    d_hidden += item * LAYERS * HIDDEN
    d_cell += item * LAYERS * HIDDEN
    d_memory += item * SLOTS * WIDTH
    d_write += item * WRITES * SLOTS
    d_read += item * READS * SLOTS
    d_reads += item * READ

    d_now = tl.load(d_memory + tile, mask=filled, other=0.0)
    segments = (length + segment - 1) // segment
    for back in range(segments):
        s = segments - 1 - back
        first_step = s * segment
        steps = tl.minimum(length - first_step, segment)
        # The segment's memories from what was written, up to the one after its last step.
        memory = tl.load(memories + (s * batch + item) * SLOTS * WIDTH + tile, mask=filled, other=0.0)
        for k in range(steps):
            row = (first_step + k) * batch + item
            tl.store(rebuilt + (k * batch + item) * SLOTS * WIDTH + tile, memory, mask=filled)
            after = weights + (row + batch) * HEADS * SLOTS
            emitted = emissions + row * INTERFACE
            kept, added = kept_by(
                emitted, after, -1, n, w, HEADS, WRITES, SLOTS, WIDTH, SHIFTS, SLOT_BLOCK, WIDTH_BLOCK
            )
            memory = memory * kept + added
        tl.debug_barrier()

        for k_back in range(steps):
            k = steps - 1 - k_back
            row = (first_step + k) * batch + item
            row_after = row + batch
            emitted = emissions + row * INTERFACE
            d_emitted = d_emissions + row * INTERFACE
            before = weights + row * HEADS * SLOTS
            after = weights + row_after * HEADS * SLOTS
            for h in range(READS):
                weight = tl.load(after + (WRITES + h) * SLOTS + n, mask=n < SLOTS, other=0.0)
                d_r = tl.load(d_reads_above + row * READ + h * WIDTH + w, mask=w < WIDTH, other=0.0)
                d_r += tl.load(d_reads + h * WIDTH + w, mask=w < WIDTH, other=0.0)
                d_weight = tl.load(d_read + h * SLOTS + n, mask=n < SLOTS, other=0.0)
                d_weight += tl.sum(memory * d_r[None, :], 1)
                d_now += weight[:, None] * d_r[None, :]
                d_now = address_gradient(
                    memory,
                    d_weight,
                    d_now,
                    emitted + (WRITES + h) * EMISSION,
                    d_emitted + (WRITES + h) * EMISSION,
                    before + (WRITES + h) * SLOTS,
                    after + (WRITES + h) * SLOTS,
                    d_read + h * SLOTS,
                    ring + (WRITES + h) * SLOTS,
                    d_ring + (WRITES + h) * SLOTS,
                    norm_eps,
                    weight_eps,
                    most,
                    n,
                    w,
                    SLOTS,
                    WIDTH,
                    SHIFTS,
                    SHIFT_BLOCK,
                    CLIP,
                )

            # From here on ``memory`` is the one before the step, and ``d_before`` its gradient.
            memory = tl.load(rebuilt + (k * batch + item) * SLOTS * WIDTH + tile, mask=filled, other=0.0)
            kept, _ = kept_by(emitted, after, -1, n, w, HEADS, WRITES, SLOTS, WIDTH, SHIFTS, SLOT_BLOCK, WIDTH_BLOCK)
            d_before = d_now * kept
            for h in range(WRITES):
                weight = tl.load(after + h * SLOTS + n, mask=n < SLOTS, other=0.0)
                erase, add = erase_and_add(emitted, h, w, HEADS, WRITES, WIDTH, SHIFTS)
                erased = memory
                if WRITES > 1:
                    others, _ = kept_by(
                        emitted, after, h, n, w, HEADS, WRITES, SLOTS, WIDTH, SHIFTS, SLOT_BLOCK, WIDTH_BLOCK
                    )
                    erased = memory * others
                d_weight = tl.load(d_write + h * SLOTS + n, mask=n < SLOTS, other=0.0)
                d_weight += tl.sum(d_now * (add[None, :] - erase[None, :] * erased), 1)
                through = d_now * weight[:, None]
                d_add = tl.sum(through, 0) * (1.0 - add * add)
                d_erase = -tl.sum(through * erased, 0) * erase * (1.0 - erase)
                at = d_emitted + HEADS * EMISSION + h * WIDTH + w
                tl.store(at, d_erase, mask=w < WIDTH)
                tl.store(at + WRITES * WIDTH, d_add, mask=w < WIDTH)
                d_before = address_gradient(
                    memory,
                    d_weight,
                    d_before,
                    emitted + h * EMISSION,
                    d_emitted + h * EMISSION,
                    before + h * SLOTS,
                    after + h * SLOTS,
                    d_write + h * SLOTS,
                    ring + h * SLOTS,
                    d_ring + h * SLOTS,
                    norm_eps,
                    weight_eps,
                    most,
                    n,
                    w,
                    SLOTS,
                    WIDTH,
                    SHIFTS,
                    SHIFT_BLOCK,
                    CLIP,
                )
            d_now = bounded(d_before, most, CLIP)
            tl.debug_barrier()

            for first in range(0, HIDDEN, HIDDEN_COLUMNS):
                j = first + tl.arange(0, HIDDEN_COLUMNS)
                inside = j < HIDDEN
                d = product(d_emitted, interface, j, inside, INTERFACE, HIDDEN, HIDDEN_ROWS, HIDDEN_COLUMNS)
                d += tl.load(d_control + row * HIDDEN + j, mask=inside, other=0.0)
                tl.store(d_above + j, d, mask=inside)
            tl.debug_barrier()
            for below in range(1, LAYERS):
                upper = LAYERS - below
                layer_gradient(
                    d_above,
                    d_hidden + upper * HIDDEN,
                    d_cell + upper * HIDDEN,
                    gates + upper * gates_layer + row * GATES,
                    cell + upper * hidden_layer + row * HIDDEN,
                    cell + upper * hidden_layer + row_after * HIDDEN,
                    hidden + upper * hidden_layer + row_after * HIDDEN,
                    d_gates + upper * gates_layer + row * GATES,
                    recurrent + (READ + OWN + (upper - 1) * (HIDDEN + OWN)) * GATES,
                    d_above,
                    most,
                    HIDDEN,
                    HIDDEN,
                    LSTM,
                    CLIP,
                    False,  # what goes to the layer below stays within the step
                    HIDDEN_COLUMNS,
                    ROWS,
                    COLUMNS,
                )
            layer_gradient(
                d_above,
                d_hidden,
                d_cell,
                gates + row * GATES,
                cell + row * HIDDEN,
                cell + row_after * HIDDEN,
                hidden + row_after * HIDDEN,
                d_gates + row * GATES,
                recurrent,
                d_reads,
                most,
                READ,
                HIDDEN,
                LSTM,
                CLIP,
                CLIP,
                HIDDEN_COLUMNS,
                ROWS,
                COLUMNS,
            )
    tl.store(d_memory + tile, d_now, mask=filled)
