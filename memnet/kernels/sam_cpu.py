"""The whole-sequence sparse access memory on the CPU; the arithmetic is in ``sam_cpu.cpp``."""

import math
from typing import Any

from torch import Tensor

from memnet.functional import NORM_EPS, SHARPEN_EPS
from memnet.kernels import sequence_cpu
from memnet.kernels.sam_cell import fits_shapes, parameters, sizes_of, state_of, state_tensors, without_links

SOURCE = "sam_cpu.cpp"

ITEMS_PER_THREAD = 8
"""Fewer batch items than this are not worth a thread."""


def fits(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether ``run`` computes what the plain loop would."""
    return sequence_cpu.fits(SOURCE, fits_shapes, cell, inputs, state)


def run(cell: Any, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """``memnet.unroll`` for a cell that ``fits``."""
    tensors = [*(state_tensors(state) or ()), *parameters(cell)]
    batch, time, _ = inputs.shape
    training = sequence_cpu.needs_gradients(inputs, *tensors)
    sizes = sizes_of(cell)
    used = int(without_links(state.access).in_use.max())
    sparse = 2 * used <= sizes.slots
    call = sequence_cpu.Call(
        SOURCE,
        "sam",
        # The C++ Sizes and SamSizes. Each head reads and writes. No memory is kept between steps.
        sizes=(
            batch,
            time,
            *(sizes.input, sizes.output, sizes.slots, sizes.width, sizes.heads, sizes.heads),
            *(sizes.hidden, sizes.layers, sizes.lstm, False),
            training,
            time,
            sequence_cpu.num_threads(batch, ITEMS_PER_THREAD),
            *(sizes.near, used, sparse, sizes.links),
        ),
        numbers=(NORM_EPS, 0.0, math.inf, cell.access.access_threshold, SHARPEN_EPS),
        batch=batch,
        time=time,
        input=sizes.input,
        output=sizes.output,
        state_shapes=sizes.state_shapes(batch),
        lengths=sequence_cpu.own_lengths(lengths),
        training=training,
        zeroed=frozenset(sizes.places_of_zeros() if sparse else ()),
    )
    outputs, end = sequence_cpu.run(call, inputs, tensors)
    return outputs, state_of(end, sizes.links)
