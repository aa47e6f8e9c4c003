"""The loop over time. Padding, chunks and checkpoints are checked for every cell in test_conformance.py."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from memnet import Cell, LSTMController, kernels, record, unroll
from memnet.models import NTM


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
