"""The trace of weights: what was recorded, and that nothing stays behind."""

import re
from functools import partial

import pytest
import torch

from memnet import NTM, FeedForwardController, kernels, record
from memnet.recording import has_hooks

READ, WRITE = "cell.access.read_addressing", "cell.access.write_addressing"


@pytest.fixture
def model():
    controller = partial(FeedForwardController, hidden_size=6)
    return NTM(3, 2, num_slots=5, slot_size=4, num_read_heads=2, num_write_heads=3, controller=controller)


def test_weights_are_those_of_stepping_by_hand(model):
    inputs = torch.randn(2, 4, 3)
    with record(model) as trace:
        recorded_outputs, _ = model(inputs)
    state = model.cell.init_state(2)
    for step in range(4):
        output, state = model.cell(inputs[:, step], state)
        torch.testing.assert_close(trace[READ][:, step], state.access.read.prev_weights)
        torch.testing.assert_close(trace[WRITE][:, step], state.access.write.prev_weights)
        torch.testing.assert_close(recorded_outputs[:, step], output)
    assert trace[READ].shape == (2, 4, 2, 5)
    assert trace[WRITE].shape == (2, 4, 3, 5)


def test_addressings_within_addressings_are_recorded_too(model):
    with record(model) as trace:
        model(torch.randn(2, 4, 3))
    assert set(trace) == {READ, WRITE, f"{READ}.inner", f"{WRITE}.inner"}
    assert not torch.equal(trace[READ], trace[f"{READ}.inner"])


def test_calls_follow_one_another_in_time(model):
    inputs = torch.randn(2, 5, 3)
    with record(model) as whole:
        model(inputs)
    with record(model) as chunked:
        _, state = model(inputs[:, :2])
        model(inputs[:, 2:], state)
    torch.testing.assert_close(chunked[READ], whole[READ])


def test_recording_changes_no_output_and_leaves_nothing_behind(model):
    inputs = torch.randn(2, 4, 3)
    with kernels.disabled():
        before, _ = model(inputs)
        with record(model) as trace:
            during, _ = model(inputs)
            assert has_hooks(model)
        assert not has_hooks(model)
        length = trace[READ].shape[1]
        after, _ = model(inputs)
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    assert trace[READ].shape[1] == length == 4
    assert not trace[READ].requires_grad


def test_hooks_are_removed_after_an_exception(model):
    with pytest.raises(KeyError, match="on purpose"), record(model) as trace:
        model(torch.randn(2, 4, 3))
        raise KeyError("on purpose")
    assert not has_hooks(model)
    assert trace[READ].shape == (2, 4, 2, 5)


def test_who_listens_to_the_way_back_listens_too(model):
    handle = model.cell.output.register_full_backward_pre_hook(lambda *_: None)
    assert has_hooks(model) and not has_hooks(model.cell.controller)
    handle.remove()
    assert not has_hooks(model)


def test_batches_of_different_sizes_are_refused(model):
    shapes = re.escape("write_addressing.inner gave weights (2, 3, 5) and then (1, 3, 5)")
    with pytest.raises(ValueError, match=shapes), record(model) as trace:
        model(torch.randn(2, 4, 3))
        model(torch.randn(1, 4, 3))
    assert not has_hooks(model)
    assert trace[READ].shape == (2, 4, 2, 5)


def test_nothing_run_is_nothing_recorded(model):
    with record(model) as trace:
        pass
    assert trace == {}
