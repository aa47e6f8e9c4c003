"""What holds for the Differentiable Neural Computer's kernel besides its numbers."""

import pytest
import torch
from comparing import (
    ALL_OPTIONS,
    DNC_CONTROLLERS,
    assert_same,
    compare,
    learning_curve,
    make_dnc,
    needs_library,
    outputs_of_nan,
    results,
    state_of,
    states,
)
from torch import nn

from memnet import DNC, kernels, unroll
from memnet.kernels import dnc_cpu, workspace

pytestmark = needs_library


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
def test_two_threads_give_the_same_bits_as_one(batch: int, monkeypatch: pytest.MonkeyPatch):
    model, lengths = make_dnc(20, 6, 2, **ALL_OPTIONS), torch.arange(batch) % 5 + 1
    inputs, start = torch.randn(batch, 5, 4), states(model, batch)
    threads = torch.get_num_threads()
    monkeypatch.setattr(dnc_cpu, "ITEMS_PER_THREAD", 1)  # small batches are not worth a second thread, but may have it
    try:
        one = results(model, inputs, start, lengths, loss_of=_of_the_state)
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 2
        two = results(model, inputs, start, lengths, loss_of=_of_the_state)
    finally:
        torch.set_num_threads(threads)
    # The output layer is torch's, which may share out its work otherwise.
    torch.testing.assert_close(one.forward.pop("outputs"), two.forward.pop("outputs"))
    assert_same(two, one)


def _of_the_state(tensors: list[torch.Tensor]) -> torch.Tensor:
    return sum(x.square().sum() for x in tensors[1:])


def test_an_item_does_not_depend_on_the_others():
    model = make_dnc(num_read_heads=2)
    inputs, start = torch.randn(9, 4, 4), states(model, 9)
    together = results(model, inputs, start)
    alone = results(model, inputs[4:5], [x[4:5] for x in start])
    for i in range(len(start)):
        assert torch.equal(together.forward[f"end {i}"][4:5], alone.forward[f"end {i}"]), i


def test_what_is_kept_is_far_less_than_every_link():
    """Of the published size: 41 steps of copy, 128 slots."""
    model = DNC(9, 8, num_read_heads=1)
    batch, time, slots = 2, 41, 128
    outputs, _ = model(torch.randn(batch, time, 9))
    kept = outputs.grad_fn.next_functions  # the kernel's node is behind the output layer's
    nodes = [node for node, _ in kept if node is not None]
    while nodes and "Sequence" not in nodes[0].name():
        nodes = [node for parent in nodes for node, _ in parent.next_functions if node is not None]
    floats = nodes[0].saved_tensors[0].numel()
    assert floats < 0.5 * batch * time * slots * slots


def test_memory_that_nobody_has_written_is_never_read(monkeypatch: pytest.MonkeyPatch):
    floats = workspace.floats
    monkeypatch.setattr(workspace, "floats", lambda count: floats(count).fill_(torch.nan))
    # This makes torch.empty return NaN.
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for controller in ("lstm-2", "normalized lstm-1", "normalized feed-forward-2"):
            for options in ({}, ALL_OPTIONS):
                model = make_dnc(7, 5, 2, num_write_heads=2, controller=DNC_CONTROLLERS[controller], **options)
                compare(model, batch=5, time=6, lengths=torch.tensor([3, 6, 1, 6, 2]))
        compare(make_dnc(130, 20), batch=2)
        model = make_dnc()
        with torch.no_grad():
            outputs, _ = model(torch.randn(3, 4, 4), lengths=torch.tensor([4, 2, 1]))
        assert torch.isfinite(outputs).all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_tensors_that_are_not_contiguous():
    model = make_dnc(num_read_heads=2)
    linear = model.cell.access.interface
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
    assert not linear.weight.is_contiguous()
    inputs = torch.randn(4, 5, 3).permute(2, 1, 0)
    start = [x[:1].expand_as(x) for x in states(model, 3)]
    got, end = unroll(model.cell, inputs, state_of(model, start))
    with kernels.disabled():
        expected, expected_end = unroll(model.cell, inputs, state_of(model, start))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    gradients = []
    for outputs, state in ((got, end), (expected, expected_end)):
        model.zero_grad()
        # The gradient of a sum is an expanded, non-contiguous tensor.
        (outputs.sum() + state.access.memory.transpose(1, 2).sum() + state.access.read.link.mT.sum()).backward()
        gradients.append(linear.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_only_what_asks_for_a_gradient_gets_one():
    model = make_dnc()
    model.cell.access.interface.requires_grad_(False)
    inputs = torch.randn(2, 3, 4)
    model(inputs)[0].sum().backward()
    assert model.cell.access.interface.weight.grad is None and inputs.grad is None
    assert model.cell.output.weight.grad is not None
    assert model.cell.initial_reads.grad.any(), "gradients go on to what the initial state was made of"
    model.requires_grad_(False)
    assert not model(inputs)[0].requires_grad
    inputs.requires_grad_()
    model(inputs)[0].sum().backward()
    assert inputs.grad.any()


@pytest.mark.parametrize("where", ["hidden", "memory", "usage", "link", "parameter"])
def test_nan_stays_nan(where: str):
    model = make_dnc(20, 6)
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    if where == "parameter":
        with torch.no_grad():
            model.cell.access.interface.bias[0] = torch.nan
    else:
        start[{"hidden": 0, "memory": 2, "usage": 3, "link": 5}[where]][1].view(-1)[1] = torch.nan
    outputs = outputs_of_nan(model, inputs, start)
    assert outputs[1].isnan().any()
    assert where == "parameter" or torch.isfinite(outputs[[0, 2]]).all()


def test_a_model_learns_the_same_as_with_the_plain_loop():
    def make_anew() -> DNC:
        return DNC(4, 4, num_slots=16, slot_size=6, num_read_heads=1, controller=DNC_CONTROLLERS["lstm-1"])

    fast = learning_curve(make_anew)
    with kernels.disabled():
        plain = learning_curve(make_anew)
    assert plain[-1] < 0.7 * plain[0]
    # Where slots are used alike but for a rounding, the two may take them in another order.
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.02)
