"""The numbers that go wrong in this field, each beside the form that goes wrong."""

import math

import pytest
import torch

from memnet import NTM, CosineScore, kernels
from memnet.functional import circular_shift, cosine_similarity, erase_and_add, masked_softmax, read, sharpen


def test_sharpening_does_not_underflow():
    weights, sharpening = torch.full((1, 1, 128), 1 / 128), torch.full((1, 1, 1), 50.0)
    powers = weights**sharpening
    assert (powers / powers.sum()).isnan().all()  # 128^-50 is 0 in float32, and the quotient of powers 0 / 0
    torch.testing.assert_close(sharpen(weights, sharpening), weights)


def test_sharpening_a_weighting_that_is_almost_certain():
    weights = torch.tensor([[[1.0, 0.0, 0.0]]], requires_grad=True)
    sharpening = torch.full((1, 1, 1), 1e4, requires_grad=True)
    sharp = sharpen(weights, sharpening)
    assert sharp.tolist() == [[[1.0, 0.0, 0.0]]]
    gradients = torch.autograd.grad(sharp[..., 0].sum() - sharp[..., 1].sum(), (weights, sharpening))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_sharpening_ties_stays_a_tie():
    weights = torch.tensor([[[0.5, 0.5, 0.0]]])
    assert sharpen(weights, torch.full((1, 1, 1), 1e4)).tolist() == [[[0.5, 0.5, 0.0]]]


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e-6, 1.0, 1e4, 1e15])
def test_cosine_similarity_at_every_scale(scale):
    queries = (scale * torch.randn(1, 1, 20)).requires_grad_()
    keys = (scale * torch.randn(1, 3, 20)).requires_grad_()
    similarity = cosine_similarity(queries, keys)
    assert (similarity.abs() <= 1 + 1e-6).all()
    gradients = torch.autograd.grad(similarity.sum(), (queries, keys))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_empty_slot_looks_similar_to_nothing():
    """At the default memory start, 1e-6 everywhere, a slot as long as its rounding must not count as a full match."""
    empty = torch.full((1, 2, 20), 1e-6)
    query = torch.ones(1, 1, 20)
    assert (cosine_similarity(query, empty).abs() < 0.01).all()
    assert (cosine_similarity(query, empty, eps=0.0) > 0.99).all()


@pytest.mark.parametrize("lowest", [-1e30, -1e4, 0.0])
def test_a_row_without_a_slot_is_zero(lowest):
    scores = torch.full((2, 1, 3), lowest, requires_grad=True)
    mask = torch.tensor([[False] * 3, [True, False, False]])
    weights = masked_softmax(scores, mask)
    assert weights.tolist() == [[[0, 0, 0]], [[1, 0, 0]]]
    (gradient,) = torch.autograd.grad(weights.sum(), scores)
    assert not gradient.any()


def test_equations_stay_in_float32_under_autocast():
    """Arguments of half precision are widened, and the products are not narrowed."""
    narrow = {"dtype": torch.bfloat16}
    memory, weights = torch.randn(2, 5, 4, **narrow), torch.rand(2, 3, 5, **narrow).softmax(-1)
    vectors, one = torch.randn(2, 3, 4, **narrow), torch.rand(2, 3, 1, **narrow)
    calls = [
        lambda *x: cosine_similarity(x[2], x[0]),
        lambda *x: read(x[0], x[1]),
        lambda *x: erase_and_add(x[0], x[1], x[2].sigmoid(), x[2]),
        lambda *x: sharpen(x[1], 1 + x[3]),
        lambda *x: circular_shift(x[1], x[2][..., :3].softmax(-1)),
        lambda *x: masked_softmax(x[1]),
    ]
    for call in calls:
        wide = [x.float() for x in (memory, weights, vectors, one)]
        with torch.autocast("cpu", torch.bfloat16):
            assert call(memory, weights, vectors, one).dtype == torch.float32
            under_autocast = call(*wide)
        assert torch.equal(under_autocast, call(*wide))


def test_a_model_under_autocast_is_close_and_learns():
    model = NTM(3, 2, num_slots=6, slot_size=4)
    inputs = torch.randn(2, 8, 3)
    plain, _ = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = model(inputs)
    assert state.access.memory.dtype == state.access.read.prev_weights.dtype == torch.float32
    # bfloat16 keeps 8 bits, 0.4%, of the controller's and the output's numbers, which are of the order of 1.
    torch.testing.assert_close(outputs.float(), plain, rtol=0, atol=0.02)
    outputs.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_float64_stays_float64():
    model = NTM(3, 2, num_slots=6, slot_size=4).double()
    outputs, state = model(torch.randn(2, 3, 3, dtype=torch.float64))
    assert outputs.dtype == state.access.memory.dtype == torch.float64


def test_a_long_sequence_stays_finite():
    """200 steps of the plain loop with parameters ten times their start: gates and shifts near their ends."""
    model = NTM(3, 2, num_slots=8, slot_size=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 10
    with kernels.disabled():
        outputs, state = model(torch.randn(2, 200, 3))
    assert torch.isfinite(outputs).all()
    # Every write adds at most 1 to a number of the memory, in size.
    assert state.access.memory.abs().max() <= 200
    torch.testing.assert_close(state.access.read.prev_weights.sum(-1), torch.ones(2, 1))
    outputs.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_key_strength_that_is_hugely_negative_ignores_the_content():
    score = CosineScore(4)
    scores = score(torch.tensor([[[1.0, 2.0, 3.0, 4.0, -1e4]]]), torch.randn(1, 3, 4))
    assert scores.abs().max() == 0
    assert math.isfinite(score(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 1e4]]]), torch.randn(1, 3, 4)).max())
