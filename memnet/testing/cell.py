"""Does a cell keep what ``memnet.Cell`` and ``memnet.unroll`` promise?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from memnet.cells import Cell
from memnet.testing.promises import (
    SCALES,
    gradients,
    project,
    require,
    require_close,
    require_finite,
    require_state,
    require_unchanged,
    require_used,
    shape_and_dtype,
    snapshot,
    take,
    tensors,
)
from memnet.unroll import unroll


def check_cell(make: Callable[[], Cell], *, batch_size: int = 3, time: int = 5) -> None:
    """Checks a cell against everything that ``memnet.Cell`` and ``memnet.unroll`` say.

    Args:
        make: returns a fresh cell.
        batch_size: how many sequences to try, at least 2.
        time: how many steps, at least 3.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for check in (
            _check_step,
            _check_padding,
            _check_chunks,
            _check_items_independent,
            _check_parameters,
            _check_scales,
        ):
            check(make, batch_size, time)


def _check_step(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    cell = make().double()
    require(isinstance(cell, Cell), cell, "it must be a memnet.Cell.")
    inputs = torch.randn(batch_size, time, cell.input_size, dtype=torch.float64)
    state = _start(cell, batch_size)
    require_state(cell, state, batch_size)
    given = [x.clone() for x in (inputs, *tensors(state))]
    before = snapshot(cell)
    output, end = cell(inputs[:, 0], state)
    require(tuple(output.shape) == (batch_size, cell.output_size), cell,
             f"a step's output must be (batch, out) = ({batch_size}, {cell.output_size}), "
             f"and is {tuple(output.shape)}.")  # fmt: skip
    require_state(cell, end, batch_size)
    same = [shape_and_dtype(x) for x in tree_leaves(state)] == [shape_and_dtype(x) for x in tree_leaves(end)]
    require(same, cell, "the state must keep its shapes and dtypes from step to step.")
    require_unchanged(cell, before)
    same = all(torch.equal(x, y) for x, y in zip(given, (inputs, *tensors(state)), strict=True))
    require(same, cell, "inputs and the given state must not be changed in place.")
    require_close(cell(inputs[:, 0], state), (output, end), cell, "the same step twice must give the same.")
    whole = unroll(cell, inputs[:, :1], state)
    require_close(whole, (output[:, None], end), cell, "a sequence of one step must equal the step.")


def _check_padding(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    cell = make().double()
    lengths = torch.tensor([time, 1, *[time - 2] * (batch_size - 2)])
    padded = torch.randn(batch_size, time, cell.input_size, dtype=torch.float64, requires_grad=True)
    outputs, end = unroll(cell, padded, _start(cell, batch_size), lengths)
    recomputed = unroll(cell, padded, _start(cell, batch_size), lengths, checkpoint_every=2)
    require_close(recomputed, (outputs, end), cell, "checkpoint_every must not change outputs or state.")
    for item, length in enumerate(lengths):
        start = take(_start(cell, batch_size), [item])
        alone = unroll(cell, padded[item : item + 1, :length], start)
        expected = alone[0], alone[1]
        require_close((outputs[item : item + 1, :length], take(end, [item])), expected, cell,
                       "a padded sequence must give what it gives alone.")  # fmt: skip
        require(not outputs[item, length:].any(), cell, "outputs beyond a sequence's length must be 0.")
        sources = [padded, *cell.parameters()]
        together = gradients(project([outputs[item : item + 1, :length], *tensors(take(end, [item]))]), sources)
        apart = gradients(project([alone[0], *tensors(alone[1])]), sources)
        require_close(together, apart, cell, "a padded sequence must give the gradients that it gives alone.")


def _check_chunks(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    cell = make().double()
    inputs = torch.randn(batch_size, time, cell.input_size, dtype=torch.float64, requires_grad=True)
    sources = [inputs, *cell.parameters()]

    def outcome(outputs: Tensor, end: Any) -> Any:
        return outputs, end, gradients(project([outputs, *tensors(end)]), sources)

    whole = outcome(*unroll(cell, inputs, _start(cell, batch_size)))
    head, middle = unroll(cell, inputs[:, :2], _start(cell, batch_size))
    tail, end = unroll(cell, inputs[:, 2:], middle)
    chunked = outcome(torch.cat([head, tail], 1), end)
    require_close(chunked, whole, cell, "chunks with carried state must give what the whole sequence gives.")
    recomputed = outcome(*unroll(cell, inputs, _start(cell, batch_size), checkpoint_every=2))
    require_close(recomputed, whole, cell, "checkpoint_every must not change outputs, state or gradients.")


def _check_items_independent(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    cell = make().double()
    inputs = torch.randn(batch_size, time, cell.input_size, dtype=torch.float64, requires_grad=True)
    outputs, end = unroll(cell, inputs, _start(cell, batch_size))
    for items in (list(range(batch_size))[::-1], [0], [batch_size - 1]):
        some = unroll(cell, inputs[items], take(_start(cell, batch_size), items))
        expected = outputs[items], take(end, items)
        require_close(some, expected, cell, "the items of a batch must not depend on one another.")
    (gradient,) = gradients(project([outputs[:1], *tensors(take(end, [0]))]), [inputs])
    require(not gradient[1:].any(), cell, "gradients must not cross from one item of a batch to another.")


def _check_parameters(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    cell = make().double()
    inputs = torch.randn(batch_size, time, cell.input_size, dtype=torch.float64)
    outputs, _ = unroll(cell, inputs, _start(cell, batch_size))
    require_used(cell, project([outputs]))
    other = make().double()
    other.load_state_dict(cell.state_dict())
    again, _ = unroll(other, inputs, _start(other, batch_size))
    require_close(again, outputs, cell, "a cell that loads its state_dict must give the same outputs.")


def _check_scales(make: Callable[[], Cell], batch_size: int, time: int) -> None:
    for scale in SCALES:
        cell = make()
        inputs = (scale * torch.randn(batch_size, time, cell.input_size)).requires_grad_()
        outputs, end = unroll(cell, inputs, _start(cell, batch_size))
        for x in (outputs, *tensors(end)):
            require_finite(x, cell, f"outputs and state must be finite for inputs x {scale:g}.")
        for gradient in gradients(project([outputs, *tensors(end)]), [inputs, *cell.parameters()]):
            require_finite(gradient, cell, f"gradients must be finite for inputs x {scale:g}.")


def _start(cell: Cell, batch_size: int) -> Any:
    """The same state each time, also of a cell that starts from noise."""
    torch.manual_seed(1)
    return cell.init_state(batch_size)
