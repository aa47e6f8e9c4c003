"""Products with a step's input are made for all steps at once, and the numbers stay the plain loop's."""

from typing import NamedTuple

import pytest
import torch
from test_compiling import BATCH, TIME, assert_same, assert_same_outputs, make_model
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import Cell, FeedForwardController, LSTMController, compiling, unroll
from memnet.compiling import programs, projections

INPUT, OUTPUT = 3, 4


class LastState(NamedTuple):
    last: Tensor


class Mixing(Cell):
    """A cell of which a test writes what it makes of its input and of its last output."""

    def __init__(self, mix, columns=INPUT + OUTPUT):
        super().__init__()
        self.input_size, self.output_size, self.mix = INPUT, OUTPUT, mix
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(OUTPUT, columns, generator=generator))
        self.bias = nn.Parameter(torch.randn(OUTPUT, generator=generator))

    def init_state(self, batch_size):
        return LastState(torch.full((batch_size, OUTPUT), 0.3))

    def forward(self, x, state):
        output = self.mix(self, x, state.last).tanh()
        return output, LastState(output)


def input_first(cell, x, last):
    return F.linear(torch.cat([x, last], -1), cell.weight, cell.bias)


def input_last(cell, x, last):
    return F.linear(torch.cat([last, x], 1), cell.weight)


def three_parts(cell, x, last):
    return F.linear(torch.cat([x, last, last * 2], -1), cell.weight, cell.bias)


def input_in_the_middle(cell, x, last):
    return F.linear(torch.cat([last, x, last * 2], -1), cell.weight, cell.bias)


def twice_the_input(cell, x, last):
    return F.linear(torch.cat([x, x, last], -1), cell.weight, cell.bias)


def seen_elsewhere(cell, x, last):
    """The input and the matrix, each in two ways, of which the last is no product of both."""
    return input_first(cell, x, last) + x.sum(1, keepdim=True) * F.linear(last, cell.weight[:, :OUTPUT])


def two_products(cell, x, last):
    return input_first(cell, x, last) * F.linear(torch.cat([x, last.sin()], -1), cell.weight, cell.bias)


def changed_before(cell, x, last):
    return F.linear(torch.cat([x * last.sum(1, keepdim=True), last], -1), cell.weight, cell.bias)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """As if it were worth while for the narrow inputs of these tests, too."""
    monkeypatch.setattr(projections, "LEAST_WIDTH", INPUT)


@pytest.fixture
def taken(monkeypatch):
    """What was taken out of the steps that were compiled, a list for each."""
    found = []

    def take_out(*arguments):
        found.append(take(*arguments))
        return found[-1]

    take = programs.take_out
    monkeypatch.setattr(programs, "take_out", take_out)
    return found


@pytest.fixture
def inputs():
    return torch.randn(BATCH, TIME, INPUT)


@pytest.mark.parametrize(
    ("mix", "columns", "parts"),
    [
        (input_first, 7, [(0, 3, True)]),
        (input_last, 7, [(4, 7, True)]),
        (three_parts, 11, [(0, 3, True)]),
        (seen_elsewhere, 7, [(0, 3, True)]),
        (two_products, 7, [(0, 3, True)] * 2),
        (input_in_the_middle, 11, []),
        (twice_the_input, 10, []),
        (changed_before, 7, []),
    ],
)
def test_a_cell_of_ones_own(mix, columns, parts, inputs, taken):
    cell = Mixing(mix, columns)
    assert_same(cell, inputs)
    assert [[(each.begin, each.end, each.rest is not None) for each in step] for step in taken] == [parts]
    assert not compiling._captured[cell].broken


@pytest.mark.parametrize("controller", [LSTMController, FeedForwardController])
def test_a_controller_alone(controller, inputs, taken):
    """Which has its whole first matrix taken out."""
    cell = controller(INPUT, 5, num_layers=2)
    assert_same(cell, inputs)
    assert [[(each.begin, each.end, each.rest) for each in step] for step in taken] == [[(0, INPUT, None)]]


def test_a_memory_with_an_lstm(inputs, taken):
    cell = make_model(controller=LSTMController).cell
    assert_same(cell, inputs, lengths=torch.tensor([7, 2, 4]))
    assert len(taken) == 2 and all(len(step) == 1 and step[0].rest is not None for step in taken)
    assert not compiling._captured[cell].broken


@pytest.mark.slow
def test_a_memory_in_parts_and_in_batches_of_other_sizes(inputs):
    cell = make_model(controller=LSTMController).cell
    assert_same(cell, inputs[:, :1])
    assert_same(cell, inputs, checkpoint_every=3)
    assert_same(cell, torch.randn(2 * BATCH, TIME, INPUT))
    with torch.no_grad():
        assert_same_outputs(cell, inputs)
    assert not compiling._captured[cell].broken


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_frozen_parameters_and_inputs_without_gradients(frozen, inputs, taken):
    cell = Mixing(input_first)
    getattr(cell, frozen).requires_grad_(False)
    wanted = [each for each in cell.parameters() if each.requires_grad]
    found = []
    for compile_steps in (False, True):
        outputs, _ = unroll(cell, inputs, compile_steps=compile_steps)
        found.append(torch.autograd.grad(outputs.square().sum(), wanted))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert [len(step) for step in taken] == [1]


def test_narrow_inputs_are_left_alone(inputs, taken, monkeypatch):
    monkeypatch.setattr(projections, "LEAST_WIDTH", INPUT + 1)
    assert_same(Mixing(input_first), inputs)
    assert taken == [[]]


def test_a_cell_of_another_width_in_the_same_process(inputs, taken):
    """Which torch.compile would take for a variable, as it has seen another one before."""
    for width in (INPUT, INPUT + 2):
        assert_same(LSTMController(width, 5), torch.randn(BATCH, TIME, width))
    assert [len(step) for step in taken] == [1, 1]


def test_a_matrix_that_changes_between_sequences(inputs):
    cell = Mixing(input_first)
    assert_same(cell, inputs)
    with torch.no_grad():
        cell.weight *= -0.5
    assert_same(cell, inputs)


def test_a_matrix_changed_before_the_backward_pass_is_noticed(inputs):
    cell = Mixing(input_first)
    outputs, _ = unroll(cell, inputs.requires_grad_(), compile_steps=True)
    with torch.no_grad():
        cell.weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
