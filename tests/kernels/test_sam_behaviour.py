"""What holds for the kernel of sparse access memory besides its numbers."""

from functools import partial

import pytest
import torch
from comparing import (
    CONTROLLERS,
    assert_same,
    compare,
    learning_curve,
    make_sam,
    needs_library,
    outputs_of_nan,
    results,
    state_of,
    states,
    tensors_of,
)
from torch import nn

from memnet import SAM, LSTMController, kernels, unroll
from memnet.bench.peak import peak_of
from memnet.kernels import sam_cpu, sequence_cpu, workspace

pytestmark = needs_library


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
def test_two_threads_give_the_same_bits_as_one(batch: int, monkeypatch: pytest.MonkeyPatch):
    model, lengths = make_sam(20, 6, 2), torch.arange(batch) % 5 + 1
    inputs, start = torch.randn(batch, 5, 4), states(model, batch)
    threads = torch.get_num_threads()
    monkeypatch.setattr(sam_cpu, "ITEMS_PER_THREAD", 1)  # small batches are not worth a second thread, but may have it
    try:
        one = results(model, inputs, start, lengths)
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 2
        two = results(model, inputs, start, lengths)
    finally:
        torch.set_num_threads(threads)
    assert_same(two, one)


def test_an_item_does_not_depend_on_the_others():
    model = make_sam(num_read_heads=2)
    inputs, start = torch.randn(9, 4, 4), states(model, 9)
    together = results(model, inputs, start)
    # One whose memory is full: where another is, it brings its own rows that are not in use.
    alone = results(model, inputs[3:4], [x[3:4] for x in start])
    for name, x in alone.forward.items():
        assert torch.equal(together.forward[name][3:4], x), name


def _taken(monkeypatch: pytest.MonkeyPatch, num_slots: int, time: int) -> list[int]:
    """How many floats a training step from an empty memory keeps, and how many are scratch of its two passes."""
    taken: list[int] = []
    floats = workspace.floats
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "floats", lambda count: taken.append(count) or floats(count))
        model = SAM(4, 3, num_slots, controller=partial(LSTMController, hidden_size=17))
        model(torch.randn(1, time, 4))[0].sum().backward()
    kept, forward, backward = taken
    return [kept, forward, backward]


def test_what_a_step_needs_does_not_grow_with_the_slots(monkeypatch: pytest.MonkeyPatch):
    assert _taken(monkeypatch, 8192, 48) == _taken(monkeypatch, 256, 48)
    per_step = (_taken(monkeypatch, 8192, 48)[0] - _taken(monkeypatch, 8192, 24)[0]) / 24
    read = 4 * (32 + 4) + 2  # K rows with slot, weight, cosine and norm; the slot least used, and how many were read
    rest = 4 + 32 + 17 + 4 * 17 + 17 + 17 + 32 + 2 * 32 + 3  # as for any controller, and the interface
    assert per_step == pytest.approx(read + rest, rel=0.01)


def test_memory_that_nobody_uses_takes_no_room():
    """A million slots, of which the whole memory would be 128 MB, and so would its gradient."""
    model = SAM(4, 3, 2**20, controller=partial(LSTMController, hidden_size=17))

    def step() -> None:
        model(torch.randn(1, 20, 4))[0].sum().backward()

    step()
    assert peak_of(step, torch.device("cpu")) < 2**23


def test_the_memory_that_comes_out_is_the_caller_s():
    """Whatever happens to it, the backward pass has what it needs."""
    model = make_sam(num_read_heads=2)
    inputs, start = torch.randn(3, 6, 4), states(model, 3)
    expected = results(model, inputs, start, loss_of=lambda tensors: tensors[0].square().sum())
    outputs, end = unroll(model.cell, inputs, state_of(model, start))
    with torch.no_grad():
        for x in tensors_of(end):
            x.zero_()
    weight = model.cell.access.interface.weight
    (gradient,) = torch.autograd.grad(outputs.square().sum(), weight)
    assert torch.equal(gradient, expected.gradients["cell.access.interface.weight"])


def test_memory_that_nobody_has_written_is_never_read(monkeypatch: pytest.MonkeyPatch):
    floats = workspace.floats
    monkeypatch.setattr(workspace, "floats", lambda count: floats(count).fill_(torch.nan))
    # This makes torch.empty return NaN, and the largest integers.
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for controller in ("lstm-2", "feed-forward-2"):
            for heads in (1, 2, 7):
                model = make_sam(7, 5, heads, controller=CONTROLLERS[controller])
                compare(model, batch=5, time=6, lengths=torch.tensor([3, 6, 1, 6, 2]))
        compare(make_sam(130, 20), batch=2)
        model = make_sam()
        with torch.no_grad():
            outputs, state = model(torch.randn(3, 12, 4), lengths=torch.tensor([12, 2, 1]))
        for x in (outputs, *tensors_of(state)):
            assert torch.isfinite(x).all() and x.abs().max() < 100
    finally:
        torch.use_deterministic_algorithms(False)


def test_tensors_that_are_not_contiguous():
    model = make_sam(num_read_heads=2)
    linear = model.cell.access.interface
    linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())
    assert not linear.weight.is_contiguous()
    inputs = torch.randn(4, 5, 3).permute(2, 1, 0)
    start = [x[:1].expand(3, *x.shape[1:]) for x in states(model, 3)]
    got, end = unroll(model.cell, inputs, state_of(model, start))
    with kernels.disabled():
        expected, expected_end = unroll(model.cell, inputs, state_of(model, start))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    gradients = []
    for outputs, state in ((got, end), (expected, expected_end)):
        model.zero_grad()
        # The gradient of a sum is an expanded, non-contiguous tensor.
        (outputs.sum() + state.access.memory.transpose(1, 2).sum()).backward()
        gradients.append(linear.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_only_what_asks_for_a_gradient_gets_one():
    model = make_sam()
    model.cell.access.interface.requires_grad_(False)
    inputs = torch.randn(2, 3, 4)
    outputs, state = model(inputs)
    assert [x.requires_grad for x in state.access] == [True, False, True, False, False, False, False]
    outputs.sum().backward()
    assert model.cell.access.interface.weight.grad is None and inputs.grad is None
    assert model.cell.output.weight.grad is not None
    assert model.cell.initial_reads.grad.any(), "gradients go on to what the initial state was made of"
    model.requires_grad_(False)
    assert not model(inputs)[0].requires_grad
    inputs.requires_grad_()
    model(inputs)[0].sum().backward()
    assert inputs.grad.any()


def test_the_memory_has_a_dense_gradient_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    model = make_sam()
    asked: list[tuple[bool, ...]] = []
    invoke = sequence_cpu.Call.invoke

    def watch(self, function: str, *arguments):
        if function == "backward":
            asked.append(tuple(bool(x) for x in arguments[7]))
        invoke(self, function, *arguments)

    monkeypatch.setattr(sequence_cpu.Call, "invoke", watch)
    state = model.cell.init_state(2)
    unroll(model.cell, torch.randn(2, 3, 4), state)[0].sum().backward()
    memory = state.access.memory.requires_grad_()
    unroll(model.cell, torch.randn(2, 3, 4), model.cell.init_state(2)._replace(access=state.access))[0].sum().backward()
    assert [part[2] for part in asked] == [False, True]
    assert memory.grad.shape == memory.shape


@pytest.mark.parametrize("where", ["hidden", "memory", "read weights", "parameter"])
def test_nan_stays_nan(where: str):
    model = make_sam(20, 6)
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    if where == "parameter":
        with torch.no_grad():
            model.cell.access.interface.bias[0] = torch.nan
    else:
        start[{"hidden": 0, "memory": 2, "read weights": 4}[where]][1].view(-1)[1] = torch.nan
    outputs = outputs_of_nan(model, inputs, start)
    assert outputs[1].isnan().any()
    assert where == "parameter" or torch.isfinite(outputs[[0, 2]]).all()


def test_a_model_learns_the_same_as_with_the_plain_loop():
    def make_anew() -> SAM:
        return SAM(4, 4, num_slots=16, slot_size=6, controller=CONTROLLERS["lstm-1"])

    fast = learning_curve(make_anew)
    with kernels.disabled():
        plain = learning_curve(make_anew)
    assert plain[-1] < 0.7 * plain[0]
    # Where slots are equally near but for a rounding, the two may read others.
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.02)
