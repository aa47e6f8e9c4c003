"""Addressing schemes, step by step. What holds for every scheme is in test_conformance.py."""

import numpy as np
import pytest
import torch
from reference import ntm as slow

from memnet import ContentAddressing, CosineScore, DotScore, FirstSlot, LearnedWeights, LocationAddressing, TopK
from memnet.functional import NORM_EPS, SHARPEN_EPS

KEY = 4


def scheme(num_shifts=3, start=None):
    return LocationAddressing(ContentAddressing(CosineScore(KEY)), num_shifts, start)


@pytest.mark.parametrize(("num_shifts", "slots"), [(3, 6), (5, 6), (5, 3), (1, 6), (3, 1)])
def test_location_addressing_is_figure_2_of_the_paper(num_shifts, slots):
    addressing = scheme(num_shifts)
    keys = torch.randn(2, slots, KEY, dtype=torch.float64)
    state = addressing.init_state(keys, num_heads=3)
    previous = state.prev_weights.numpy()
    sizes = slow.Sizes(slots, KEY, 1, 1, num_shifts)
    for _ in range(3):
        emission = torch.randn(2, 3, addressing.emit_size, dtype=torch.float64)
        weights, state = addressing(emission, keys, state)
        expected = np.zeros((2, 3, slots))
        for item, head in np.ndindex(2, 3):
            arguments = emission[item, head].numpy(), keys[item].numpy(), previous[item, head]
            expected[item, head] = slow.address(*arguments, sizes, NORM_EPS, SHARPEN_EPS)
        torch.testing.assert_close(weights, torch.from_numpy(expected))
        assert torch.equal(state.prev_weights, weights)
        previous = expected


def emission(gate, shifts, sharpening):
    return torch.tensor([[[*[0.0] * (KEY + 1), gate, *shifts, sharpening]]])


def test_a_closed_gate_and_a_certain_shift_step_through_the_slots():
    """The paper's algorithm for copy: content is ignored and the head moves on by one slot a step, around the end."""
    keys = torch.randn(1, 5, KEY)
    state = scheme().init_state(keys, 1)
    visited = []
    for _ in range(7):
        weights, state = scheme()(emission(-50.0, [-50.0, -50.0, 50.0], 50.0), keys, state)
        visited.append(weights.argmax().item())
        assert weights.max() > 0.999
    assert visited == [1, 2, 3, 4, 0, 1, 2]


def test_an_open_gate_without_a_shift_is_content_addressing():
    keys = torch.randn(1, 5, KEY)
    content = ContentAddressing(DotScore(KEY))
    query = torch.randn(1, 1, KEY)
    location = LocationAddressing(content)
    # Gate 50: open to the last bit. Sharpening -50: gamma = 1.
    controls = torch.tensor([[[50.0, -50.0, 50.0, -50.0, -50.0]]])
    weights, _ = location(torch.cat([query, controls], -1), keys, location.init_state(keys, 1))
    torch.testing.assert_close(weights, content(query, keys, None)[0])


def test_a_mask_keeps_the_head_out_whichever_way_it_comes():
    """By its start, by a shift and by content; what would go there goes to the slots that are left."""
    keys = torch.randn(1, 4, KEY)
    mask = torch.tensor([[False, True, False, True]])
    addressing = scheme()
    state = addressing.init_state(keys, 1)  # all weight on slot 0, which is masked
    for shift in ([50.0, -50.0, -50.0], [-50.0, 50.0, -50.0], [-50.0, -50.0, 50.0]):
        weights, state = addressing(emission(-50.0, shift, 0.0), keys, state, mask)
        assert not weights[..., [0, 2]].any()
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_content_addressing_uses_its_two_halves():
    addressing = ContentAddressing(DotScore(KEY), TopK(1))
    keys, query = torch.eye(4)[None], torch.tensor([[[0.0, 3.0, 1.0, 2.0]]])
    weights, state = addressing(query, keys, None)
    assert weights.tolist() == [[[0, 1, 0, 0]]]
    assert state is None


def test_emit_sizes():
    assert scheme().emit_size == KEY + 1 + 1 + 3 + 1
    assert scheme(num_shifts=5).emit_size == KEY + 1 + 1 + 5 + 1
    assert ContentAddressing(DotScore(KEY)).emit_size == KEY


def test_starts():
    keys = torch.randn(2, 5, KEY)
    assert FirstSlot()(keys, 3).tolist() == [[[1, 0, 0, 0, 0]] * 3] * 2
    start = LearnedWeights(num_heads=3, num_slots=5)
    weights = start(keys, 3)
    torch.testing.assert_close(weights, start.logits.softmax(-1).expand(2, 3, 5))
