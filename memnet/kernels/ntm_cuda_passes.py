"""The two passes of the whole-sequence Neural Turing Machine on a GPU, around the launches of the Triton kernels.

Everything kept has the time first, so that all steps of all items are the rows of one matrix, and the inputs' and the
outputs' products and the gradients of the weights are products of such matrices.
"""

import importlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memnet.functional import SHARPEN_EPS
from memnet.kernels.ntm_cell import CellSizes
from memnet.kernels.ntm_cuda_sizes import Sizes


class Call(NamedTuple):
    """What a forward pass and its backward pass have in common."""

    sizes: Sizes
    batch: int
    time: int
    padded: bool
    segment: int
    norm_eps: float
    max_gradient: float
    training: bool

    def rows(self, like: Tensor, *shape: int) -> Tensor:
        """Numbers for all steps of all items; those of padding are 0, the others are not yet written."""
        return like.new_zeros(shape) if self.padded else like.new_empty(shape)


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass; see the forward kernel for the shapes."""

    lengths: Tensor
    inputs: Tensor
    hidden: Tensor
    cell: Tensor
    gates: Tensor
    reads: Tensor
    weights: Tensor
    emissions: Tensor
    memories: Tensor


def forward(
    call: Call, lengths: Tensor, inputs: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], Kept]:
    """Outputs, the final state's tensors and what the backward pass needs."""
    cell, batch, time, gates = call.sizes.cell, call.batch, call.time, call.sizes.gates
    shapes = cell.state_shapes(batch)
    first, listed = [x.contiguous() for x in tensors[: len(shapes)]], tensors[len(shapes) :]
    *_, interface_weight, interface_bias, output_weight, output_bias = listed
    by_time = inputs.transpose(0, 1)
    if call.padded:
        # Whatever stands there, NaN too, is multiplied by 0 for the weights' gradients.
        by_time = by_time.masked_fill(_ended(lengths, time), 0.0)
    by_time = by_time.reshape(time * batch, cell.input)
    biases = [_bias(listed, layer, cell.lstm) for layer in range(cell.layers)]
    projection = torch.addmm(biases[0], by_time, listed[0][:, : cell.input].t())

    # Without a backward pass the first layer's are all that is needed, and nothing of the others.
    rows, emission_rows = (time + 1, time) if call.training else (2, 1)
    hidden = call.rows(inputs, cell.layers, time + 1, batch, cell.hidden)
    reads = call.rows(inputs, time + 1, batch, call.sizes.reads)
    states = cell.layers if cell.lstm else 0
    kept = Kept(
        lengths,
        by_time,
        hidden,
        cell=inputs.new_empty(states, rows, batch, cell.hidden),
        gates=inputs.new_empty(states if call.training else 0, time, batch, gates),
        reads=reads,
        weights=inputs.new_empty(rows, batch, cell.read_heads + cell.write_heads, cell.slots),
        emissions=inputs.new_empty(emission_rows, batch, call.sizes.interface),
        memories=inputs.new_empty(
            math.ceil(time / call.segment) if call.training else 0, batch, cell.slots, cell.width
        ),
    )
    end = [inputs.new_empty(shape) for shape in shapes]
    recurrent = [_recurrent(listed, layer, cell).t() for layer in range(cell.layers)]
    nothing = [] if cell.lstm else [inputs.new_empty(0)] * 2
    with _on(inputs.device):
        _kernel("forward")[(batch,)](
            lengths,
            *nothing,
            *first,
            *nothing,
            *end,
            _flat(recurrent),
            _flat(biases[1:]) if cell.layers > 1 else biases[0],
            interface_weight.t().contiguous(),
            interface_bias.contiguous(),
            projection,
            kept.gates,
            hidden,
            kept.cell,
            reads,
            kept.weights,
            kept.emissions,
            torch.empty_like(kept.weights[0]),
            kept.memories,
            batch,
            time,
            rows,
            emission_rows,
            call.segment,
            call.norm_eps,
            SHARPEN_EPS,
            **call.sizes.of_forward(keep=call.training),
        )
    control, read = hidden[-1, 1:].flatten(0, 1), reads[1:].flatten(0, 1)
    outputs = torch.addmm(output_bias, control, output_weight[:, : cell.hidden].t())
    outputs.addmm_(read, output_weight[:, cell.hidden :].t())
    outputs = outputs.view(time, batch, cell.output)
    if call.padded:
        outputs = outputs.masked_fill_(_ended(lengths, time), 0.0)
    return outputs.transpose(0, 1).contiguous(), end, kept


def backward(
    call: Call,
    kept: Kept,
    listed: Sequence[Tensor],
    d_outputs: Tensor | None,
    d_end: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of the inputs, the initial state and the parameters, as far as they are wanted."""
    cell, batch, time, hidden_size = call.sizes.cell, call.batch, call.time, call.sizes.cell.hidden
    *_, interface_weight, _, output_weight, _ = listed
    shapes = cell.state_shapes(batch)
    if d_outputs is None:
        d_out = kept.inputs.new_zeros(time * batch, cell.output)
    else:
        by_time = d_outputs.transpose(0, 1)
        if call.padded:
            by_time = by_time.masked_fill(_ended(kept.lengths, time), 0.0)
        d_out = by_time.reshape(time * batch, cell.output)
    d_control = d_out @ output_weight[:, :hidden_size]
    d_reads_above = d_out @ output_weight[:, hidden_size:]
    d_gates = call.rows(kept.inputs, cell.layers, time * batch, call.sizes.gates)
    d_emissions = call.rows(kept.inputs, time * batch, call.sizes.interface)
    # The kernel turns the gradients of the last state into those of the first one.
    d_state = _like_end(kept.inputs, shapes, d_end)
    nothing = [] if cell.lstm else [kept.inputs.new_empty(0)] * 2
    heads = kept.weights[0]
    with _on(kept.inputs.device):
        _kernel("backward")[(batch,)](
            kept.lengths,
            _flat([_recurrent(listed, layer, cell) for layer in range(cell.layers)]),
            interface_weight.contiguous(),
            kept.gates,
            kept.hidden,
            kept.cell,
            kept.weights,
            kept.emissions,
            kept.memories,
            d_control,
            d_reads_above,
            d_gates,
            d_emissions,
            *nothing,
            *d_state,
            heads.new_empty(batch, hidden_size),
            torch.empty_like(heads),
            torch.empty_like(heads),
            heads.new_empty(call.segment, batch, cell.slots, cell.width),
            batch,
            time,
            call.segment,
            call.norm_eps,
            SHARPEN_EPS,
            call.max_gradient,
            **call.sizes.of_backward(),
        )
    inputs_wanted, *rest = wanted
    d_inputs = None
    if inputs_wanted:
        d_inputs = (d_gates[0] @ listed[0][:, : cell.input]).view(time, batch, cell.input).transpose(0, 1).contiguous()
    states_wanted, listed_wanted = rest[: len(shapes)], rest[len(shapes) :]
    d_listed: Sequence[Tensor | None] = [None] * len(listed)
    if any(listed_wanted):
        d_listed = _parameter_gradients(call, kept, d_out, d_gates, d_emissions)
    gradients = [*d_state, *d_listed]
    return [
        d_inputs,
        *(d if want else None for d, want in zip(gradients, [*states_wanted, *listed_wanted], strict=True)),
    ]


def _parameter_gradients(call: Call, kept: Kept, d_out: Tensor, d_gates: Tensor, d_emissions: Tensor) -> list[Tensor]:
    """One product over all steps for each weight, or for each part of it that comes from elsewhere."""
    cell = call.sizes.cell
    before, after = kept.hidden[:, :-1].flatten(1, 2), kept.hidden[:, 1:].flatten(1, 2)
    reads_before, reads_after = kept.reads[:-1].flatten(0, 1), kept.reads[1:].flatten(0, 1)
    listed: list[Tensor] = []
    for layer, d in enumerate(d_gates):
        below = (after[layer - 1],) if layer else (kept.inputs, reads_before)
        listed += [_products(d, *below), d.sum(0)]
        if cell.lstm:
            listed[-1:] = [_products(d, before[layer]), listed[-1], listed[-1].clone()]
    listed += [_products(d_emissions, after[-1]), d_emissions.sum(0)]
    return [*listed, _products(d_out, after[-1], reads_after), d_out.sum(0)]


def _products(left: Tensor, *right: Tensor) -> Tensor:
    """left^T [right, ...]."""
    whole = left.new_empty(left.shape[1], sum(x.shape[1] for x in right))
    for x, part in zip(right, whole.split([x.shape[1] for x in right], 1), strict=True):
        torch.mm(left.t(), x, out=part)
    return whole


def _bias(listed: Sequence[Tensor], layer: int, lstm: bool) -> Tensor:
    return listed[layer * 4 + 2] + listed[layer * 4 + 3] if lstm else listed[layer * 2 + 1]


def _recurrent(listed: Sequence[Tensor], layer: int, cell: CellSizes) -> Tensor:
    """(gate, what comes from the reads or the layer below, and the layer's own output)."""
    below = listed[layer * (4 if cell.lstm else 2)]
    if layer == 0:
        below = below[:, cell.input :]
    return torch.cat([below, listed[layer * 4 + 1]], 1) if cell.lstm else below


def _flat(matrices: Sequence[Tensor]) -> Tensor:
    """All of them in one piece, each row by row."""
    return torch.cat([x.reshape(-1) for x in matrices]) if len(matrices) > 1 else matrices[0].contiguous()


def _like_end(like: Tensor, shapes: Sequence[tuple[int, ...]], d_end: Sequence[Tensor | None]) -> list[Tensor]:
    """Copies of the gradients of the last state, zeros where there are none."""
    counts = [math.prod(shape) for shape in shapes]
    # Each begins on a multiple of 16 bytes: Triton compiles another kernel for pointers that do not.
    places = [math.ceil(count / 4) * 4 for count in counts]
    parts = like.new_zeros(sum(places)).split(places)
    state = [part[:count].view(shape) for part, count, shape in zip(parts, counts, shapes, strict=True)]
    for own, given in zip(state, d_end, strict=True):
        if given is not None:
            own.copy_(given)
    return state


def _ended(lengths: Tensor, time: int) -> Tensor:
    """(time, batch, 1)"""
    return (torch.arange(time, device=lengths.device)[:, None] >= lengths)[..., None]


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def _kernel(name: str) -> Any:
    """Triton is only imported when there is something to run with it."""
    return getattr(importlib.import_module(f"memnet.kernels.ntm_triton_{name}"), name)
