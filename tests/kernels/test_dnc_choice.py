"""When the Differentiable Neural Computer's kernel is taken, and when the plain loop is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from comparing import ALL_OPTIONS, DNC_CONTROLLERS, find, make_dnc, needs_library, read_addressing, subclass
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
)
from memnet.kernels import build

pytestmark = needs_library


@pytest.mark.parametrize("options", [{}, ALL_OPTIONS, {"bypass_dropout": 0.1}], ids=str)
@pytest.mark.parametrize("controller", DNC_CONTROLLERS)
def test_the_standard_cell_takes_the_kernel(controller: str, options: dict[str, Any]):
    assert find(make_dnc(controller=DNC_CONTROLLERS[controller], **options)) is not None


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
        f"subclass of {path}": subclass(path)
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
    "other score": read_addressing(lambda: LinkAddressing(ContentAddressing(DotScore(5)))),
    "other normalizer": read_addressing(lambda: LinkAddressing(ContentAddressing(CosineScore(5), Sparsemax()))),
    "no link": read_addressing(lambda: LocationAddressing(ContentAddressing(CosineScore(5)))),
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
