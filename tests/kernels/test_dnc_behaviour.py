"""What holds for the Differentiable Neural Computer's kernel besides its numbers, and when it is taken."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from comparing import (
    DNC_CONTROLLERS,
    assert_same,
    compare,
    make_dnc,
    needs_library,
    results,
    state_of,
    states,
    tensors_of,
)
from torch import nn

import memnet
from memnet import (
    DNC,
    ContentAddressing,
    CosineScore,
    DotScore,
    LinkAddressing,
    LocationAddressing,
    LSTMController,
    NormalizedController,
    Sparsemax,
    kernels,
    unroll,
)
from memnet.kernels import build, dnc_cpu, workspace

pytestmark = needs_library

ALL = {"mask_content": True, "erase_freed": True, "sharpen_links": True}


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
def test_two_threads_give_the_same_bits_as_one(batch: int, monkeypatch: pytest.MonkeyPatch):
    model, lengths = make_dnc(20, 6, 2, **ALL), torch.arange(batch) % 5 + 1
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


@pytest.mark.parametrize("options", [{}, ALL], ids=["plain", "all"])
def test_chunks_with_carried_state_equal_the_whole(options: dict[str, bool]):
    model = make_dnc(20, 6, 2, **options)
    inputs, start = torch.randn(3, 7, 4), states(model, 3)
    whole, whole_end = unroll(model.cell, inputs, state_of(model, start))
    first, state = unroll(model.cell, inputs[:, :3], state_of(model, start))
    second, end = unroll(model.cell, inputs[:, 3:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-5, atol=1e-6)
    for x, y in zip(tensors_of(end), tensors_of(whole_end), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
    parameters = [x for name, x in model.named_parameters() if "initial" not in name and "start" not in name]
    in_chunks = torch.autograd.grad(first.square().sum() + second.square().sum(), parameters)
    for x, y in zip(in_chunks, torch.autograd.grad(whole.square().sum(), parameters), strict=True):
        assert (x - y).abs().max() <= 2e-5 * y.abs().max()


def test_without_gradients_the_numbers_are_the_same_and_less_is_kept(monkeypatch: pytest.MonkeyPatch):
    model, lengths = make_dnc(), torch.tensor([30, 7, 12])
    inputs, start = torch.randn(3, 30, 4), states(model, 3)
    taken: list[int] = []
    floats = workspace.floats
    monkeypatch.setattr(workspace, "floats", lambda count: taken.append(count) or floats(count))
    trained = results(model, inputs, start, lengths)
    for_training = sum(taken)
    taken.clear()
    with torch.no_grad():
        outputs, state = unroll(model.cell, inputs, state_of(model, start), lengths)
    assert torch.equal(outputs, trained.forward["outputs"])
    for i, x in enumerate(tensors_of(state)):
        assert torch.equal(x, trained.forward[f"end {i}"])
    assert sum(taken) < for_training / 3


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
            for options in ({}, ALL):
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


def test_nothing_given_is_changed_and_nothing_returned_is_shared():
    model = make_dnc(erase_freed=True)
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    before = [x.clone() for x in (inputs, *start, *model.parameters())]
    first = results(model, inputs, start)
    for x, y in zip((inputs, *start, *model.parameters()), before, strict=True):
        assert torch.equal(x, y)
    copies = [{name: x.clone() for name, x in part.items()} for part in first]
    results(model, torch.randn(3, 4, 4), states(model, 3))
    for part, copied in zip(first, copies, strict=True):
        for name, x in part.items():
            assert torch.equal(x, copied[name]), name


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


def test_a_graph_can_be_kept_but_not_differentiated_twice():
    model = make_dnc()
    weight = model.cell.access.interface.weight
    loss = model(torch.randn(2, 3, 4))[0].square().sum()
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss, weight, retain_graph=True)
    assert torch.equal(first, second)
    (third,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        third.square().sum().backward()


@pytest.mark.parametrize("where", ["hidden", "memory", "usage", "link", "parameter"])
def test_nan_stays_nan(where: str):
    model = make_dnc(20, 6)
    inputs, start = torch.randn(3, 4, 4), states(model, 3)
    if where == "parameter":
        with torch.no_grad():
            model.cell.access.interface.bias[0] = torch.nan
    else:
        start[{"hidden": 0, "memory": 2, "usage": 3, "link": 5}[where]][1].view(-1)[1] = torch.nan
    got = results(model, inputs, start)
    with kernels.disabled():
        expected = results(model, inputs, start)
    for name, other in expected.forward.items():
        assert torch.equal(got.forward[name].isnan(), other.isnan()), name
    for name, other in expected.gradients.items():
        assert got.gradients[name].isnan().any() == other.isnan().any(), name
    assert got.forward["outputs"][1].isnan().any()
    assert where == "parameter" or torch.isfinite(got.forward["outputs"][[0, 2]]).all()


def test_a_model_learns_the_same_as_with_the_plain_loop():
    def losses() -> torch.Tensor:
        """Of repeating each vector one step later."""
        torch.manual_seed(1)
        model = DNC(4, 4, num_slots=16, slot_size=6, num_read_heads=1, controller=DNC_CONTROLLERS["lstm-1"])
        optimizer = torch.optim.Adam(model.parameters(), 4e-2)
        curve = []
        for _ in range(40):
            bits = torch.rand(4, 6, 4).round()
            loss = nn.functional.binary_cross_entropy_with_logits(model(bits)[0][:, 1:], bits[:, :-1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.detach())
        return torch.stack(curve)

    fast = losses()
    with kernels.disabled():
        plain = losses()
    assert plain[-1] < 0.7 * plain[0]
    # Where slots are used alike but for a rounding, the two may take them in another order.
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.02)


def find(model: DNC, batch: int = 2, dtype: torch.dtype = torch.float32) -> Any:
    return kernels.find(model.cell, torch.randn(batch, 3, 4, dtype=dtype), model.cell.init_state(batch))


@pytest.mark.parametrize("options", [{}, ALL, {"bypass_dropout": 0.1}], ids=str)
@pytest.mark.parametrize("controller", DNC_CONTROLLERS)
def test_the_standard_cell_takes_the_kernel(controller: str, options: dict[str, Any]):
    assert find(make_dnc(controller=DNC_CONTROLLERS[controller], **options)) is not None


def _subclass(path: str) -> Callable[[DNC], None]:
    def change(model: DNC) -> None:
        module = model.get_submodule(path)
        module.__class__ = type("Other", (type(module),), {})

    return change


def _read_addressing(addressing: Callable[[], Any]) -> Callable[[DNC], None]:
    def change(model: DNC) -> None:
        model.cell.access.read_addressing = addressing()

    return change


def _replaced(path: str, method: str) -> Callable[[DNC], None]:
    def change(model: DNC) -> None:
        module = model.get_submodule(path)
        setattr(module, method, getattr(module, method))

    return change


def _without_gain(model: DNC) -> None:
    model.cell.controller.norm = nn.LayerNorm(17, elementwise_affine=False)


def _other_epsilon(model: DNC) -> None:
    model.cell.access.read_addressing.inner.score.eps = 1e-3


CHANGES = {
    **{
        f"subclass of {path}": _subclass(path)
        for path in (
            "cell",
            "cell.controller",
            "cell.controller.controller",
            "cell.controller.controller.layers.0",
            "cell.controller.norm",
            "cell.output",
            "cell.access",
            "cell.access.interface",
            "cell.access.read_addressing",
            "cell.access.write_addressing",
            "cell.access.read_addressing.inner",
            "cell.access.read_addressing.inner.score",
            "cell.access.write_addressing.inner.normalizer",
        )
    },
    "hook": lambda model: model.cell.access.interface.register_forward_hook(lambda *arguments: None),
    "pre-hook": lambda model: model.cell.controller.norm.register_forward_pre_hook(lambda *arguments: None),
    "backward hook": lambda model: model.cell.output.register_full_backward_hook(lambda *arguments: None),
    "no gain": _without_gain,
    "a replaced forward": _replaced("cell.access", "forward"),
    "a replaced part of a step": _replaced("cell.access.write_addressing", "after_read"),
    "epsilons that differ": _other_epsilon,
    "other score": _read_addressing(lambda: LinkAddressing(ContentAddressing(DotScore(5)))),
    "other normalizer": _read_addressing(lambda: LinkAddressing(ContentAddressing(CosineScore(5), Sparsemax()))),
    "no link": _read_addressing(lambda: LocationAddressing(ContentAddressing(CosineScore(5)))),
    "double precision": lambda model: model.double(),
    "half precision": lambda model: model.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_takes_the_plain_loop(change: str):
    model = make_dnc(controller=partial(NormalizedController, controller=partial(LSTMController, hidden_size=17)))
    assert find(model) is not None
    CHANGES[change](model)
    assert find(model) is None


def test_other_calls_and_states_take_the_plain_loop(monkeypatch: pytest.MonkeyPatch):
    model = make_dnc()
    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    without = state._replace(access=state.access._replace(write=None))
    for wrong in (model.cell.init_state(3), make_dnc(erase_freed=True).cell.init_state(2), without, tuple(state), None):
        assert kernels.find(model.cell, inputs, wrong) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert find(model) is None
    with kernels.disabled():
        assert find(model) is None
    found = []
    torch.func.grad(lambda x: (found.append(kernels.find(model.cell, x, state)), x.sum())[1])(inputs)
    assert found == [None]
    assert find(model) is not None
    monkeypatch.setattr(build, "load", lambda source: None)
    assert find(model) is None


def test_recording_takes_the_plain_loop_and_changes_nothing():
    model, inputs = make_dnc(), torch.randn(2, 3, 4)
    expected, _ = model(inputs)
    with memnet.record(model) as trace:
        assert find(model) is None
        outputs, _ = model(inputs)
    assert trace["cell.access.read_addressing"].shape == (2, 3, 1, 7)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
