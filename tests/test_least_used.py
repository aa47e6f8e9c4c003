"""Least recently used access: the paper's equations, several heads, masks, and a memory that is full."""

from functools import partial

import numpy as np
import pytest
import torch

from memnet import MANN, FeedForwardController, LeastUsedAddressing, record
from memnet.addressing.least_used import least_used
from memnet.functional import NORM_EPS
from tests.reference import mann as reference


@pytest.mark.parametrize(
    ("num_slots", "num_heads", "time"),
    [(9, 1, 6), (4, 1, 9), (9, 3, 7), (3, 3, 6), (2, 3, 5)],  # room for all, full, several heads, more heads than slots
)
def test_it_computes_the_paper_s_equations(num_slots, num_heads, time):
    controller = partial(FeedForwardController, hidden_size=6)
    model = MANN(3, 2, num_slots, 4, num_heads, usage_decay=0.9, controller=controller).double()
    access = model.cell.access
    access.interface.weight.data *= 4
    sequence = torch.randn(time, 2, 6, dtype=torch.float64)
    state = access.init_state(2)
    results = []
    with record(model) as trace:
        for control in sequence:
            reads, state = access(control, state)
            results.append((reads.detach(), state.memory.detach(), state.write.usage.detach()))
    for item in range(2):
        memory, usage, last = np.full((num_slots, 4), 1e-6), np.zeros(num_slots), None
        for step, (reads, written, used) in enumerate(results):
            raw = access.interface(sequence[step, item]).detach().numpy()
            parts = np.split(raw, np.cumsum([num_heads, 5 * num_heads, 4 * num_heads]))
            alphas, reading, erases, adds = (part.reshape(num_heads, -1) for part in parts)
            emissions = [
                (alpha[0], own[:4], own[4], erase, add)
                for alpha, own, erase, add in zip(alphas, reading, erases, adds, strict=True)
            ]
            writes, last, expected, memory, usage = reference.step(emissions, memory, usage, last, 0.9, NORM_EPS)
            for got, right in [
                (trace["cell.access.write_addressing"][item, step], writes),
                (trace["cell.access.read_addressing"][item, step], last),
                (reads[item], expected),
                (written[item], memory),
                (used[item], usage),
            ]:
                np.testing.assert_allclose(got.numpy(), right, rtol=1e-9, atol=1e-12)


def test_each_head_has_a_least_used_slot_of_its_own():
    usage = torch.tensor([[0.5, 0.1, 0.3, 0.1]])
    assert least_used(usage, 3).argmax(-1).tolist() == [[1, 3, 2]]
    assert least_used(usage, 6).argmax(-1).tolist() == [[1, 3, 2, 0, 1, 3]]
    mask = torch.tensor([[True, False, True, True]])
    assert least_used(usage, 4, mask).argmax(-1).tolist() == [[3, 2, 0, 3]]
    none = torch.zeros(1, 4, dtype=torch.bool)
    assert not least_used(usage, 2, none).any()


def test_the_first_write_is_into_the_least_used_slot_whatever_the_gate():
    scheme = LeastUsedAddressing()
    keys = torch.randn(2, 4, 3)
    state = scheme.init_state(keys, 2)
    weights, state = scheme(torch.full((2, 2, 1), 20.0), keys, state)
    assert torch.equal(weights, torch.eye(4)[:2].expand(2, 2, 4))
    assert torch.equal(scheme.kept(state), torch.tensor([[0.0, 0, 1, 1]] * 2))


def test_with_other_numbers_of_read_heads_the_mean_of_their_weights_counts():
    scheme = LeastUsedAddressing()
    keys = torch.randn(1, 4, 3)
    state = scheme.init_state(keys, 1)
    reads = torch.tensor([[[1.0, 0, 0, 0], [0, 0, 1.0, 0]]])
    state = scheme.after_read(reads, scheme.after_write(torch.tensor([[[1.0, 0, 0, 0]]]), state))
    weights, _ = scheme(torch.full((1, 1, 1), 50.0), keys, state)
    torch.testing.assert_close(weights, torch.tensor([[[0.5, 0, 0.5, 0]]]))
    assert state.usage.tolist() == [[2, 0, 1, 0]]


def test_the_gate_learns():
    model = MANN(3, 2, num_slots=4, slot_size=3, num_heads=2)
    outputs, _ = model(torch.randn(2, 5, 3))
    outputs.sum().backward()
    gate = model.cell.access.interface.weight.grad[:2]
    assert (gate.abs().sum(1) > 0).all()


def test_a_sequence_may_be_longer_than_the_memory():
    model = MANN(3, 2, num_slots=3, slot_size=3, num_heads=1)
    with record(model) as trace:
        outputs, _ = model(torch.randn(2, 60, 3))
    assert outputs.isfinite().all()
    # Every slot is made use of again in the second half.
    assert (trace["cell.access.write_addressing"][:, 30:].amax((1, 2)) > 0.1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"usage_decay": 1.0}, "decay is 1.0, but must be at least 0 and less than 1"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_slots": 0}, "num_slots is 0"),
        ({"slot_size": -1}, "slot_size is -1"),
        ({"max_gradient": 0.0}, "max_gradient is 0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MANN(3, 2, **settings)
