"""Compiled steps on a GPU, where they are replayed as CUDA graphs, beside the plain loop there."""

import warnings

import pytest
import torch
from test_compiling import BATCH, TIME, assert_same, make_model

from memnet import LSTMController, compiling, unroll
from memnet.compiling import graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def cell():
    return make_model(controller=LSTMController).cuda().cell


@pytest.fixture
def taken(monkeypatch):
    """How many recordings there were."""
    made = []
    record = graphs.record
    monkeypatch.setattr(graphs, "record", lambda *arguments: made.append(1) or record(*arguments))
    return made


def test_the_same_numbers_and_gradients_from_two_recordings(cell, taken):
    inputs = torch.randn(BATCH, TIME, 3, device="cuda")
    for factor in (1.0, 2.0, 3.0):
        assert_same(cell, factor * inputs)
    assert_same(cell, inputs.repeat(1, 5, 1))
    assert len(taken) == 2 and not compiling._captured[cell].broken


def test_padded_sequences_and_parameters_elsewhere(cell):
    inputs = torch.randn(BATCH, TIME, 3, device="cuda")
    assert_same(cell, inputs, lengths=torch.tensor([7, 2, 4]))
    cell.load_state_dict({name: each + 0.1 for name, each in cell.state_dict().items()}, assign=True)
    assert_same(cell, inputs)


def test_sequences_may_wait_for_their_backward_passes(cell):
    inputs = [torch.randn(BATCH, TIME, 3, device="cuda") for _ in range(3)]

    def gradients(compile_steps):
        outputs = [unroll(cell, each, compile_steps=compile_steps)[0] for each in inputs]
        return torch.autograd.grad(sum(each.square().sum() for each in outputs), [*cell.parameters()])

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_a_training_that_is_replayed_goes_as_one_that_is_not(taken):
    """Parameters change where they are; nobody warns."""

    def losses(compile_steps):
        model = make_model(controller=LSTMController).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(3)
        found = []
        for _ in range(20):
            inputs = torch.randn(BATCH, TIME, 3, generator=generator).cuda()
            outputs, _ = unroll(model.cell, inputs, compile_steps=compile_steps)
            loss = (outputs - inputs[..., :2]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "memnet")
        assert losses(True) == pytest.approx(losses(False), rel=1e-3)
    assert taken
