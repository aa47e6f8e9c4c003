"""The papers' equations against loops written from the paper, and their gradients against finite differences."""

import numpy as np
import pytest
import torch
from reference import ntm as slow

from memnet import functional

BATCH, HEADS, SLOTS, WIDTH = 2, 3, 7, 4


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def weighting(*shape):
    return normal(*shape).softmax(-1)


def each_head(function, *arguments):
    """Stacks what ``function`` gives for every (item, head); arguments without heads are given whole to each."""
    rows = []
    for item in range(BATCH):
        for head in range(HEADS):
            rows.append(function(*(x[item, head].numpy() if hasattr(x, "dim") else x(item) for x in arguments)))
    return torch.from_numpy(np.stack(rows)).reshape(BATCH, HEADS, -1)


@pytest.mark.parametrize("eps", [0.0, functional.NORM_EPS])
def test_cosine_similarity(eps):
    queries, keys = normal(BATCH, HEADS, WIDTH), normal(BATCH, SLOTS, WIDTH)
    expected = each_head(
        lambda query, memory: np.array([slow.cosine(query, row, eps) for row in memory]),
        queries,
        lambda item: keys[item].numpy(),
    )
    torch.testing.assert_close(functional.cosine_similarity(queries, keys, eps), expected)


def test_cosine_similarity_eps_hardly_matters_away_from_zero():
    queries, keys = normal(BATCH, HEADS, WIDTH), normal(BATCH, SLOTS, WIDTH)
    with_eps, without = (
        functional.cosine_similarity(queries, keys),
        functional.cosine_similarity(queries, keys, eps=0.0),
    )
    # The similarity changes by a factor of about 1 - eps / 2 (1 / |q|^2 + 1 / |k|^2).
    shortest = torch.cat([queries, keys], 1).norm(dim=-1).min()
    torch.testing.assert_close(with_eps, without, rtol=(functional.NORM_EPS / shortest**2).item(), atol=0)


def test_content_weights():
    queries, keys = normal(BATCH, HEADS, WIDTH), normal(BATCH, SLOTS, WIDTH)
    strengths = normal(BATCH, HEADS, 1).exp()
    actual = functional.masked_softmax(strengths * functional.cosine_similarity(queries, keys, eps=0.0))
    memory = lambda item: keys[item].numpy()  # noqa: E731
    expected = each_head(lambda k, b, m: slow.content_weights(k, b[0], m), queries, strengths, memory)
    torch.testing.assert_close(actual, expected)


def test_interpolate():
    content, previous = weighting(BATCH, HEADS, SLOTS), weighting(BATCH, HEADS, SLOTS)
    gate = normal(BATCH, HEADS, 1).sigmoid()
    expected = each_head(lambda c, p, g: slow.interpolate(c, p, g[0]), content, previous, gate)
    torch.testing.assert_close(functional.interpolate(content, previous, gate), expected)


@pytest.mark.parametrize("slots", [1, 2, 3, SLOTS])
@pytest.mark.parametrize("num_shifts", [1, 3, 5])
def test_circular_shift(num_shifts, slots):
    weights, shifts = weighting(BATCH, HEADS, slots), weighting(BATCH, HEADS, num_shifts)
    expected = each_head(slow.shift, weights, shifts)
    torch.testing.assert_close(functional.circular_shift(weights, shifts), expected)


def test_circular_shift_moves_towards_higher_slots_and_around():
    weights = torch.tensor([[[0.0, 0.0, 1.0]]])
    forward = functional.circular_shift(weights, torch.tensor([[[0.0, 0.0, 1.0]]]))
    assert forward.tolist() == [[[1.0, 0.0, 0.0]]]
    backward = functional.circular_shift(weights, torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert backward.tolist() == [[[0.0, 1.0, 0.0]]]


@pytest.mark.parametrize("eps", [0.0, functional.SHARPEN_EPS])
def test_sharpen(eps):
    weights, sharpening = weighting(BATCH, HEADS, SLOTS), 1 + normal(BATCH, HEADS, 1).exp()
    expected = each_head(lambda w, g: slow.sharpen(w, g[0], eps), weights, sharpening)
    torch.testing.assert_close(functional.sharpen(weights, sharpening, eps=eps), expected)


def test_sharpen_with_a_mask_is_sharpening_of_the_slots_that_are_left():
    weights, sharpening = weighting(BATCH, HEADS, SLOTS), 1 + normal(BATCH, HEADS, 1).exp()
    mask = torch.tensor([True, False, True, True, False, True, False])
    actual = functional.sharpen(weights, sharpening, mask.expand(BATCH, -1))
    torch.testing.assert_close(actual[..., mask], functional.sharpen(weights[..., mask], sharpening))
    assert not actual[..., ~mask].any()


def test_masked_softmax():
    scores = normal(BATCH, HEADS, SLOTS)
    mask = torch.tensor([[True, False, True, True, False, True, False], [False] * SLOTS])
    weights = functional.masked_softmax(scores, mask)
    torch.testing.assert_close(weights[:1, :, mask[0]], scores[:1, :, mask[0]].softmax(-1))
    assert not weights.masked_select(~mask[:, None]).any()
    torch.testing.assert_close(functional.masked_softmax(scores), each_head(slow.softmax, scores))


def test_read():
    memory, weights = normal(BATCH, SLOTS, WIDTH), weighting(BATCH, HEADS, SLOTS)
    expected = each_head(lambda w, m: slow.read(m, w), weights, lambda item: memory[item].numpy())
    torch.testing.assert_close(functional.read(memory, weights), expected)


def write_arguments(heads):
    erase = normal(BATCH, heads, WIDTH).sigmoid()
    return normal(BATCH, SLOTS, WIDTH), weighting(BATCH, heads, SLOTS), erase, normal(BATCH, heads, WIDTH)


@pytest.mark.parametrize("heads", [1, 2, HEADS])
def test_erase_and_add(heads):
    arguments = write_arguments(heads)
    expected = [slow.write(*(x[item].numpy() for x in arguments)) for item in range(BATCH)]
    torch.testing.assert_close(functional.erase_and_add(*arguments), torch.from_numpy(np.stack(expected)))


def test_the_order_of_write_heads_does_not_matter():
    memory, *heads = write_arguments(HEADS)
    backwards = functional.erase_and_add(memory, *(x.flip(1) for x in heads))
    torch.testing.assert_close(functional.erase_and_add(memory, *heads), backwards)


def test_all_heads_erase_before_any_adds():
    """Two heads at one slot: both vectors stay, where writing one after the other would erase the first."""
    at_slot = torch.ones(1, 2, 1)
    add = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    memory = functional.erase_and_add(torch.full((1, 1, 2), 9.0), at_slot, torch.ones(1, 2, 2), add)
    assert memory.tolist() == [[[1.0, 2.0]]]


# Weights as logits before a softmax: finite differences must not leave the region where a weighting has a meaning.
GRADCHECKS = {
    "cosine_similarity": lambda: (functional.cosine_similarity, normal(2, 2, 3), normal(2, 4, 3)),
    "cosine_similarity at zero": lambda: (functional.cosine_similarity, torch.zeros(2, 2, 3).double(), normal(2, 4, 3)),
    "masked_softmax": lambda: (lambda s: functional.masked_softmax(s, MASK), normal(2, 2, 4)),
    "interpolate": lambda: (functional.interpolate, normal(2, 2, 4), normal(2, 2, 4), normal(2, 2, 1)),
    "circular_shift": lambda: (functional.circular_shift, normal(2, 2, 4), normal(2, 2, 3)),
    "sharpen": lambda: (lambda w, g: functional.sharpen(w.softmax(-1), 1 + g.exp()), normal(2, 2, 4), normal(2, 2, 1)),
    "sharpen masked": lambda: (
        lambda w, g: functional.sharpen(w.softmax(-1), 1 + g.exp(), MASK),
        normal(2, 2, 4),
        normal(2, 2, 1),
    ),
    "read": lambda: (functional.read, normal(2, 4, 3), normal(2, 2, 4)),
    "erase_and_add": lambda: (functional.erase_and_add, *(normal(2, 4, 3), normal(2, 2, 4)), *normal(2, 2, 2, 3)),
    "erase_and_add by one head": lambda: (
        functional.erase_and_add,
        normal(2, 4, 3),
        normal(2, 1, 4),
        *normal(2, 2, 1, 3),
    ),
}
MASK = torch.tensor([[True, False, True, True], [False] * 4])


@pytest.mark.parametrize("name", GRADCHECKS)
def test_gradient(name):
    function, *arguments = GRADCHECKS[name]()
    assert torch.autograd.gradcheck(function, [x.requires_grad_() for x in arguments])
