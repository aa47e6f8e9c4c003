"""The kernel of sparse access memory computes what the plain loop computes, forwards and backwards."""

from functools import partial

import pytest
import torch
from comparing import (
    CONTROLLERS,
    TOLERANCE,
    assert_right,
    compare,
    make_sam,
    needs_library,
    results,
    state_of,
    states,
    tensors_of,
    weigh,
)

from memnet import LSTMController, kernels, unroll

pytestmark = needs_library

MEMORY, READ_SLOTS, LEAST_USED, LAST_ACCESS, IN_USE = 2, 3, 5, 6, 7
"""Where they stand in the state of a cell with an LSTM."""


@pytest.mark.parametrize("slot_size", [1, 5, 20])
@pytest.mark.parametrize("slots", [1, 2, 3, 7, 130])
def test_every_size_of_memory(slots: int, slot_size: int):
    # Rows of one number are all alike but for a rounding, which then says which are nearest: so all are read.
    compare(make_sam(slots, slot_size, num_reads=slots if slot_size == 1 else min(slots, 3)))


@pytest.mark.parametrize(("slots", "slot_size"), [(16, 4), (17, 3), (31, 8), (48, 16), (64, 33)])
def test_sizes_around_the_width_of_vectors(slots: int, slot_size: int):
    compare(make_sam(slots, slot_size, 2))


@pytest.mark.parametrize("num_reads", [1, 2, 4])
@pytest.mark.parametrize("heads", [1, 2, 5])
@pytest.mark.parametrize("slots", [7, 40])
def test_links(slots: int, heads: int, num_reads: int):
    model = make_sam(slots, num_read_heads=heads, num_reads=num_reads, links=True)
    compare(model, batch=3, time=6, lengths=torch.tensor([2, 6, 1]))


@pytest.mark.parametrize(("slots", "heads", "time"), [(40, 2, 12), (13, 1, 30), (9, 4, 30), (3, 3, 9)])
def test_links_from_an_empty_memory(slots: int, heads: int, time: int):
    """Slots are linked as they come into use, and out of their order when they are used anew."""
    model = make_sam(slots, 6, heads, access_threshold=0.005, links=True)
    with torch.no_grad():
        start = tensors_of(model.cell.init_state(3))
    inputs = torch.randn(3, time, 4)
    assert_right(model, inputs, start, torch.tensor([time, time // 2, 1]))
    access = unroll(model.cell, inputs, state_of(model, start))[1].access
    with kernels.disabled():
        expected = unroll(model.cell, inputs, state_of(model, start))[1].access
    assert torch.equal(access.after, expected.after) and torch.equal(access.before, expected.before)
    assert access.after.any() == (heads < slots)  # else each head takes what another one had


@pytest.mark.parametrize("num_reads", [1, 4, 7])
@pytest.mark.parametrize("heads", [1, 2, 5, 7])
def test_heads_and_reads(heads: int, num_reads: int):
    """Up to as many reads, and heads, as slots."""
    compare(make_sam(num_read_heads=heads, num_reads=num_reads), lengths=torch.tensor([2, 5, 1]))


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_controllers(controller: str):
    compare(make_sam(num_read_heads=2, controller=CONTROLLERS[controller]), lengths=torch.tensor([2, 5, 1]))


@pytest.mark.parametrize("hidden_size", [1, 16, 130])
def test_controllers_of_other_widths(hidden_size: int):
    compare(make_sam(controller=partial(LSTMController, hidden_size=hidden_size)))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 9), (5, 1), (6, 2), (7, 3), (13, 4), (45, 2)])
def test_every_number_of_sequences_and_steps(batch: int, time: int):
    compare(make_sam(), batch, time)


@pytest.mark.parametrize("threshold", [0.0, 0.005, 0.4])
@pytest.mark.parametrize(("slots", "heads", "time"), [(40, 2, 12), (13, 1, 30), (9, 4, 30), (3, 3, 9)])
def test_from_an_empty_memory(slots: int, heads: int, time: int, threshold: float):
    """Slots come into use one after the other; when none is left, the least recently used one makes room."""
    model = make_sam(slots, 6, heads, access_threshold=threshold)
    with torch.no_grad():
        start = tensors_of(model.cell.init_state(3))
    inputs = torch.randn(3, time, 4)
    assert_right(model, inputs, start, torch.tensor([time, time // 2, 1]))
    end = tensors_of(unroll(model.cell, inputs, state_of(model, start))[1])
    assert (end[IN_USE] == slots).any() == (slots < heads * time)


def test_the_order_of_many_last_accesses():
    """Times that fill several digits, and equal ones among them."""
    model = make_sam(3000, 5, 3, num_reads=1)
    inputs, start = torch.randn(2, 20, 4), states(model, 2)
    start[MEMORY], start[IN_USE] = torch.randn(2, 3000, 5), torch.tensor([3000, 3000])
    start[LAST_ACCESS] = torch.stack([torch.randint(1, 10**9, (3000,)), torch.randint(1, 50, (3000,))])
    start[-2] = torch.tensor([10**9, 50])
    got = unroll(model.cell, inputs, state_of(model, start))[1].access
    with kernels.disabled():
        expected = unroll(model.cell, inputs, state_of(model, start))[1].access
    assert torch.equal(got.least_used, expected.least_used)
    assert torch.equal(got.last_access, expected.last_access)


@pytest.mark.parametrize("lengths", [[3, 6, 1, 6, 2], [4] * 5, [1] * 5, [6] * 5, [1, 2, 3, 4, 5]])
def test_padded_sequences(lengths: list[int]):
    compare(make_sam(num_read_heads=2), batch=5, time=6, lengths=torch.tensor(lengths))


@pytest.mark.parametrize("lengths", [[1, 6, 2], [2, 2, 2]])
def test_chunks_in_which_a_sequence_has_no_step(lengths: list[int]):
    """Its state goes through, forwards and backwards."""
    model = make_sam(num_read_heads=2)
    inputs, start = torch.randn(3, 6, 4), states(model, 3)

    def run() -> list[torch.Tensor]:
        given = [x.clone().requires_grad_(x.is_floating_point()) for x in start]
        outputs, end = unroll(model.cell, inputs, state_of(model, given), torch.tensor(lengths), checkpoint_every=2)
        results = [outputs, *tensors_of(end)]
        sources = [*(x for x in given if x.requires_grad), *model.cell.controller.layers.parameters()]
        loss = weigh([x for x in results if x.is_floating_point()])
        return results + list(torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True))

    got = run()
    with kernels.disabled():
        expected = run()
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max() + 1e-6


@pytest.mark.parametrize("part", ["outputs", "hidden", "cell", "memory", "read weights", "reads"])
def test_gradients_from_a_part_of_what_comes_out(part: str):
    place = {"outputs": 0, "hidden": 1, "cell": 2, "memory": 3, "read weights": 5, "reads": 10}[part]

    def loss_of(tensors: list[torch.Tensor]) -> torch.Tensor:
        assert len(tensors) == 11
        return weigh([tensors[place]])

    model = make_sam(num_read_heads=2)
    inputs, start, lengths = torch.randn(3, 5, 4), states(model, 3), torch.tensor([5, 1, 4])
    assert_right(model, inputs, start, lengths, loss_of)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e3])
@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_inputs_of_every_scale(slots: int, scale: float):
    compare(make_sam(slots), scale=scale)


@pytest.mark.parametrize("gain", [20.0, 1e4])
def test_large_weights_stay_finite(gain: float):
    model = make_sam(gain=gain, num_read_heads=2)
    got = results(model, torch.randn(3, 5, 4), states(model, 3))
    for part in got:
        for name, x in part.items():
            assert torch.isfinite(x).all(), name


@pytest.mark.parametrize("row", [[0.0] * 5, [0.3, -1.0, 0.2, 0.0, 0.5], [torch.nan] * 5])
def test_of_slots_that_are_equally_near_the_first_are_read(row: list[float]):
    """All rows are the same, and nothing is written: the plain loop reads the same slots, in the same order."""
    model = make_sam(100, 5, 2, num_reads=4)
    width, emission = 5, 2 * 5 + 3
    with torch.no_grad():
        interface = model.cell.access.interface
        for head in range(2):
            interface.weight[head * emission + 2 * width + 1] = 0
            interface.bias[head * emission + 2 * width + 1] = -1e3  # the write gate
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    start[MEMORY] = torch.tensor(row).expand(3, 100, 5) * (torch.arange(100) < start[IN_USE][:, None])[:, :, None]
    _, got = unroll(model.cell, inputs, state_of(model, start))
    with kernels.disabled():
        _, expected = unroll(model.cell, inputs, state_of(model, start))
    for name in ("read_slots", "least_used", "last_access", "in_use", "time"):
        assert torch.equal(getattr(got.access, name), getattr(expected.access, name)), name
    assert any(row) or got.access.read_slots.tolist() == [[[0, 1, 2, 3]] * 2] * 3
