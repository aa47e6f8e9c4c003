"""Normalizers against slow versions of their definitions. What holds for every normalizer is in test_conformance.py."""

import numpy as np
import pytest
import torch
from reference import attention as slow

from memnet import Entmax15, Hard, Softmax, Sparsemax, TopK

BATCH, HEADS, SLOTS = 2, 3, 6
PAIRS = {
    "Softmax": (Softmax, slow.softmax),
    "Sparsemax": (Sparsemax, slow.sparsemax),
    "Entmax15": (Entmax15, slow.entmax15),
    "TopK": (lambda: TopK(3), lambda scores: slow.top_k(scores, 3)),
    "Hard": (Hard, slow.hard),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    make, reference = PAIRS[request.param]
    return make(), reference


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_against_the_definition(pair, scale):
    normalizer, reference = pair
    scores = scale * torch.randn(BATCH, HEADS, SLOTS, dtype=torch.float64)
    expected = np.apply_along_axis(reference, -1, scores.numpy())
    torch.testing.assert_close(normalizer(scores), torch.from_numpy(expected))


def test_a_mask_leaves_what_the_definition_gives_without_those_slots(pair):
    normalizer, reference = pair
    scores = torch.randn(BATCH, HEADS, SLOTS, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False, True])
    weights = normalizer(scores, mask.expand(BATCH, -1))
    expected = np.apply_along_axis(reference, -1, scores[..., mask].numpy())
    torch.testing.assert_close(weights[..., mask], torch.from_numpy(expected))
    assert not weights[..., ~mask].any()


def test_a_row_without_a_slot_is_zero(pair):
    normalizer, _ = pair
    assert not normalizer(torch.randn(1, HEADS, SLOTS), torch.zeros(1, SLOTS, dtype=torch.bool)).any()


@pytest.mark.parametrize("offset", [-1e9, 0.0, 1e9])
def test_masked_weights_sum_to_one_far_from_zero(pair, offset):
    """In float32 the numbers next to 1e9 are 64 away from it: nothing may be told apart by adding to a score."""
    normalizer, _ = pair
    scores = torch.full((1, 1, 3), offset)
    mask = torch.tensor([[True, False, False]])
    assert normalizer(scores, mask).tolist() == [[[1.0, 0.0, 0.0]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_stay_in_float32_under_autocast(pair, dtype):
    normalizer, _ = pair
    scores, mask = torch.randn(BATCH, HEADS, SLOTS).to(dtype), torch.ones(BATCH, SLOTS, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        for weights in (normalizer(scores), normalizer(scores, mask)):
            assert weights.dtype == torch.float32
            torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, HEADS))


def test_top_k_of_more_slots_than_there_are_is_softmax():
    scores = torch.randn(BATCH, HEADS, SLOTS)
    torch.testing.assert_close(TopK(SLOTS + 1)(scores), Softmax()(scores))


def test_hard_is_one_hot_forward_and_softmax_backward():
    scores = torch.randn(BATCH, HEADS, SLOTS, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(BATCH, HEADS, SLOTS, dtype=torch.float64)
    hard, soft = Hard()(scores), Softmax()(scores)
    assert set(hard.unique().tolist()) == {0.0, 1.0}
    gradients = [torch.autograd.grad((weights * direction).sum(), scores)[0] for weights in (hard, soft)]
    torch.testing.assert_close(*gradients)
