"""Local attention against loops written from the paper. What holds for every scheme is in test_conformance.py."""

import numpy as np
import pytest
import torch
from reference import attention
from reference import position as slow

from memnet import (
    ContentAddressing,
    DotScore,
    GeneralScore,
    HardAddressing,
    LocationAddressing,
    MonotonicLocalAddressing,
    PredictiveLocalAddressing,
    ReadAccess,
    Sparsemax,
)

KEY, SLOTS, STEPS = 4, 9, 12
LENGTHS = [9, 6, 1]


def content():
    return ContentAddressing(DotScore(KEY))


def asked(batch=3, heads=STEPS):
    emission = torch.randn(batch, heads, KEY, dtype=torch.float64)
    return emission, torch.randn(batch, SLOTS, KEY, dtype=torch.float64)


def mask_of(lengths, slots=SLOTS):
    return torch.arange(slots) < torch.tensor(lengths)[:, None]


def predictive(half_window=2):
    """With a v_p thirty times its start, so that positions spread over the whole sequence."""
    addressing = PredictiveLocalAddressing(content(), half_window).double()
    with torch.no_grad():
        addressing.direction *= 30
    return addressing


def scores_of(emission, keys):
    scores = np.zeros((*emission.shape[:2], keys.shape[1]))
    for item, head, slot in np.ndindex(*scores.shape):
        scores[item, head, slot] = attention.dot(emission[item, head].numpy(), keys[item, slot].numpy())
    return scores


# Multiples of 1/4, so that no rounding moves a slot over the edge of a window.
@pytest.mark.parametrize(("half_window", "slots_per_step"), [(2, 1.0), (1, 2.5), (3, 0.25), (20, 1.0)])
def test_monotonic_is_the_papers_local_m(half_window, slots_per_step):
    emission, keys = asked()
    addressing = MonotonicLocalAddressing(content(), half_window, slots_per_step)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1), mask_of(LENGTHS))
    scores, expected = scores_of(emission, keys), np.zeros((3, STEPS, SLOTS))
    for item, step in np.ndindex(3, STEPS):
        expected[item, step] = slow.local_m(scores[item, step], LENGTHS[item], step, half_window, slots_per_step)
    torch.testing.assert_close(weights, torch.from_numpy(expected))


@pytest.mark.parametrize("half_window", [1, 2, 5])
def test_predictive_is_the_papers_local_p(half_window):
    emission, keys = asked()
    addressing = predictive(half_window)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1), mask_of(LENGTHS))
    matrix, direction = addressing.projection.weight.detach().numpy(), addressing.direction.detach().numpy()
    scores, expected = scores_of(emission, keys), np.zeros((3, STEPS, SLOTS))
    for item, step in np.ndindex(3, STEPS):
        state = emission[item, step].numpy()
        expected[item, step] = slow.local_p(scores[item, step], LENGTHS[item], state, matrix, direction, half_window)
    torch.testing.assert_close(weights.detach(), torch.from_numpy(expected))
    best = expected[0].argmax(-1)
    assert best.max() - best.min() >= 5  # the positions do spread


ADDRESSINGS = {
    "monotonic": lambda inner=None: MonotonicLocalAddressing(inner or content(), 2, 0.75),
    "predictive": lambda inner=None: predictive() if inner is None else PredictiveLocalAddressing(inner, 2),
}


@pytest.fixture(params=ADDRESSINGS)
def make(request):
    return ADDRESSINGS[request.param]


@pytest.mark.parametrize("num_heads", [1, 2])
@pytest.mark.parametrize("chunks", [[1] * STEPS, [5, 7], [3, 1, 8]])
def test_all_positions_at_once_is_one_after_the_other(make, num_heads, chunks):
    addressing = make()
    assert addressing.steps_at_once
    emission, keys = asked(heads=STEPS * num_heads)
    mask = mask_of(LENGTHS)
    expected, end = addressing(emission, keys, addressing.init_state(keys, num_heads), mask)
    state = addressing.init_state(keys, num_heads)
    parts = []
    for part in emission.split([num_heads * steps for steps in chunks], 1):
        weights, state = addressing(part, keys, state, mask)
        parts.append(weights)
    torch.testing.assert_close(torch.cat(parts, 1), expected)
    assert torch.equal(state.step, end.step)
    assert state.step.tolist() == [[STEPS] * num_heads] * 3


def test_heads_of_one_step_look_at_one_window():
    emission, keys = asked(heads=6)
    addressing = MonotonicLocalAddressing(content(), 1)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 2))
    seen = [row.nonzero()[:, 0].tolist() for row in weights[0]]
    assert seen == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3]]


def test_it_can_start_anywhere():
    emission, keys = asked(heads=1)
    addressing = MonotonicLocalAddressing(content(), 1)
    state = addressing.init_state(keys, 1)
    weights, state = addressing(emission, keys, state._replace(step=torch.tensor([[4], [0], [8]])))
    assert [row[0].nonzero()[:, 0].tolist() for row in weights] == [[3, 4, 5], [0, 1], [7, 8]]
    assert state.step.tolist() == [[5], [1], [9]]


def test_a_read_access_steps_as_it_asks_at_once(make):
    access = ReadAccess(make(), slot_size=KEY, num_read_heads=2, control_size=5).double()
    keys, controls = torch.randn(2, SLOTS, KEY).double(), torch.randn(2, STEPS, 5).double()
    start = access.init_state(keys, mask=mask_of(LENGTHS[:2]))
    at_once, _ = access(controls, start)
    state, steps = start, []
    for control in controls.unbind(1):
        reads, state = access(control, state)
        steps.append(reads)
    torch.testing.assert_close(torch.cat(steps, 1), at_once)


def test_outside_the_window_weights_and_gradients_are_exactly_zero():
    emission, keys = asked()
    keys.requires_grad_()
    addressing = MonotonicLocalAddressing(content(), 2)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1))
    for step in range(STEPS):
        inside = (torch.arange(SLOTS) - step).abs() <= 2
        assert not weights[:, step, ~inside].any()
        assert (weights[:, step, inside] > 0).all()
    (gradient,) = torch.autograd.grad(weights[:, 1, 2].sum(), keys)
    assert gradient[:, :4].any(-1).all()
    assert not gradient[:, 4:].any()


def test_a_window_beyond_the_end_holds_nothing():
    """At position t the window begins at slot t - D: of 6 slots it holds the last at t = 8 and none at t = 9."""
    emission, keys = asked(batch=1)
    addressing = MonotonicLocalAddressing(content(), 3)
    weights, _ = addressing(emission.requires_grad_(), keys, addressing.init_state(keys, 1), mask_of([6]))
    assert weights[0, 8].nonzero().tolist() == [[5]]
    torch.testing.assert_close(weights[0, 8, 5].item(), 1.0)
    assert not weights[0, 9:].any()
    (gradient,) = torch.autograd.grad(weights[0, 9:].sum(), emission)
    assert not gradient.any()


def test_weights_of_monotonic_sum_to_one_wherever_the_window_holds_a_slot():
    emission, keys = asked()
    addressing = MonotonicLocalAddressing(content(), 3)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1), mask_of(LENGTHS))
    for item, length in enumerate(LENGTHS):
        expected = (torch.arange(STEPS) - 3 < length).double()
        torch.testing.assert_close(weights[item].sum(-1), expected)


@pytest.mark.parametrize("before", [0, 3])
def test_padding_on_either_side_changes_nothing(make, before):
    addressing = make()
    emission, keys = asked(batch=1)
    expected, _ = addressing(emission, keys, addressing.init_state(keys, 1))
    noise = torch.randn(1, 5, KEY, dtype=torch.float64)
    padded = torch.cat([noise[:, :before], keys, noise[:, before:]], 1)
    mask = torch.zeros(1, SLOTS + 5, dtype=torch.bool)
    mask[:, before : before + SLOTS] = True
    weights, _ = addressing(emission, padded, addressing.init_state(padded, 1), mask)
    torch.testing.assert_close(weights[..., before : before + SLOTS], expected)
    assert not weights[~mask.expand(STEPS, -1)[None]].any()


def test_the_predicted_position_follows_the_length_and_learns():
    """A v_p of 0 looks at the middle, S / 2, and what lies to the right of it draws p_t there."""
    addressing = predictive(2)
    with torch.no_grad():
        addressing.direction.zero_()
    emission, keys = torch.ones(3, 1, KEY).double(), torch.zeros(3, SLOTS, KEY).double()
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1), mask_of([9, 6, 1]))
    seen = [row[0].nonzero()[:, 0].tolist() for row in weights]
    assert seen == [[3, 4, 5, 6], [1, 2, 3, 4, 5], [0]]  # around 4.5, 3 and 0.5
    torch.testing.assert_close(weights[0, 0, 3:5].flip(0), weights[0, 0, 5:7])
    (gradient,) = torch.autograd.grad(weights[0, 0, 6], addressing.direction)
    step = addressing.direction.detach() + 1e-3 * gradient
    hidden = (addressing.projection.weight @ emission[0, 0]).tanh()
    assert (step @ hidden).sigmoid() > 0.5


def test_whatever_is_inside_sees_the_window_alone(make):
    """The best of a window is not what is left of the best of all slots."""
    emission, keys = asked()
    for inner in (ContentAddressing(DotScore(KEY), Sparsemax()), HardAddressing(DotScore(KEY)).eval()):
        addressing = make(inner).double()
        heads = emission if inner.emit_size == KEY else torch.cat([emission, emission[..., :1]], -1)
        weights, _ = addressing(heads, keys, addressing.init_state(keys, 1), mask_of([9, 9, 9]))
        found = weights.sum(-1)
        assert (found > 0).all()
        if isinstance(addressing, MonotonicLocalAddressing):
            torch.testing.assert_close(found, torch.ones_like(found))


def test_what_is_inside_is_told_everything():
    """State, sizes and calls are those of the addressing in the window."""
    location = LocationAddressing(content())
    for addressing in (MonotonicLocalAddressing(location, 2), PredictiveLocalAddressing(location, 2)):
        assert addressing.emit_size == location.emit_size
        assert not addressing.steps_at_once
        keys = torch.randn(2, SLOTS, KEY)
        state = addressing.init_state(keys, 1)
        assert torch.equal(state.inner.prev_weights, location.init_state(keys, 1).prev_weights)
        emission = torch.randn(2, 1, addressing.emit_size)
        _, state = addressing(emission, keys, state)
        within = torch.ones(2, SLOTS, dtype=torch.bool)
        if isinstance(addressing, MonotonicLocalAddressing):
            within[:, 3:] = False
            expected, _ = location(emission, keys, location.init_state(keys, 1), within)
            torch.testing.assert_close(state.inner.prev_weights, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_are_not_narrowed_under_autocast(dtype):
    addressing = predictive().float()
    emission, keys = torch.randn(2, STEPS, KEY).to(dtype), torch.randn(2, SLOTS, KEY)
    expected, _ = addressing(emission.float(), keys, addressing.init_state(keys, 1))
    with torch.autocast("cpu", torch.bfloat16):
        weights, _ = addressing(emission, keys, addressing.init_state(keys, 1))
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1.0, 1e4])
@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_finite_at_every_scale_and_step(make, scale, slots):
    addressing = make().float()
    emission = (scale * torch.randn(2, 20, KEY)).requires_grad_()
    keys = (scale * torch.randn(2, slots, KEY)).requires_grad_()
    mask = mask_of([slots, 0], slots)
    weights, _ = addressing(emission, keys, addressing.init_state(keys, 1), mask)
    assert not weights[1].any()
    gradients = torch.autograd.grad((weights * torch.randn(slots)).sum(), (emission, keys, *addressing.parameters()))
    for x in (weights, *gradients):
        assert torch.isfinite(x).all()


@pytest.mark.usefixtures("unchecked")
def test_heads_that_are_no_whole_steps_are_refused():
    addressing = MonotonicLocalAddressing(content())
    emission, keys = asked(heads=3)
    with pytest.raises(ValueError, match="emission holds 3 heads, but must hold a multiple of the 2"):
        addressing(emission, keys, addressing.init_state(keys, 2))


def test_general_attention_asks_and_predicts_by_the_same_decoder_state():
    addressing = PredictiveLocalAddressing(ContentAddressing(GeneralScore(6, KEY)))
    assert addressing.emit_size == 6
    assert addressing.projection.weight.shape == (6, 6)
    assert addressing.half_window == 10  # the paper's D
