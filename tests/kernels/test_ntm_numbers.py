"""The kernel computes what the plain loop computes: outputs, final state and every gradient."""

from functools import partial

import pytest
import torch
from comparing import CONTROLLERS, assert_right, compare, make, needs_library, results, states, weigh

from memnet import FeedForwardController, LSTMController
from memnet.kernels import sequence_cpu

pytestmark = needs_library


@pytest.mark.parametrize("shifts", [1, 3, 5])
@pytest.mark.parametrize("slot_size", [1, 5, 20])
@pytest.mark.parametrize("slots", [1, 2, 3, 7, 130])
def test_every_size_of_memory(slots: int, slot_size: int, shifts: int):
    compare(make(slots, slot_size, num_shifts=shifts))


@pytest.mark.parametrize(("slots", "slot_size"), [(16, 4), (48, 16), (64, 33)])
def test_sizes_around_the_width_of_vectors(slots: int, slot_size: int):
    compare(make(slots, slot_size))


@pytest.mark.parametrize(("read_heads", "write_heads"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_controllers_and_heads(controller: str, read_heads: int, write_heads: int):
    heads = {"num_read_heads": read_heads, "num_write_heads": write_heads}
    compare(make(controller=CONTROLLERS[controller], **heads), lengths=torch.tensor([2, 5, 1]))


@pytest.mark.parametrize("hidden_size", [1, 16, 130])
@pytest.mark.parametrize("kind", [LSTMController, FeedForwardController])
def test_controllers_of_other_widths(kind: type, hidden_size: int):
    compare(make(controller=partial(kind, hidden_size=hidden_size, num_layers=2)))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 9), (5, 1), (6, 2), (7, 3), (13, 4), (45, 2)])
def test_every_number_of_sequences_and_steps(batch: int, time: int):
    compare(make(), batch, time)


def test_a_memory_so_large_that_items_run_one_by_one():
    compare(make(1500, 30, num_shifts=3), batch=3, time=3)


@pytest.mark.parametrize("lengths", [[3, 6, 1, 6, 2], [4] * 5, [1] * 5, [6] * 5, [1, 2, 3, 4, 5]])
def test_padded_sequences(lengths: list[int]):
    compare(make(), batch=5, time=6, lengths=torch.tensor(lengths))


@pytest.mark.parametrize("part", range(7))
def test_gradients_from_a_part_of_what_comes_out(part: int):
    def loss_of(tensors: list[torch.Tensor]) -> torch.Tensor:
        return weigh([tensors[part]])

    model = make(num_read_heads=2)
    inputs, start, lengths = torch.randn(3, 5, 4), states(model, 3), torch.tensor([5, 1, 4])
    assert_right(model, inputs, start, lengths, loss_of)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e4])
@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_inputs_of_every_scale(slots: int, scale: float):
    compare(make(slots), scale=scale)


@pytest.mark.parametrize("gain", [20.0, 1e4])
def test_large_weights_stay_finite(gain: float):
    """Strengths and sharpenings of thousands: every softmax is all but one-hot, which is where exponentials end."""
    model = make(gain=gain)
    inputs, start = torch.randn(3, 5, 4), states(model, 3)
    got = results(model, inputs, start)
    for part in got:
        for name, x in part.items():
            assert torch.isfinite(x).all(), name
    for weights in (-3, -2):
        torch.testing.assert_close(got.forward[f"end {6 + weights}"].sum(-1), torch.ones(3, 1))


def test_scores_far_below_their_bound():
    """Every slot is the opposite of the key, with a strength of hundreds: all cosines are -1."""
    model = make(slot_size=2)
    width, shifts = 2, 3
    with torch.no_grad():
        model.cell.access.interface.weight.mul_(0.1)
        bias = model.cell.access.interface.bias.view(-1)
        for head in range(2):
            first = head * (width + 3 + shifts)
            bias[first : first + width] = 2.0
            bias[first + width] = 400.0
            bias[first + width + 1] = 5.0
            bias[first + width + 2 + shifts] = 300.0
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    start[2] = -torch.rand_like(start[2]) - 0.5
    assert_right(model, inputs, start)


@pytest.mark.parametrize("segment", [1, 2, 3, 9, 100])
def test_how_many_memories_are_kept_does_not_matter(segment: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sequence_cpu, "segment", lambda time: segment)
    compare(make(num_write_heads=2), batch=4, time=9, lengths=torch.tensor([9, 8, 1, 3]))
    compare(make(), batch=2, time=9)


@pytest.mark.parametrize("max_gradient", [1.0, 0.05, 1e-4])
@pytest.mark.parametrize("controller", ["lstm-2", "feed-forward-2"])
def test_clipped_gradients_of_the_state(controller: str, max_gradient: float):
    heads = {"num_read_heads": 2, "num_write_heads": 2}
    model = make(controller=CONTROLLERS[controller], max_gradient=max_gradient, **heads)
    compare(model, batch=5, time=6, lengths=torch.tensor([3, 6, 1, 6, 2]))
    bounded = results(model, torch.ones(1, 6, 4), states(model, 1)).gradients
    model.cell.max_gradient = None
    free = results(model, torch.ones(1, 6, 4), states(model, 1)).gradients
    assert max(abs(bounded[f"state {part}"]).max() for part in range(len(states(model, 1)))) <= max_gradient
    assert any(not torch.equal(bounded[name], free[name]) for name in free)
