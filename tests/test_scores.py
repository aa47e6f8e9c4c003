"""Scores against loops written from the papers. What holds for every score is in test_conformance.py."""

import numpy as np
import pytest
import torch
from reference import attention as slow
from reference import ntm

from memnet import AdditiveScore, CosineScore, DotScore, GeneralScore, ScaledDotScore
from memnet.functional import NORM_EPS

BATCH, HEADS, SLOTS, KEY, QUERY = 2, 3, 4, 5, 6


def compare(score, reference):
    score.double()
    emission = torch.randn(BATCH, HEADS, score.emit_size, dtype=torch.float64)
    keys = torch.randn(BATCH, SLOTS, KEY, dtype=torch.float64)
    expected = np.zeros((BATCH, HEADS, SLOTS))
    for item, head, slot in np.ndindex(*expected.shape):
        expected[item, head, slot] = reference(emission[item, head].numpy(), keys[item, slot].numpy())
    torch.testing.assert_close(score(emission, keys).detach(), torch.from_numpy(expected))


def test_dot():
    compare(DotScore(KEY), slow.dot)


def test_scaled_dot():
    compare(ScaledDotScore(KEY), slow.scaled_dot)


def test_general():
    score = GeneralScore(QUERY, KEY)
    matrix = score.projection.weight.detach().double().numpy().T
    compare(score, lambda query, key: slow.general(query, key, matrix))


def test_additive():
    score = AdditiveScore(QUERY, KEY)
    matrix, bias, direction = (
        x.detach().double().numpy() for x in (score.projection.weight, score.projection.bias, score.direction)
    )
    compare(score, lambda query, key: slow.additive(query, key, matrix, bias, direction))


def test_cosine_with_strength():
    def reference(emission, key):
        return ntm.softplus(emission[-1]) * ntm.cosine(np.tanh(emission[:-1]), key, NORM_EPS)

    compare(CosineScore(KEY), reference)


SCORES = [DotScore(KEY), ScaledDotScore(KEY), GeneralScore(QUERY, KEY), AdditiveScore(QUERY, KEY), CosineScore(KEY)]


@pytest.mark.parametrize("emission_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("score", SCORES, ids=lambda score: type(score).__name__)
def test_scores_stay_in_float32_under_autocast(score, emission_dtype):
    emission, keys = torch.randn(BATCH, HEADS, score.emit_size, dtype=emission_dtype), torch.randn(BATCH, SLOTS, KEY)
    with torch.autocast("cpu", torch.bfloat16):
        scores = score(emission, keys)
        narrow_keys = score(emission, keys.bfloat16())
    assert scores.dtype == narrow_keys.dtype == torch.float32


@pytest.mark.parametrize(
    "score", [DotScore(KEY), ScaledDotScore(KEY), CosineScore(KEY)], ids=lambda s: type(s).__name__
)
def test_scores_without_a_layer_lose_nothing_under_autocast(score):
    emission, keys = torch.randn(BATCH, HEADS, score.emit_size), torch.randn(BATCH, SLOTS, KEY)
    with torch.autocast("cpu", torch.bfloat16):
        scores = score(emission, keys)
    assert torch.equal(scores, score(emission, keys))


@pytest.mark.parametrize("score", SCORES, ids=lambda score: type(score).__name__)
def test_keys_of_another_width_are_refused(score):
    with pytest.raises(ValueError, match=r"key_size is 5, but the memory's key width is 4"):
        score(torch.zeros(1, 1, score.emit_size), torch.zeros(1, 2, 4))
