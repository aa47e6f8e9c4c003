"""What holds for every cell's whole-sequence kernel on the CPU."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from comparing import (
    ALL_OPTIONS,
    Model,
    comparable,
    make,
    make_dnc,
    make_sam,
    needs_library,
    results,
    state_of,
    states,
    tensors_of,
)

from memnet import unroll
from memnet.kernels import workspace

pytestmark = needs_library

Make = Callable[..., Model]

CELLS: dict[str, Make] = {
    "Neural Turing Machine": make,
    "Differentiable Neural Computer": make_dnc,
    "with all options": partial(make_dnc, **ALL_OPTIONS),
    "sparse access memory": make_sam,
}


@pytest.fixture(params=CELLS)
def make_model(request: pytest.FixtureRequest) -> Make:
    return CELLS[request.param]


def test_chunks_with_carried_state_equal_the_whole(make_model: Make):
    model = make_model(20, 6, num_read_heads=2)
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


def test_without_gradients_the_numbers_are_the_same_and_less_is_kept(make_model: Make, monkeypatch: pytest.MonkeyPatch):
    model, lengths = make_model(), torch.tensor([30, 7, 12])
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
    for i, x in enumerate(comparable(state)):
        assert torch.equal(x, trained.forward[f"end {i}"])
    assert sum(taken) < for_training / 3


def test_nothing_given_is_changed_and_nothing_returned_is_shared(make_model: Make):
    model = make_model()
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


def test_what_stands_in_the_padding_does_not_matter(make_model: Make):
    model, lengths = make_model(), torch.tensor([2, 4])
    inputs, start = torch.randn(2, 4, 4), states(model, 2)
    first = results(model, inputs, start, lengths)
    inputs[0, 2:] = 1e30
    second = results(model, inputs, start, lengths)
    assert torch.equal(first.forward["outputs"], second.forward["outputs"])
    assert not first.forward["outputs"][0, 2:].any() and not second.gradients["inputs"][0, 2:].any()
    name = "cell.access.interface.weight"
    assert torch.equal(first.gradients[name], second.gradients[name])


def test_a_graph_can_be_kept_but_not_differentiated_twice(make_model: Make):
    model = make_model()
    weight = model.cell.access.interface.weight
    loss = model(torch.randn(2, 3, 4))[0].square().sum()
    (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (second,) = torch.autograd.grad(loss, weight, retain_graph=True)
    assert torch.equal(first, second)
    (third,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        third.square().sum().backward()
