"""The whole-sequence Neural Turing Machine on the CPU; the arithmetic is in ``ntm_cpu.cpp``."""

import math
from typing import Any

from torch import Tensor

from memnet.functional import SHARPEN_EPS
from memnet.kernels import sequence_cpu
from memnet.kernels.ntm_cell import fits_shapes, parameters, sizes_of, state_of, state_tensors

SOURCE = "ntm_cpu.cpp"

ITEMS_PER_THREAD = 16
"""Fewer batch items than this are not worth a thread: copy at batch 4 trained 1.4 times as fast on one of two cores."""


def fits(cell: Any, inputs: Tensor, state: Any) -> bool:
    """Whether ``run`` computes what the plain loop would."""
    return sequence_cpu.fits(SOURCE, fits_shapes, cell, inputs, state)


def run(cell: Any, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    """``memnet.unroll`` for a cell that ``fits``."""
    tensors = [*(state_tensors(state) or ()), *parameters(cell)]
    batch, time, _ = inputs.shape
    training = sequence_cpu.needs_gradients(inputs, *tensors)
    sizes = sizes_of(cell)
    max_gradient = math.inf if cell.max_gradient is None else cell.max_gradient
    call = sequence_cpu.Call(
        SOURCE,
        "ntm",
        # The C++ Sizes and NtmSizes.
        sizes=(
            batch,
            time,
            *(sizes.input, sizes.output, sizes.slots, sizes.width, sizes.read_heads, sizes.write_heads),
            *(sizes.hidden, sizes.layers, sizes.lstm, False),
            training,
            sequence_cpu.segment(time),
            sequence_cpu.num_threads(batch, ITEMS_PER_THREAD),
            sizes.shifts,
        ),
        numbers=(cell.access.read_addressing.inner.score.eps, 0.0, max_gradient, SHARPEN_EPS),
        batch=batch,
        time=time,
        input=sizes.input,
        output=sizes.output,
        state_shapes=sizes.state_shapes(batch),
        lengths=sequence_cpu.own_lengths(lengths),
        training=training,
    )
    outputs, end = sequence_cpu.run(call, inputs, tensors)
    return outputs, state_of(end)
