"""When the kernel is taken, and when the plain loop is."""

import copy
from typing import Any

import pytest
import torch
from comparing import find, make, needs_library, read_addressing, subclass
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import memnet
from memnet import (
    NTM,
    ContentAddressing,
    CosineScore,
    DotScore,
    LocationAddressing,
    LSTMController,
    MemoryCell,
    ReadWriteAccess,
    Softmax,
    Sparsemax,
    kernels,
)

pytestmark = needs_library


def test_the_standard_cell_takes_the_kernel():
    assert find(make()) is not None


def _replace_output(model: NTM) -> None:
    model.cell.output = nn.Linear(model.cell.output.in_features, 9)


def _without_bias(model: NTM) -> None:
    model.cell.output = nn.Linear(model.cell.output.in_features, 3, bias=False)


def _replace_forward(model: NTM) -> None:
    model.cell.access.forward = model.cell.access.forward


def _replace_compare(model: NTM) -> None:
    score = model.cell.access.read_addressing.inner.score
    score.compare = score.compare


def _other_epsilon(model: NTM) -> None:
    model.cell.access.read_addressing.inner.score.eps = 1e-3


def _half(model: NTM) -> None:
    model.bfloat16()


CHANGES = {
    **{
        f"subclass of {path}": subclass(path)
        for path in (
            "cell",
            "cell.controller",
            "cell.controller.layers.0",
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
    "pre-hook": lambda model: model.cell.controller.register_forward_pre_hook(lambda *arguments: None),
    "backward hook": lambda model: model.cell.output.register_full_backward_hook(lambda *arguments: None),
    "parametrization": lambda model: nn.utils.parametrizations.weight_norm(model.cell.output),
    "no bias": _without_bias,
    "another output width": _replace_output,
    "a replaced forward": _replace_forward,
    "a replaced comparison": _replace_compare,
    "epsilons that differ": _other_epsilon,
    "other score": read_addressing(lambda: LocationAddressing(ContentAddressing(DotScore(5)))),
    "other normalizer": read_addressing(lambda: LocationAddressing(ContentAddressing(CosineScore(5), Sparsemax()))),
    "other shifts": read_addressing(lambda: LocationAddressing(ContentAddressing(CosineScore(5)), 5)),
    "no location": read_addressing(lambda: ContentAddressing(CosineScore(5))),
    "bfloat16": _half,
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_else_takes_the_plain_loop(change: str):
    model = make()
    CHANGES[change](model)
    assert find(model) is None


def test_double_precision_takes_the_plain_loop():
    assert find(make().double(), dtype=torch.float64) is None
    assert find(make(), dtype=torch.float64) is None


def test_a_state_that_does_not_fit_takes_the_plain_loop():
    model = make()
    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    other = state._replace(reads=state.reads.expand(2, 2, -1))
    for wrong in (model.cell.init_state(3), state._replace(controller=None), other, tuple(state), None):
        assert kernels.find(model.cell, inputs, wrong) is None
    assert kernels.find(model.cell, inputs[0], state) is None
    assert kernels.find(model.cell, inputs[..., :3], state) is None
    assert kernels.find(model.cell, inputs[:, :0], state) is None


def test_the_switches(monkeypatch: pytest.MonkeyPatch):
    model = make()
    with kernels.disabled():
        assert find(model) is None
        with kernels.disabled():
            assert find(model) is None
        assert find(model) is None
    assert find(model) is not None
    monkeypatch.setenv("MEMNET_KERNELS", "0")
    assert find(model) is None
    monkeypatch.setenv("MEMNET_KERNELS", "1")
    assert find(model) is not None


def test_recording_takes_the_plain_loop_and_changes_nothing():
    model, inputs = make(), torch.randn(2, 3, 4)
    expected, _ = model(inputs)
    with memnet.record(model) as trace:
        assert find(model) is None
        outputs, _ = model(inputs)
    assert trace["cell.access.read_addressing"].shape == (2, 3, 1, 7)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    assert find(model) is not None


def test_a_hook_on_every_module_takes_the_plain_loop():
    handle = nn.modules.module.register_module_forward_hook(lambda *arguments: None)
    try:
        assert find(make()) is None
    finally:
        handle.remove()
    assert find(make()) is not None


def test_autocast_takes_the_plain_loop():
    with torch.autocast("cpu", torch.bfloat16):
        assert find(make()) is None


class Watching(TorchDispatchMode):
    """Sees every operation, as a counter of floating-point operations does."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return function(*arguments, **(options or {}))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_transformations_of_torch_take_the_plain_loop():
    model, found = make(), []

    def run(inputs: Tensor) -> Tensor:
        found.append(kernels.find(model.cell, inputs, state))
        return inputs.sum()

    inputs, state = torch.randn(2, 3, 4), model.cell.init_state(2)
    torch.func.grad(run)(inputs)
    torch.func.vmap(run)(inputs[None])
    torch.jit.trace(run, inputs, check_trace=False)
    assert found == [None] * 3
    with torch.autograd.forward_ad.dual_level():
        assert find(model) is None
    with Watching():
        assert find(model) is None
    assert find(model) is not None


def test_a_model_made_by_hand_from_the_same_parts_takes_the_kernel():
    def addressing() -> LocationAddressing:
        return LocationAddressing(ContentAddressing(CosineScore(5), Softmax()))

    controller = LSTMController(4 + 5, 6)
    cell = MemoryCell(controller, ReadWriteAccess(6, addressing(), addressing(), 7, 5), 4, 3)
    inputs = torch.randn(2, 3, 4)
    assert kernels.find(cell, inputs, cell.init_state(2)) is not None
    outputs, _ = memnet.unroll(cell, inputs)
    double = copy.deepcopy(cell).double()
    expected, _ = memnet.unroll(double, inputs.double())
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-6)
