"""The loop over time. Padding, chunks and checkpoints are checked for every cell in test_conformance.py."""

import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from memnet import Cell, LSTMController, kernels, record, unroll
from memnet.models import NTM
from tests.strange_cells import Strange


class CountState(NamedTuple):
    steps: Tensor  # (batch,)
    start: None


class Counter(Cell):
    """Adds up its inputs, and counts how often it is called."""

    def __init__(self):
        super().__init__()
        self.input_size = self.output_size = 1
        self.calls = []
        self.scale = torch.nn.Parameter(torch.ones(1))

    def init_state(self, batch_size):
        return CountState(torch.zeros(batch_size, 1), None)

    def forward(self, x, state):
        self.calls.append(x.detach())
        total = state.steps + self.scale * x
        return total, CountState(total, None)


def test_outputs_and_state_stop_at_each_length():
    inputs = torch.arange(1.0, 6.0).repeat(3, 1)[:, :, None]
    outputs, state = unroll(Counter(), inputs, lengths=torch.tensor([5, 1, 3]))
    assert outputs.squeeze(-1).tolist() == [[1, 3, 6, 10, 15], [1, 0, 0, 0, 0], [1, 3, 6, 0, 0]]
    assert state.steps.squeeze(-1).tolist() == [15, 1, 6]


def test_padding_does_not_matter_however_large():
    cell = LSTMController(3, 4)
    inputs = torch.randn(2, 4, 3)
    lengths = torch.tensor([4, 2])
    clean, _ = unroll(cell, inputs, lengths=lengths)
    inputs[1, 2:] = 1e30
    noisy, _ = unroll(cell, inputs, lengths=lengths)
    assert torch.equal(clean, noisy)


def test_a_given_state_is_where_it_begins():
    outputs, _ = unroll(Counter(), torch.ones(2, 2, 1), CountState(torch.tensor([[10.0], [20.0]]), None))
    assert outputs.squeeze(-1).tolist() == [[11, 12], [21, 22]]


@pytest.mark.parametrize(("every", "calls"), [(None, 7), (1, 14), (3, 14), (100, 14)])
def test_checkpointing_computes_every_step_once_more(every, calls):
    cell = Counter()
    outputs, _ = unroll(cell, torch.ones(2, 7, 1), checkpoint_every=every)
    assert len(cell.calls) == 7
    outputs.sum().backward()
    assert len(cell.calls) == calls


def test_checkpointing_keeps_less():
    """What autograd keeps between the passes: with checkpoints the states at the borders, not all that is in a step."""

    def kept(every):
        cell, sizes = LSTMController(3, 16), []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            unroll(cell, torch.randn(2, 64, 3), checkpoint_every=every)
        return sum(sizes)

    assert kept(8) < kept(None) / 4


def test_checkpointing_keeps_no_graph_of_the_steps():
    """Nodes, too, grow with the number of checkpoints and not of steps: at batch 1 they are most of the memory."""

    def nodes(time, every):
        outputs, _ = unroll(LSTMController(3, 4), torch.randn(1, time, 3), checkpoint_every=every)
        seen, open_ones = set(), [outputs.grad_fn]
        while open_ones:
            node = open_ones.pop()
            if node is not None and node not in seen:
                seen.add(node)
                open_ones += [following for following, _ in node.next_functions]
        return len(seen)

    assert nodes(256, 64) - nodes(128, 32) < 10 < nodes(256, None) - nodes(128, None)


def test_checkpointing_draws_the_same_random_numbers_twice():
    class Dropping(Counter):
        def forward(self, x, state):
            output, state = super().forward(torch.nn.functional.dropout(x, 0.5), state)
            return output, state

    inputs = torch.ones(4, 9, 1, requires_grad=True)
    torch.manual_seed(3)
    outputs, _ = unroll(Dropping(), inputs, checkpoint_every=4)
    (gradient,) = torch.autograd.grad(outputs[:, -1].sum(), inputs)
    drawn = torch.get_rng_state()
    kept = torch.cat([outputs[:, :1], outputs.diff(dim=1)], 1)  # what each step added: 0 or 2
    assert torch.equal(gradient, kept.detach()) and 0 < kept.sum() < 72
    torch.manual_seed(3)
    unroll(Dropping(), inputs, checkpoint_every=4)
    assert torch.equal(torch.get_rng_state(), drawn)  # the backward pass took none from the others


def test_checkpointing_goes_by_the_parameters_of_the_call():
    """Also when they stood in for the cell's own only then, as with torch.func."""
    cell, inputs = LSTMController(3, 4), torch.randn(2, 7, 3)
    others = {name: torch.randn_like(value).requires_grad_() for name, value in cell.named_parameters()}

    class Unrolled(torch.nn.Module):
        def __init__(self, every):
            super().__init__()
            self.cell, self.every = cell, every

        def forward(self, inputs):
            return unroll(self.cell, inputs, checkpoint_every=self.every)[0]

    def gradients(every):
        given = {f"cell.{name}": value for name, value in others.items()}
        outputs = torch.func.functional_call(Unrolled(every), given, (inputs,))
        return torch.autograd.grad(outputs.square().sum(), list(others.values()))

    for saving, plain in zip(gradients(3), gradients(None), strict=True):
        torch.testing.assert_close(saving, plain)


@pytest.mark.parametrize("lengths", [None, [11, 2, 1, 8]])
def test_a_kernel_with_checkpoints_gives_what_it_gives_without(lengths):
    """Lengths end within, at the border of and before a chunk."""
    cell = NTM(3, 2, num_slots=5, slot_size=4, max_gradient=0.1).cell
    inputs = torch.randn(4, 11, 3, requires_grad=True)
    state = tree_map_only(Tensor, lambda x: x.detach().clone().requires_grad_(), cell.init_state(4))
    if kernels.find(cell, inputs, state) is None:
        pytest.skip("there is no C++ compiler here")
    lengths = None if lengths is None else torch.tensor(lengths)
    found = []
    for every in (None, 1, 4, 20):
        outputs, end = unroll(cell, inputs, state, lengths, every)
        made = [outputs, *(x for x in tree_leaves(end) if x is not None)]
        sources = [inputs, *(x for x in tree_leaves(state) if x is not None), *cell.output.parameters()]
        sources += [*cell.controller.layers.parameters(), *cell.access.interface.parameters()]
        found.append([*made, *torch.autograd.grad(sum(x.square().sum() for x in made), sources)])
    for every in found[1:]:
        for saving, whole in zip(every, found[0], strict=True):
            torch.testing.assert_close(
                saving, whole, rtol=1e-4, atol=1e-6 * max(1.0, float(whole.detach().abs().max()))
            )


def test_a_kernel_with_checkpoints_keeps_less():
    def kept(every):
        cell, sizes = NTM(3, 2, num_slots=5, slot_size=4).cell, []
        if kernels.find(cell, torch.zeros(1, 1, 3), cell.init_state(1)) is None:
            pytest.skip("there is no C++ compiler here")
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (sizes.append(x.numel()), x)[1], lambda x: x):
            unroll(cell, torch.randn(1, 900, 3), checkpoint_every=every)
        return sum(sizes)

    parameters = sum(x.numel() for x in NTM(3, 2, num_slots=5, slot_size=4).parameters())
    assert kept(30) - 30 * parameters < (kept(None) - parameters) / 4


def test_without_gradients_nothing_is_checkpointed():
    cell = Counter()
    with torch.no_grad():
        unroll(cell, torch.ones(2, 7, 1), checkpoint_every=2)
    assert len(cell.calls) == 7


def test_recording_and_checkpointing_together_record_each_step_once():
    model = NTM(3, 2, num_slots=5, slot_size=4, checkpoint_every=2)
    with record(model) as trace:
        outputs, _ = model(torch.randn(2, 5, 3))
        outputs.sum().backward()
    assert trace["cell.access.read_addressing"].shape == (2, 5, 1, 5)


def test_the_model_passes_checkpointing_on():
    plain = NTM(3, 2, num_slots=5, slot_size=4)
    saving = NTM(3, 2, num_slots=5, slot_size=4, checkpoint_every=2)
    saving.load_state_dict(plain.state_dict())
    sizes = {}
    for name, model in [("plain", plain), ("saving", saving)]:
        sizes[name] = 0

        def keep(x, name=name):
            sizes[name] += x.numel()
            return x

        with kernels.disabled(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            model(torch.ones(1, 16, 3))
    assert sizes["saving"] < sizes["plain"] / 2


def test_where_the_compiler_is_missing_the_plain_loop_runs_after_a_warning(monkeypatch):
    """Its parts of torch are not public, and another version may not have them."""
    loop = sys.modules["memnet.unroll"]
    monkeypatch.setitem(sys.modules, "memnet.compiling", None)
    loop._compiler.cache_clear()
    cell, inputs = LSTMController(3, 4), torch.randn(2, 5, 3)
    with pytest.warns(UserWarning, match="takes the plain loop, which is slower"):
        outputs, _ = unroll(cell, inputs, compile_steps=True)
    loop._compiler.cache_clear()
    assert torch.equal(outputs, unroll(cell, inputs)[0])


def test_a_backward_hook_is_called_once_a_step_and_takes_no_checkpoints_away():
    ran, heard = [], []

    def body(cell, x, state):
        ran.append(1)
        total = state.total + cell.weight * x
        return total, state._replace(total=total)

    cell = Strange(body)
    cell.register_full_backward_hook(lambda *_: heard.append(1))
    outputs, _ = unroll(cell, torch.randn(2, 6, 1), checkpoint_every=2)
    outputs.sum().backward()
    assert len(heard) == 6
    assert len(ran) == 12  # each step once more on the way back
