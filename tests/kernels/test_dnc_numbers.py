"""The kernel of the Differentiable Neural Computer computes what the plain loop computes, forwards and backwards."""

from functools import partial

import pytest
import torch
from comparing import (
    ALL_OPTIONS,
    DNC_CONTROLLERS,
    TOLERANCE,
    assert_right,
    compare,
    make_dnc,
    needs_library,
    results,
    state_of,
    states,
    tensors_of,
    weigh,
)

from memnet import LSTMController, kernels, unroll
from memnet.functional_dnc import allocation
from memnet.kernels import sequence_cpu

pytestmark = needs_library

OPTIONS = {
    "plain": {},
    "masked": {"mask_content": True},
    "erased": {"erase_freed": True},
    "sharpened": {"sharpen_links": True},
    "all": ALL_OPTIONS,
}


@pytest.mark.parametrize("options", ["plain", "all"])
@pytest.mark.parametrize("slot_size", [1, 5, 20])
@pytest.mark.parametrize("slots", [1, 2, 3, 7, 130])
def test_every_size_of_memory(slots: int, slot_size: int, options: str):
    compare(make_dnc(slots, slot_size, **OPTIONS[options]))


@pytest.mark.parametrize(("slots", "slot_size"), [(16, 4), (17, 3), (31, 8), (48, 16), (64, 33)])
def test_sizes_around_the_width_of_vectors(slots: int, slot_size: int):
    compare(make_dnc(slots, slot_size, 2))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("read_heads", "write_heads"), [(1, 1), (2, 1), (5, 1), (1, 2), (3, 3)])
def test_options_and_heads(read_heads: int, write_heads: int, options: str):
    model = make_dnc(num_read_heads=read_heads, num_write_heads=write_heads, **OPTIONS[options])
    compare(model, lengths=torch.tensor([2, 5, 1]))


@pytest.mark.parametrize("controller", DNC_CONTROLLERS)
def test_controllers(controller: str):
    model = make_dnc(num_read_heads=2, controller=DNC_CONTROLLERS[controller])
    compare(model, lengths=torch.tensor([2, 5, 1]))


@pytest.mark.parametrize("hidden_size", [1, 16, 130])
def test_controllers_of_other_widths(hidden_size: int):
    compare(make_dnc(controller=partial(LSTMController, hidden_size=hidden_size)))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 9), (5, 1), (6, 2), (7, 3), (13, 4), (45, 2)])
def test_every_number_of_sequences_and_steps(batch: int, time: int):
    compare(make_dnc(), batch, time)


def test_links_so_large_that_items_run_one_by_one():
    compare(make_dnc(300, 6), batch=3, time=3)


@pytest.mark.parametrize("lengths", [[3, 6, 1, 6, 2], [4] * 5, [1] * 5, [6] * 5, [1, 2, 3, 4, 5]])
def test_padded_sequences(lengths: list[int]):
    compare(make_dnc(num_read_heads=2, erase_freed=True), batch=5, time=6, lengths=torch.tensor(lengths))


@pytest.mark.parametrize("lengths", [[1, 6, 2], [2, 2, 2]])
def test_chunks_in_which_a_sequence_has_no_step(lengths: list[int]):
    """Its state goes through, forwards and backwards."""
    model = make_dnc(num_read_heads=2, erase_freed=True)
    inputs, start = torch.randn(3, 6, 4), states(model, 3)

    def run() -> list[torch.Tensor]:
        sources = [x.clone().requires_grad_() for x in start]
        state = state_of(model, sources)
        outputs, end = unroll(model.cell, inputs, state, torch.tensor(lengths), checkpoint_every=2)
        results = [outputs, *tensors_of(end)]
        sources += [x for layer in model.cell.controller.layers for x in layer.parameters()]
        return results + list(torch.autograd.grad(weigh(results), sources, allow_unused=True, materialize_grads=True))

    got = run()
    with kernels.disabled():
        expected = run()
    for ours, theirs in zip(got, expected, strict=True):
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max() + 1e-6


@pytest.mark.parametrize("part", range(13))
def test_gradients_from_a_part_of_what_comes_out(part: int):
    def loss_of(tensors: list[torch.Tensor]) -> torch.Tensor:
        assert len(tensors) == 13
        return weigh([tensors[part]])

    model = make_dnc(num_read_heads=2, num_write_heads=2, erase_freed=True)
    inputs, start, lengths = torch.randn(3, 5, 4), states(model, 3), torch.tensor([5, 1, 4])
    assert_right(model, inputs, start, lengths, loss_of)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e3])
@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_inputs_of_every_scale(slots: int, scale: float):
    compare(make_dnc(slots), scale=scale)


def test_slots_that_are_used_alike_are_taken_in_their_order():
    """From an empty memory, where all are alike until something is written.

    As many slots as fill vectors: with others the plain loop rounds the last ones otherwise, and so takes them first or
    last.
    """
    model = make_dnc(16, num_read_heads=2, num_write_heads=2, gain=4.0)
    # Two steps: later on usages differ by a rounding, which may go either way.
    inputs, start = torch.randn(3, 2, 4), [x.detach() for x in tensors_of(model.cell.init_state(3))]
    got = results(model, inputs, start)
    with kernels.disabled():
        expected = results(model, inputs, start)
    for part, others in zip(got, expected, strict=True):
        for name, x in others.items():
            assert (part[name] - x).abs().max() <= 10 * TOLERANCE * x.abs().max() + 1e-6, name


@pytest.mark.parametrize(
    "usage", [[0.0] * 5, [1.0] * 5, [0.5] * 5, [0.0, 0.5, 0.0, 1.0, 0.5], [0.3, -0.0, 0.0, 0.0, 2.0]]
)
def test_allocation_where_usages_are_equal_or_at_their_bounds(usage: list[float]):
    """One step whose write gate is wide open and whose allocation gate too: what is written tells the allocation."""
    model = make_dnc(5)
    size = model.cell.access.write_addressing.inner.emit_size
    with torch.no_grad():
        interface = model.cell.access.interface
        interface.weight[size : size + 2] = 0
        interface.bias[size : size + 2] = 100
        interface.weight[-1] = 0
        interface.bias[-1] = -100  # nothing is freed
    inputs, start = torch.randn(2, 1, 4), states(model, 2)
    start[3] = torch.tensor([usage] * 2)
    precedence = 6  # which is what is written, where all of it goes somewhere
    got = results(model, inputs, start, loss_of=lambda tensors: weigh([tensors[1 + precedence]]))
    start[precedence].requires_grad_()
    wanted = start[3].clone().requires_grad_()
    written = allocation(wanted)
    expected = (1 - written.sum(-1, keepdim=True)) * start[precedence][:, 0] + written
    torch.testing.assert_close(got.forward[f"end {precedence}"][:, 0], expected)
    (gradient,) = torch.autograd.grad(weigh([expected.unsqueeze(1)]), wanted)
    torch.testing.assert_close(got.gradients["state 3"], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gain", [20.0, 1e4])
@pytest.mark.parametrize("options", ["plain", "all"])
def test_large_weights_stay_finite(options: str, gain: float):
    model = make_dnc(gain=gain, **OPTIONS[options])
    got = results(model, torch.randn(3, 5, 4), states(model, 3))
    for part in got:
        for name, x in part.items():
            assert torch.isfinite(x).all(), name


@pytest.mark.parametrize("segment", [1, 2, 3, 9, 100])
def test_how_many_memories_are_kept_does_not_matter(segment: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sequence_cpu, "segment", lambda time: segment)
    model = make_dnc(num_write_heads=2, erase_freed=True)
    compare(model, batch=4, time=9, lengths=torch.tensor([9, 8, 1, 3]))
    compare(make_dnc(), batch=2, time=9)


@pytest.mark.parametrize("max_gradient", [1.0, 0.05, 1e-4])
@pytest.mark.parametrize("controller", ["lstm-2", "normalized feed-forward-2"])
def test_clipped_gradients_of_the_state(controller: str, max_gradient: float):
    model = make_dnc(
        num_read_heads=2,
        num_write_heads=2,
        erase_freed=True,
        controller=DNC_CONTROLLERS[controller],
        max_gradient=max_gradient,
    )
    compare(model, batch=5, time=6, lengths=torch.tensor([3, 6, 1, 6, 2]))
    bounded = results(model, torch.ones(1, 6, 4), states(model, 1)).gradients
    model.cell.max_gradient = None
    free = results(model, torch.ones(1, 6, 4), states(model, 1)).gradients
    assert max(abs(bounded[f"state {part}"]).max() for part in range(len(states(model, 1)))) <= max_gradient
    assert any(not torch.equal(bounded[name], free[name]) for name in free)


@pytest.mark.parametrize("training", [True, False])
def test_bypass_dropout_hides_the_same_as_in_the_plain_loop(training: bool):
    model = make_dnc(bypass_dropout=0.3).train(training)
    inputs, start, lengths = torch.randn(3, 5, 4), states(model, 3), torch.tensor([5, 2, 3])

    def run():
        torch.manual_seed(3)
        return results(model, inputs, start, lengths)

    got = run()
    with kernels.disabled():
        expected = run()
    for part, others in zip(got, expected, strict=True):
        for name, x in others.items():
            assert (part[name] - x).abs().max() <= TOLERANCE * x.abs().max() + 1e-6, name
