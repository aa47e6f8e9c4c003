"""What holds for the kernel besides its numbers: determinism, chunks, autograd's rules, NaN, unwritten memory."""

import pytest
import torch
from comparing import CONTROLLERS, assert_same, compare, learning_curve, make, needs_library, results, states

from memnet import NTM, kernels, unroll
from memnet.kernels import ntm_cell, ntm_cpu, workspace

pytestmark = needs_library


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
def test_two_threads_give_the_same_bits_as_one(batch: int, monkeypatch: pytest.MonkeyPatch):
    model, lengths = make(20, 6, num_read_heads=2), torch.arange(batch) % 5 + 1
    inputs, start = torch.randn(batch, 5, 4), states(model, batch)
    threads = torch.get_num_threads()
    monkeypatch.setattr(ntm_cpu, "ITEMS_PER_THREAD", 1)  # small batches are not worth a second thread, but may have it
    try:
        one = results(model, inputs, start, lengths)
        torch.set_num_threads(2)
        assert torch.get_num_threads() == 2
        two = results(model, inputs, start, lengths)
        with torch.no_grad():
            outputs, _ = unroll(model.cell, inputs, ntm_cell.state_of(start), lengths)
    finally:
        torch.set_num_threads(threads)
    assert_same(two, one)
    assert torch.equal(outputs, one.forward["outputs"])


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_an_item_does_not_depend_on_the_others(controller: str):
    model = make(controller=CONTROLLERS[controller])
    inputs, start = torch.randn(9, 4, 4), states(model, 9)
    together = results(model, inputs, start)
    alone = results(model, inputs[4:5], [x[4:5] for x in start])
    for name in together.forward:
        assert torch.equal(together.forward[name][4:5], alone.forward[name]), name


def test_memory_that_nobody_has_written_is_never_read(monkeypatch: pytest.MonkeyPatch):
    floats = workspace.floats
    monkeypatch.setattr(workspace, "floats", lambda count: floats(count).fill_(torch.nan))
    # This makes torch.empty return NaN.
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for controller in ("lstm-2", "feed-forward-2"):
            model = make(num_read_heads=2, controller=CONTROLLERS[controller])
            compare(model, batch=5, time=6, lengths=torch.tensor([3, 6, 1, 6, 2]))
        compare(make(130, 20), batch=2)
        model = make()
        with torch.no_grad():
            outputs, _ = model(torch.randn(3, 4, 4), lengths=torch.tensor([4, 2, 1]))
        assert torch.isfinite(outputs).all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_tensors_that_are_not_contiguous():
    model = make()
    for linear in (model.cell.output, model.cell.access.interface):
        linear.weight = torch.nn.Parameter(linear.weight.detach().t().contiguous().t())
        assert not linear.weight.is_contiguous()
    inputs = torch.randn(4, 5, 3).permute(2, 1, 0)
    start = [x[:1].expand_as(x) for x in states(model, 3)]
    assert kernels.find(model.cell, inputs, ntm_cell.state_of(start)) is not None
    got, end = unroll(model.cell, inputs, ntm_cell.state_of(start))
    with kernels.disabled():
        expected, expected_end = unroll(model.cell, inputs, ntm_cell.state_of(start))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    # The gradient of a sum is an expanded, non-contiguous tensor.
    for tensors in ((got, end), (expected, expected_end)):
        model.zero_grad()
        (tensors[0].sum() + tensors[1].access.memory.transpose(1, 2).sum()).backward()
        if tensors[0] is got:
            first = model.cell.output.weight.grad
    torch.testing.assert_close(first, model.cell.output.weight.grad, rtol=1e-4, atol=1e-5)


def test_only_what_asks_for_a_gradient_gets_one():
    model = make()
    model.cell.output.requires_grad_(False)
    inputs = torch.randn(2, 3, 4)
    model(inputs)[0].sum().backward()
    assert model.cell.output.weight.grad is None and inputs.grad is None
    assert model.cell.access.interface.weight.grad is not None
    assert model.cell.initial_reads.grad.any(), "gradients go on to what the initial state was made of"
    model.requires_grad_(False)
    assert not model(inputs)[0].requires_grad
    inputs.requires_grad_()
    model(inputs)[0].sum().backward()
    assert inputs.grad.any()


def test_a_parameter_changed_before_the_backward_pass_is_noticed():
    model = make()
    outputs, _ = model(torch.randn(2, 3, 4))
    with torch.no_grad():
        model.cell.output.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("where", ["hidden", "memory", "read weights", "parameter"])
def test_nan_stays_nan(where: str):
    model = make(20, 6)
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    if where == "parameter":
        with torch.no_grad():
            model.cell.access.interface.bias[0] = torch.nan
    else:
        start[{"hidden": 0, "memory": 2, "read weights": 4}[where]][1].view(-1)[0] = torch.nan
    assert kernels.find(model.cell, inputs, ntm_cell.state_of(start)) is not None
    got = results(model, inputs, start)
    with kernels.disabled():
        expected = results(model, inputs, start)
    for part, others in zip(got, expected, strict=True):
        for name, other in others.items():
            assert torch.equal(part[name].isnan(), other.isnan()), name
    assert got.forward["outputs"][1].isnan().any()
    assert where == "parameter" or torch.isfinite(got.forward["outputs"][[0, 2]]).all()


def test_infinite_inputs_do_not_become_numbers():
    """``unroll`` refuses them; the kernel itself must give what the plain loop gives."""
    model = make()
    inputs, start = torch.randn(2, 3, 4), states(model, 2)
    inputs[0, 1, 2] = torch.inf
    state = ntm_cell.state_of(start)
    got, _ = kernels.find(model.cell, inputs, state)(model.cell, inputs, state, None)
    expected = []
    for x in inputs.unbind(1):
        output, state = model.cell(x, state)
        expected.append(output)
    torch.testing.assert_close(got, torch.stack(expected, 1), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_a_model_learns_the_same_as_with_the_plain_loop():
    def make_anew() -> NTM:
        return NTM(4, 4, num_slots=12, slot_size=6, controller=CONTROLLERS["lstm-1"])

    fast = learning_curve(make_anew)
    with kernels.disabled():
        plain = learning_curve(make_anew)
    assert plain[-1] < 0.7 * plain[0]
    # Measured: 2e-7. Adam divides a gradient by its own size, so where one is all rounding (another processor, another
    # version of torch) the two may part further.
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_workspace_is_used_again_once_it_is_free():
    workspace._free.clear()
    block = workspace.floats(1000)
    address = block.data_ptr()
    assert address % 64 == 0
    view = block[10:20]
    del block
    assert workspace.floats(1000).data_ptr() != address, "a view still uses it"
    del view
    again = workspace.floats(900)
    assert address in (again.data_ptr(), workspace.floats(1000).data_ptr())


def test_workspace_holds_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch):
    workspace._free.clear()
    monkeypatch.setattr(workspace, "KEPT_BYTES", 5000)
    workspace.floats(2000)
    assert not workspace._free
    workspace.floats(500)
    assert len(workspace._free) == 1
