"""Controllers and the memory cell. What holds for every cell is in test_conformance.py."""

import math

import pytest
import torch
from reference.paper import paper_ntm
from torch.utils._pytree import tree_leaves, tree_map_only

from memnet import DNC, MANN, NTM, FeedForwardController, LSTMController, kernels, unroll


def test_lstm_controller_is_torchs_lstm():
    """Two layers over time against torch's own, with the same weights and a start that is not 0."""
    controller = LSTMController(3, hidden_size=4, num_layers=2).double()
    reference = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True).double()
    with torch.no_grad():
        for layer, cell in enumerate(controller.layers):
            for name, parameter in cell.named_parameters():
                getattr(reference, f"{name}_l{layer}").copy_(parameter)
        controller.initial_hidden.normal_()
        controller.initial_cell.normal_()
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    state = controller.init_state(2)
    expected, (hidden, cell) = reference(inputs, (state.hidden.transpose(0, 1).contiguous(),
                                                  state.cell.transpose(0, 1).contiguous()))  # fmt: skip
    for step in range(5):
        output, state = controller(inputs[:, step], state)
        torch.testing.assert_close(output, expected[:, step])
    torch.testing.assert_close(state.hidden, hidden.transpose(0, 1))
    torch.testing.assert_close(state.cell, cell.transpose(0, 1))


def test_feed_forward_controller_remembers_nothing():
    controller = FeedForwardController(3, hidden_size=4, num_layers=2).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    first, second = controller.layers
    expected = torch.tanh(torch.tanh(x @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    output, state = controller(x, controller.init_state(2))
    torch.testing.assert_close(output, expected)
    assert state is None


def test_the_start_of_every_sequence_is_learned():
    """Controller state, reads and both sides' weights get gradients from one step (Graves et al. 2014, sec. 4)."""
    model = paper_ntm(3, 2, num_slots=5, slot_size=4, num_read_heads=2)
    outputs, _ = model(torch.randn(2, 1, 3))
    outputs.square().sum().backward()
    cell = model.cell
    learned = [cell.initial_reads, cell.controller.initial_hidden, cell.controller.initial_cell]
    learned += [cell.access.read_addressing.start.logits, cell.access.write_addressing.start.logits]
    for parameter in learned:
        assert parameter.grad.any()
    assert cell.initial_reads.shape == (2, 4)


def test_the_output_sees_the_controller_and_what_is_read_in_the_same_step():
    cell = NTM(3, 2, num_slots=5, slot_size=4, num_read_heads=2).cell
    x, start = torch.randn(2, 3), cell.init_state(2)
    output, state = cell(x, start)
    control, _ = cell.controller(torch.cat([x, start.reads.flatten(1)], -1), start.controller)
    torch.testing.assert_close(output, cell.output(torch.cat([control, state.reads.flatten(1)], -1)))


def tensors(state):
    return [each for each in tree_leaves(state) if each is not None]


def test_gradients_of_the_state_are_clipped_at_every_step():
    """By hand: the chain of steps with a clamp between them."""
    model = NTM(3, 2, num_slots=5, slot_size=4, max_gradient=0.02).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    cell, x = model.cell, torch.randn(2, 3, 3, dtype=torch.float64)
    start = tree_map_only(torch.Tensor, lambda each: each.detach().requires_grad_(), cell.init_state(2))
    with kernels.disabled():
        loss = unroll(cell, x, start)[0].square().sum()
    got = torch.autograd.grad(loss, tensors(start))

    cell.max_gradient = None
    states, outputs = [start], []
    for step in x.unbind(1):
        output, state = cell(step, states[-1])
        outputs.append(output)
        states.append(tree_map_only(torch.Tensor, lambda each: each.detach().requires_grad_(), state))
    later = [torch.zeros_like(each) for each in tensors(start)]
    for step in reversed(range(3)):
        output, state = cell(x[:, step], states[step])
        total = output.square().sum() + sum((a * b).sum() for a, b in zip(tensors(state), later, strict=True))
        gradients = torch.autograd.grad(total, tensors(states[step]))
        later = [each.clamp(-0.02, 0.02) for each in gradients]
    for ours, expected in zip(got, later, strict=True):
        torch.testing.assert_close(ours, expected)
    assert max(each.abs().max() for each in got) == 0.02  # the bound was met


def test_a_bound_that_is_none_is_refused():
    for bound in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"max_gradient is {bound}, but must be greater than 0"):
            NTM(3, 2, max_gradient=bound)


@pytest.mark.parametrize("make", [NTM, DNC, MANN])
def test_gradients_do_not_overflow(make):
    """Large weights magnify them at every step: what training at too high a rate ends in."""

    def largest_gradient(**bound: None) -> float:
        torch.manual_seed(1)
        model = make(4, 3, num_slots=6, slot_size=4, controller=lambda size: FeedForwardController(size, 8), **bound)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(20)
        model(torch.randn(2, 200, 4))[0][:, -1].sum().backward()
        return float(torch.cat([each.grad.flatten() for each in model.parameters()]).abs().max())

    assert largest_gradient() < 1e9
    assert not largest_gradient(max_gradient=None) < 1e12  # or NaN


def test_forward_derivatives_are_not_clipped():
    cell = NTM(3, 2, num_slots=5, slot_size=4).double().cell
    x, along = torch.randn(2, 2, 6, 3, dtype=torch.float64)

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return unroll(cell, inputs)[0].square().sum()

    assert cell.max_gradient is not None
    _, derivative = torch.func.jvp(run, (x,), (along,))
    torch.testing.assert_close(derivative, (torch.func.grad(run)(x) * along).sum())
