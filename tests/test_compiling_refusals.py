"""Steps that cannot be compiled take the plain loop, with one warning that says why."""

import random
import warnings

import pytest
import torch

from memnet import unroll
from memnet.compiling import capture
from tests.strange_cells import CountState, Strange


def growing(cell, x, state):
    total = torch.cat([state.total, cell.weight * x], 1)
    return total.sum(1, keepdim=True), CountState(total)


def looking(cell, x, state):
    total = state.total + cell.weight * x * (2 if x.sum() > 0 else 1)
    return total, CountState(total)


def remembering(cell, x, state):
    cell.seen.append(x.detach())
    total = state.total + cell.weight * x * len(cell.seen)
    return total, CountState(total)


@pytest.mark.parametrize("body", [growing, looking, remembering])
def test_a_step_that_cannot_be_compiled_takes_the_plain_loop_after_one_warning(body):
    inputs = torch.randn(2, 4, 1)
    expected, _ = unroll(Strange(body), inputs)
    cell = Strange(body)
    with pytest.warns(UserWarning, match="cannot compile the steps of Strange and takes the plain loop"):
        outputs, _ = unroll(cell, inputs, compile_steps=True)
    torch.testing.assert_close(outputs, expected)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "memnet")
        unroll(cell, inputs, compile_steps=True)


def test_without_a_look_for_side_effects_nothing_is_compiled(monkeypatch):
    """Otherwise those would happen in the first step only, on a PyTorch that has no such option."""
    monkeypatch.setattr(capture, "_ON_SIDE_EFFECTS", "no_such_option")
    inputs = torch.randn(2, 4, 1)
    cell = Strange(remembering)
    with pytest.warns(UserWarning, match="takes the plain loop, which is slower: PyTorch .* does not tell whether"):
        outputs, _ = unroll(cell, inputs, compile_steps=True)
    assert len(cell.seen) == 4
    torch.testing.assert_close(outputs, unroll(Strange(remembering), inputs)[0])


def test_no_compiler():
    number = random.random()  # nobody has compiled this before

    def body(cell, x, state):
        total = state.total + number * cell.weight * x
        return total, CountState(total)

    inputs = torch.randn(2, 4, 1)
    cell = Strange(body)
    missing = {"cpp.cxx": (None, "no-such-compiler"), "fx_graph_cache": False}
    with (
        torch._inductor.config.patch(missing),
        pytest.warns(UserWarning, match="which is slower: .*[cC]ompiler"),
    ):
        outputs, _ = unroll(cell, inputs, compile_steps=True)
    torch.testing.assert_close(outputs, unroll(cell, inputs)[0])
