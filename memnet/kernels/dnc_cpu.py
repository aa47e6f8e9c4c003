"""The whole-sequence Differentiable Neural Computer on the CPU; the arithmetic is in ``dnc_cpu.cpp``."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from memnet.cells import BypassedOutput
from memnet.functional import SHARPEN_EPS
from memnet.kernels import sequence_cpu
from memnet.kernels.dnc_cell import fits_shapes, parameters, sizes_of, state_of, state_tensors

SOURCE = "dnc_cpu.cpp"

ITEMS_PER_THREAD = 8
"""Fewer batch items than this are not worth a thread: each has about three times a Neural Turing Machine's work."""


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
    layer_eps = cell.controller.norm.eps if sizes.normalized else 0.0
    call = sequence_cpu.Call(
        SOURCE,
        "dnc",
        # The C++ Sizes and DncSizes. There is no output layer.
        sizes=(
            batch,
            time,
            *(sizes.input, 0, sizes.slots, sizes.width, sizes.read_heads, sizes.write_heads),
            *(sizes.hidden, sizes.layers, sizes.lstm, sizes.normalized),
            training,
            sequence_cpu.segment(time),
            sequence_cpu.num_threads(batch, ITEMS_PER_THREAD),
            *(sizes.masked, sizes.erase_freed, sizes.sharpen),
        ),
        numbers=(cell.access.read_addressing.inner.score.eps, layer_eps, max_gradient, SHARPEN_EPS),
        batch=batch,
        time=time,
        input=sizes.input,
        output=sizes.top(),
        state_shapes=sizes.state_shapes(batch),
        lengths=sequence_cpu.own_lengths(lengths),
        training=training,
    )
    top, end = sequence_cpu.run(call, inputs, tensors)
    return _outputs(cell.output, top, lengths), state_of(end, sizes.lstm, sizes.erase_freed)


def _outputs(layer: Any, top: Tensor, lengths: Tensor | None) -> Tensor:
    """The output layer over what the controller gave and the heads read at all steps."""
    batch, time, _ = top.shape
    if type(layer) is BypassedOutput and layer.training and layer.dropout > 0:
        control, reads = top.tensor_split([layer.control_size], -1)
        # Drawn step by step: the random numbers of the plain loop.
        ones = top.new_ones(batch, layer.control_size)
        shown = torch.stack([F.dropout(ones, layer.dropout) for _ in range(time)], 1)
        top = torch.cat([control * shown, reads], -1)
    outputs = F.linear(top, layer.weight, layer.bias)
    if lengths is None:
        return outputs
    real = torch.arange(time) < lengths.to("cpu").unsqueeze(1)
    return torch.where(real.unsqueeze(-1), outputs, 0.0)
