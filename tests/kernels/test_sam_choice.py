"""When the kernel of sparse access memory is taken, and when the plain loop is."""

import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from comparing import CONTROLLERS, find, make_sam, needs_library, state_of, states, subclass
from torch import nn

from memnet import SAM, ApproximateSearch, ExactSearch, LSTMController, NormalizedController, kernels
from memnet.kernels import build, sam_cpu

pytestmark = needs_library


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("heads", [1, 3])
def test_the_standard_cell_takes_the_kernel(controller: str, heads: int):
    assert find(make_sam(num_read_heads=heads, controller=CONTROLLERS[controller])) is sam_cpu.run


def test_the_model_takes_it_by_itself(monkeypatch: pytest.MonkeyPatch):
    model, runs, run = make_sam(), [], sam_cpu.run
    monkeypatch.setattr(sam_cpu, "run", lambda *arguments: runs.append(arguments) or run(*arguments))
    model(torch.randn(2, 3, 4))
    assert len(runs) == 1
    with kernels.disabled():
        outputs, _ = model(torch.randn(2, 3, 4))
    assert outputs.shape == (2, 3, 3) and len(runs) == 1


def _search(model: SAM) -> None:
    model.cell.access.search = type("Other", (ExactSearch,), {})()


def _replaced(model: SAM) -> None:
    model.cell.access.forward = model.cell.access.forward


def _clipped(model: SAM) -> None:
    model.cell.max_gradient = 1.0


def _normalized(model: SAM) -> None:
    model.cell.controller = NormalizedController(9, partial(LSTMController, hidden_size=17))


CHANGES: dict[str, Callable[[SAM], None]] = {
    **{
        f"subclass of {path}": subclass(path)
        for path in (
            "cell",
            "cell.controller",
            "cell.controller.layers.0",
            "cell.output",
            "cell.access",
            "cell.access.interface",
        )
    },
    "hook": lambda model: model.cell.access.interface.register_forward_hook(lambda *arguments: None),
    "pre-hook": lambda model: model.cell.access.register_forward_pre_hook(lambda *arguments: None),
    "backward hook": lambda model: model.cell.output.register_full_backward_hook(lambda *arguments: None),
    "parametrization": lambda model: nn.utils.parametrizations.weight_norm(model.cell.output),
    "a replaced forward": _replaced,
    "another search": _search,
    "clipped gradients": _clipped,
    "a normalised controller": _normalized,
    "double precision": lambda model: model.double(),
    "half precision": lambda model: model.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_takes_the_plain_loop(change: str):
    model = make_sam()
    assert find(model) is not None
    CHANGES[change](model)
    assert find(model) is None


def test_approximate_search_takes_the_plain_loop(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faiss", object())
    assert find(make_sam(search=ApproximateSearch())) is None


def test_other_calls_and_states_take_the_plain_loop(monkeypatch: pytest.MonkeyPatch):
    model = make_sam()
    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    others = (
        model.cell.init_state(3),
        make_sam(num_reads=2).cell.init_state(2),
        make_sam(8).cell.init_state(2),
        state._replace(access=model.cell.access.open(state.access)),
        state._replace(controller=None),
        tuple(state),
        None,
    )
    for wrong in others:
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


@pytest.mark.parametrize(
    ("name", "number"),
    [("read_slots", -1), ("read_slots", 7), ("least_used", -1), ("least_used", 7), ("in_use", 8), ("in_use", 0)],
)
def test_numbers_that_are_no_slots_in_use_take_the_plain_loop(name: str, number: int):
    """Which says what is wrong with them; the kernel would read and write anywhere."""
    model = make_sam()
    start = states(model, 2)
    state = state_of(model, start)
    inputs = torch.randn(2, 3, 4)
    assert kernels.find(model.cell, inputs, state) is not None
    getattr(state.access, name).view(-1)[-1] = number
    assert kernels.find(model.cell, inputs, state) is None


def test_numbers_of_other_types_take_the_plain_loop():
    model = make_sam()
    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    for name in ("read_slots", "least_used", "last_access", "in_use", "time"):
        for kind in (torch.int32, torch.float32):
            other = {name: getattr(state.access, name).to(kind)}
            assert kernels.find(model.cell, inputs, state._replace(access=state.access._replace(**other))) is None
    as_integer = state.access._replace(read_weights=state.access.read_weights.long())
    assert kernels.find(model.cell, inputs, state._replace(access=as_integer)) is None
