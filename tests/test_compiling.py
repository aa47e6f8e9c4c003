"""The compiled loop equals the plain one. Compiling takes long, so the tests share one cell's step where they can."""

import copy
import pickle
import warnings
from functools import partial
from typing import NamedTuple

import pytest
import torch
from plugin_example import RecencyAddressing
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves, tree_map_only

from memnet import (
    Cell,
    CosineScore,
    FeedForwardController,
    LSTMController,
    compiling,
    kernels,
    record,
    unroll,
)
from memnet.compiling import backward, capture, programs
from memnet.models import DNC, NTM
from tests.strange_cells import CountState, Strange

BATCH, TIME = 3, 7


def make_model(**options):
    torch.manual_seed(2)
    model = NTM(
        3,
        2,
        num_slots=5,
        slot_size=4,
        controller=partial(options.pop("controller", FeedForwardController), hidden_size=6),
        read_addressing=RecencyAddressing(CosineScore(4)),
        write_addressing=RecencyAddressing(CosineScore(4)),
        **options,
    )
    with torch.no_grad():  # far from the start, where some gradients are 0
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return model


def results(cell, inputs, state=None, compile_steps=True, **options):
    """Outputs, final state and all gradients of some loss on both."""
    inputs = inputs.clone().requires_grad_()
    outputs, end = unroll(cell, inputs, state, compile_steps=compile_steps, **options)
    generator = torch.Generator().manual_seed(7)
    found = [outputs, *(x for x in tree_leaves(end) if x is not None)]
    loss = sum((x * torch.randn(x.shape, generator=generator).to(x.device)).sum() for x in found if x.requires_grad)
    gradients = torch.autograd.grad(loss, [inputs, *cell.parameters()], allow_unused=True)
    return [x.detach() for x in found] + [torch.zeros(()) if g is None else g for g in gradients]


def assert_same(cell, *arguments, **options):
    plain = results(cell, *arguments, compile_steps=False, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "memnet")
        fast = results(cell, *arguments, **options)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


def assert_same_outputs(cell, *arguments, **options):
    """And the same state at the end."""
    (plain, plain_end), (fast, fast_end) = (
        unroll(cell, *arguments, compile_steps=compile_steps, **options) for compile_steps in (False, True)
    )
    for one, other in zip([fast, *tree_leaves(fast_end)], [plain, *tree_leaves(plain_end)], strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def cell():
    """A step with None in its state, clipped gradients and an addressing from outside the package."""
    return make_model(max_gradient=0.05).cell


@pytest.fixture
def inputs():
    return torch.randn(BATCH, TIME, 3)


def test_the_same_numbers_and_gradients(cell, inputs):
    assert_same(cell, inputs)
    assert not compiling._captured[cell].broken


def test_max_gradient_matters_here(cell, inputs):
    """Otherwise the test above would not see whether it is kept."""
    with_bound = results(cell, inputs, compile_steps=False)
    unbound = copy.deepcopy(cell)
    unbound.max_gradient = None
    without = results(unbound, inputs, compile_steps=False)
    assert any((one - other).abs().max() > 1e-3 for one, other in zip(with_bound, without, strict=True))


def test_another_bound(cell, inputs):
    """Which torch.compile would take for a variable, as it has seen one before."""
    results(cell, inputs)
    other = make_model(max_gradient=0.1).cell
    assert_same(other, inputs)
    assert not compiling._captured[other].broken


def test_padded_sequences(cell, inputs):
    assert_same(cell, inputs, lengths=torch.tensor([7, 2, 4]))


def test_another_length_compiles_nothing_new(cell, inputs, monkeypatch):
    results(cell, inputs)
    monkeypatch.setattr(capture, "build", None)
    assert_same(cell, inputs[:, :1])
    assert_same(cell, inputs.repeat(1, 3, 1), lengths=torch.tensor([1, 21, 20]))


def test_chunks_and_a_given_state(cell, inputs):
    whole = results(cell, inputs, compile_steps=False)[0]
    first, state = unroll(cell, inputs[:, :3], compile_steps=True)
    second, _ = unroll(cell, inputs[:, 3:], state, compile_steps=True)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    gradient = torch.autograd.grad(second.sum(), cell.access.interface.weight)[0]
    _, state = unroll(cell, inputs[:, :3])
    expected = torch.autograd.grad(unroll(cell, inputs[:, 3:], state)[0].sum(), cell.access.interface.weight)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_without_gradients_and_with_checkpoints(cell, inputs):
    """Both take the forward program that keeps nothing."""
    with torch.no_grad():
        assert_same_outputs(cell, inputs)
    assert_same(cell, inputs, checkpoint_every=3)
    assert not compiling._captured[cell].broken


@pytest.mark.slow
def test_padded_sequences_with_checkpoints(cell, inputs):
    assert_same(cell, inputs, lengths=torch.tensor([7, 2, 4]), checkpoint_every=3)
    assert not compiling._captured[cell].broken


def test_weights_gradients_are_added_up_in_several_products(cell, inputs, monkeypatch):
    monkeypatch.setattr(backward, "ROWS_AT_ONCE", 2 * BATCH)
    assert_same(cell, inputs)


def test_a_parameter_changed_before_the_backward_pass_is_noticed(cell, inputs):
    outputs, _ = unroll(cell, inputs, compile_steps=True)
    with torch.no_grad():
        cell.output.bias += 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_the_second_backward_pass_is_refused_unless_the_graph_is_kept(cell, inputs):
    outputs, _ = unroll(cell, inputs, compile_steps=True)
    once = torch.autograd.grad(outputs.sum(), cell.output.weight, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(outputs.sum(), cell.output.weight)[0], once)
    with pytest.raises(RuntimeError, match="second time"):
        outputs.sum().backward()


def test_recorded_steps_are_plain(inputs):
    model = make_model(compile_steps=True)
    with record(model) as trace:
        model(inputs)
    assert trace["cell.access.read_addressing"].shape == (BATCH, TIME, 1, 5)
    assert model.cell not in compiling._captured


def test_the_model_itself_stays_what_it_was(cell, inputs):
    names = list(cell.state_dict())
    outputs, _ = unroll(cell, inputs, compile_steps=True)
    assert list(cell.state_dict()) == names == list(make_model().cell.state_dict())
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        torch.testing.assert_close(unroll(other, inputs)[0], outputs)


class AwkwardState(NamedTuple):
    total: Tensor
    same_total: Tensor
    last: Tensor
    before: Tensor
    fixed: Tensor
    steps: Tensor
    count: Tensor


class Awkward(Cell):
    """Two tensors of its state are one object, one is its input, one moves, one stays, and two have no gradient."""

    def __init__(self):
        super().__init__()
        self.input_size = self.output_size = 2
        self.weight = torch.nn.Parameter(torch.tensor([0.5, -1.0]))

    def init_state(self, batch_size):
        zeros = torch.zeros(batch_size, 2)
        fixed = self.weight.expand(batch_size, 2) + 1
        return AwkwardState(zeros, zeros, zeros, zeros, fixed, zeros, torch.zeros(batch_size, dtype=torch.int64))

    def forward(self, x, state):
        total = (0.5 * state.total + 0.2 * state.same_total * state.fixed + self.weight * x).tanh()
        output = total + state.last * state.before + state.fixed.square() * state.count.unsqueeze(1)
        steps = state.steps.detach() + total.detach()
        return output, AwkwardState(total, total, x, state.last, state.fixed, steps, state.count + 1)


def copied(state):
    """What was one tensor stays one; and those copies that may need gradients do."""
    copies = {id(x): x.detach().clone() for x in tree_leaves(state) if x is not None}
    wanted = [x.requires_grad_() for x in copies.values() if x.is_floating_point()]
    return tree_map_only(Tensor, lambda x: copies[id(x)], state), wanted


def assert_same_in_chunks(cell, start, inputs, *lengths):
    """Each chunk begun with the end of the one before; with gradients of the first state."""
    found = []
    for compile_steps in (False, True):
        generator = torch.Generator().manual_seed(5)
        (state, wanted), parts = copied(start), []
        for chunk, left in zip(inputs.split(4, 1), lengths, strict=True):
            outputs, state = unroll(cell, chunk, state, left, compile_steps=compile_steps)
            parts.append(outputs)
        results = [*parts, *(x for x in tree_leaves(state) if x is not None and x.is_floating_point())]
        loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in results)
        gradients = torch.autograd.grad(loss, [*wanted, *cell.parameters()], allow_unused=True)
        found.append([x.detach() for x in results])
        found[-1] += [torch.zeros(()) if g is None else g for g in gradients]
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert not compiling._captured[cell].broken


def test_states_that_are_one_tensor_or_the_input_or_stay_or_have_no_gradient():
    cell = Awkward()
    assert_same_in_chunks(cell, cell.init_state(3), torch.randn(3, 8, 2), None, None)
    assert list(compiling._captured[cell]._steps) == [(True, False)], "full batches need no program with a mask"


@pytest.mark.slow
def test_such_states_of_padded_sequences():
    cell = Awkward()
    assert_same_in_chunks(
        cell, cell.init_state(3), torch.randn(3, 8, 2), torch.tensor([4, 3, 3]), torch.tensor([4, 1, 2])
    )
    assert list(compiling._captured[cell]._steps) == [(True, False), (True, True)]


@pytest.mark.slow
def test_a_differentiable_neural_computer_in_chunks():
    """Where its read heads have read is twice in its state."""
    torch.manual_seed(6)
    cell = DNC(3, 2, num_slots=5, slot_size=4, num_read_heads=2, controller=partial(LSTMController, hidden_size=6)).cell
    with kernels.disabled():  # on a CPU there is one for this cell
        _, state = unroll(cell, torch.randn(3, 2, 3))
        assert state.access.write.read_weights is state.access.read.read_weights
        assert_same_in_chunks(cell, state, torch.randn(3, 8, 3), None, None)
        assert_same_in_chunks(cell, state, torch.randn(3, 8, 3), torch.tensor([4, 3, 3]), torch.tensor([4, 1, 2]))


def test_what_a_step_computes_is_handed_on_without_a_copy():
    def step(x, y):
        computed = x + y
        return computed.clone(), x.clone(), y[:1].clone(), computed[:, :1].expand(2, 3).clone(), computed.clone()

    graph = make_fx(step, tracing_mode="fake")(torch.ones(2, 3), torch.ones(2, 3))
    programs._spare_copies(graph, 4)
    targets = [node.target for node in programs._outputs(graph)]
    copy_of = torch.ops.aten.clone.default
    assert targets == [torch.ops.aten.add.Tensor, copy_of, copy_of, copy_of, copy_of]
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    for result, expected in zip(graph(x, y), step(x, y), strict=True):
        assert torch.equal(result, expected)


class Joined(Cell):
    """One tensor of its state is part of a longer one, where the compiler may leave it."""

    def __init__(self):
        super().__init__()
        self.input_size, self.output_size = 3, 4
        self.weight = torch.nn.Parameter(torch.randn(8, 4))

    def init_state(self, batch_size):
        return torch.zeros(batch_size, 1, 3), torch.zeros(batch_size, 5)

    def forward(self, x, state):
        last, other = (x + state[0].squeeze(1)).tanh(), (state[1] + x.sum(1, keepdim=True)).sin()
        return torch.cat([last, other], 1) @ self.weight, (torch.stack([last], 1), other)


def test_a_state_that_is_part_of_a_longer_tensor():
    torch.manual_seed(4)
    cell, inputs = Joined(), torch.randn(BATCH, TIME, 3)
    with torch.no_grad():
        assert_same_outputs(cell, inputs)
        assert_same_outputs(cell, inputs, lengths=torch.tensor([7, 2, 4]))
    assert_same(cell, inputs)
    assert not compiling._captured[cell].broken


class Forgetful(Strange):
    """Half of what comes in is dropped, as long as it is trained."""

    def __init__(self):
        super().__init__(lambda cell, x, state: None)

    def forward(self, x, state):
        total = state.total + self.weight * torch.nn.functional.dropout(x, 0.5, self.training)
        return total, CountState(total)


@pytest.mark.slow
def test_random_numbers_are_those_of_the_plain_loop():
    cell, inputs, found = Forgetful(), torch.ones(4, 9, 1), []
    for compile_steps in (False, True):
        torch.manual_seed(3)
        found.append([*results(cell, inputs, compile_steps=compile_steps), torch.get_rng_state()])
    for plain, fast in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)
    assert not torch.equal(found[0][0], inputs.cumsum(1))
    cell.eval()  # a change of the module is seen
    assert_same(cell, inputs)


@pytest.mark.slow
def test_batches_of_many_sizes():
    cell = make_model(controller=LSTMController).cell
    for batch in (4, 2, 1):
        assert_same(cell, torch.randn(batch, 5, 3), lengths=torch.arange(batch) + 2)


@pytest.mark.slow
@pytest.mark.parametrize("heads", [1, 2])
def test_the_standard_machine(heads):
    torch.manual_seed(4)
    cell = NTM(3, 2, 6, 4, num_read_heads=heads, num_write_heads=heads).cell
    with kernels.disabled():
        assert_same(cell, torch.randn(3, 9, 3), lengths=torch.tensor([9, 2, 5]))


@pytest.mark.slow
def test_frozen_parameters_and_inputs_without_gradients(inputs):
    cell = make_model(controller=LSTMController).cell
    cell.access.requires_grad_(False)
    outputs, _ = unroll(cell, inputs, compile_steps=True)
    outputs.sum().backward()
    assert cell.access.interface.weight.grad is None
    got, cell.output.weight.grad = cell.output.weight.grad, None
    unroll(cell, inputs)[0].sum().backward()
    torch.testing.assert_close(got, cell.output.weight.grad)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_gradients_of_the_state_that_look_like_a_weight_s(batch):
    """The products for weights are put off to the end; the state's are needed at once."""

    def mixing(cell, x, state):
        total = (cell.mix @ state.total.t()).t() + cell.weight * x
        total = total + (x.t() @ state.total).sum() + state.total.sum(0)
        return total.sum(1, keepdim=True), CountState(total.tanh())

    cell = Strange(mixing)
    cell.mix = torch.nn.Parameter(torch.randn(4, 4))
    cell.init_state = lambda batch_size: CountState(torch.ones(batch_size, 4))
    state = CountState(torch.randn(batch, 4, requires_grad=True))
    inputs = torch.randn(batch, 6, 1)
    assert_same(cell, inputs, state)
    found = []
    for compile_steps in (False, True):
        outputs, _ = unroll(cell, inputs, state, compile_steps=compile_steps)
        found.append(torch.autograd.grad(outputs.square().sum(), state.total)[0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
