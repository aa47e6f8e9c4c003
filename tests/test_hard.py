"""Hard attention and what it learns by. What holds for every scheme is in test_conformance.py."""

import math

import pytest
import torch

from memnet import (
    ContentAddressing,
    DotScore,
    GeneralScore,
    GumbelStraightThrough,
    Hard,
    HardAddressing,
    SampledSlots,
    Softmax,
    reinforce_loss,
)
from memnet.functional import best_slot, gumbel_noise, masked_log_softmax, masked_softmax

KEY, SLOTS = 4, 3
DRAWS = 20_000
# Of so many draws a frequency has a standard deviation of at most 0.5 / sqrt(20,000) = 0.0035; this is five of them.
FREQUENCY_TOLERANCE = 0.018


def asked(heads=DRAWS, slots=SLOTS, key=KEY):
    """One question that every head asks alike, over keys that make the slots clearly unlike."""
    draw = torch.Generator().manual_seed(4)
    emission = torch.randn(1, 1, key + 1, generator=draw, dtype=torch.float64) / 2
    return emission.expand(1, heads, -1), torch.randn(1, slots, key, generator=draw, dtype=torch.float64)


def probabilities(emission, keys, mask=None):
    return masked_softmax(emission[:, :, :-1] @ keys.mT, mask)[0, 0]


def sample(emission, keys, mask=None):
    addressing = HardAddressing(DotScore(keys.shape[-1]))
    return addressing(emission, keys, addressing.init_state(keys, emission.shape[1]), mask)


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, False, True]])])
def test_slots_are_sampled_as_often_as_the_softmax_says(mask):
    emission, keys = asked()
    weights, _ = sample(emission, keys, mask)
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert (weights.sum(-1) == 1).all()
    expected = probabilities(emission, keys, mask)
    assert (weights[0].mean(0) - expected).abs().max() < FREQUENCY_TOLERANCE
    assert expected.max() < 1 - 2 * FREQUENCY_TOLERANCE  # or a sampler that always takes the best would pass


def test_the_state_tells_the_loss_what_was_sampled():
    emission, keys = asked(heads=50)
    emission = torch.randn_like(emission)  # every head asks for something else
    weights, sampled = sample(emission, keys)
    log_probs = (emission[..., :-1] @ keys.mT).log_softmax(-1)
    torch.testing.assert_close(sampled.log_prob, log_probs.gather(-1, weights.argmax(-1, keepdim=True))[..., 0])
    torch.testing.assert_close(sampled.entropy, torch.distributions.Categorical(logits=log_probs).entropy())
    assert torch.equal(sampled.baseline, emission[..., -1])
    assert not weights.requires_grad


def test_at_test_it_is_the_best_slot_and_leaves_no_state():
    emission, keys = asked(heads=50)
    emission = torch.randn_like(emission).requires_grad_()
    addressing = HardAddressing(DotScore(KEY)).eval()
    state = addressing.init_state(keys, 50)
    assert state is None
    for mask in (None, torch.tensor([[True, False, True]])):
        weights, state = addressing(emission, keys, state, mask)
        scores = emission[..., :-1] @ keys.mT
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        assert torch.equal(weights.argmax(-1), scores.argmax(-1))
        assert state is None
        assert not weights.requires_grad
    assert HardAddressing(GeneralScore(6, KEY)).emit_size == 7


def test_a_row_without_a_slot_samples_nothing():
    emission, keys = asked(heads=5)
    emission, keys = emission.clone().requires_grad_(), keys.requires_grad_()
    weights, sampled = sample(emission, keys, torch.zeros(1, SLOTS, dtype=torch.bool))
    assert not weights.any()
    assert not sampled.log_prob.any()
    assert not sampled.entropy.any()
    gradients = torch.autograd.grad(sampled.log_prob.sum() + sampled.entropy.sum(), (emission, keys))
    assert not any(gradient.any() for gradient in gradients)


def test_items_of_a_batch_are_sampled_apart():
    """The same noise, another neighbour: an item's slots stay, and its gradients are its own."""
    emission, keys = torch.randn(3, 20, KEY + 1, requires_grad=True), torch.randn(3, SLOTS, KEY)
    other_emission = torch.cat([emission[:1], 5 * torch.randn(2, 20, KEY + 1)])
    other_keys = torch.cat([keys[:1], torch.randn(2, SLOTS, KEY)])
    torch.manual_seed(1)
    weights, sampled = sample(emission, keys)
    torch.manual_seed(1)
    other, _ = sample(other_emission, other_keys)
    assert torch.equal(weights[0], other[0])
    assert not torch.equal(weights[1:], other[1:])
    (gradient,) = torch.autograd.grad(sum(part[0].sum() for part in sampled), emission)
    assert not gradient[1:].any()


def exact_expectation(scores, rewards, baseline):
    """Sum over the slots of p(s) times the gradient of the loss of having sampled s."""
    gradient = torch.zeros_like(scores)
    for slot in range(SLOTS):
        log_probs = scores.log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        sampled = SampledSlots(log_probs[..., slot], entropy, baseline)
        loss = reinforce_loss(sampled, rewards[..., slot])
        (of_slot,) = torch.autograd.grad(loss.sum(), scores)
        gradient += log_probs[..., slot, None].exp().detach() * of_slot
    return gradient


@pytest.mark.parametrize("baseline", [0.0, -2.5, 40.0])
def test_the_expected_gradient_is_that_of_the_expected_reward_whatever_the_baseline(baseline):
    scores = torch.randn(2, 5, SLOTS, dtype=torch.float64, requires_grad=True)
    rewards = torch.randn(2, 5, SLOTS, dtype=torch.float64)
    (expected,) = torch.autograd.grad(-(scores.softmax(-1) * rewards).sum(), scores)
    baselines = torch.full((2, 5), baseline, dtype=torch.float64)
    torch.testing.assert_close(exact_expectation(scores, rewards, baselines), expected)


def sampled_gradients(baseline):
    """The gradients by the emission that ``DRAWS`` single samples give, by rewards of the three slots."""
    rewards = torch.tensor([-3.0, -1.0, -2.5], dtype=torch.float64)
    emission, keys = asked()
    emission = emission.clone()
    emission[..., -1] = baseline
    emission.requires_grad_()
    weights, sampled = sample(emission, keys)
    loss = reinforce_loss(sampled, weights @ rewards)
    (gradient,) = torch.autograd.grad(loss.sum(), emission)
    query = emission[0, 0, :-1].detach().requires_grad_()
    (exact,) = torch.autograd.grad(-((keys[0] @ query).softmax(-1) * rewards).sum(), query)
    return gradient[0, :, :-1], exact


def test_the_mean_over_samples_is_the_exact_gradient_and_a_baseline_makes_it_vary_less():
    deviations = {}
    for baseline in (0.0, -2.0):
        gradients, exact = sampled_gradients(baseline)
        deviation = gradients.std(0)
        # The mean of so many has a standard deviation smaller by their root; five of these.
        assert ((gradients.mean(0) - exact).abs() < 5 * deviation / math.sqrt(DRAWS)).all()
        assert (gradients.mean(0).abs() > 10 * deviation / math.sqrt(DRAWS)).any()  # and it is not simply 0
        deviations[baseline] = deviation
    assert (deviations[-2.0] < 0.7 * deviations[0.0]).all()


def samples(requires_grad=True, shape=(2, 3)):
    return SampledSlots(*(torch.randn(shape, dtype=torch.float64, requires_grad=requires_grad) for _ in range(3)))


def test_the_loss_of_each_sequence_is_its_formula_over_the_heads_that_count():
    sampled, reward = samples(requires_grad=False), torch.randn(2, 3, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    loss = reinforce_loss(sampled, reward, mask, entropy_bonus=0.3)
    expected = 0.0
    for head in range(2):
        log_prob, entropy, baseline = (part[0, head].item() for part in sampled)
        advantage = reward[0, head].item() - baseline
        expected += -advantage * log_prob + advantage**2 - 0.3 * entropy
    torch.testing.assert_close(loss, torch.tensor([expected, 0.0], dtype=torch.float64))


def test_what_does_not_count_changes_nothing_and_learns_nothing():
    sampled, reward = samples(), torch.randn(2, 3, dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    loss = reinforce_loss(sampled, reward, mask)
    poisoned = reinforce_loss(sampled, reward.masked_fill(~mask, torch.nan), mask)
    assert torch.equal(loss, poisoned)
    for gradient in torch.autograd.grad(loss.sum(), sampled, materialize_grads=True, allow_unused=True):
        assert not gradient[~mask].any()


def test_the_baseline_learns_the_reward_and_the_scores_do_not_learn_the_baseline():
    sampled = samples()
    reward = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(
        reinforce_loss(sampled, reward, entropy_bonus=0.1).sum(),
        (*sampled, reward),
        materialize_grads=True,
        allow_unused=True,
    )
    by_log_prob, by_entropy, by_baseline, by_reward = gradients
    torch.testing.assert_close(by_log_prob, (sampled.baseline - reward).detach())
    torch.testing.assert_close(by_entropy, torch.full_like(by_entropy, -0.1))
    torch.testing.assert_close(by_baseline, 2 * (sampled.baseline - reward).detach())  # of the square, and no other
    assert not by_reward.any()


def test_hard_attention_learns_by_it():
    """Slots of which one is rewarded: the score finds it, and the baseline what it is worth."""
    torch.manual_seed(3)
    addressing = HardAddressing(GeneralScore(2, KEY))
    keys = torch.randn(1, SLOTS, KEY)
    interface = torch.nn.Linear(1, addressing.emit_size)
    optimizer = torch.optim.Adam([*addressing.parameters(), *interface.parameters()], lr=0.05)
    for _ in range(200):
        emission = interface(torch.ones(1, 16, 1))
        weights, sampled = addressing(emission, keys, addressing.init_state(keys, 1))
        optimizer.zero_grad()
        reinforce_loss(sampled, -3.0 + 2.0 * weights[..., 1]).sum().backward()
        optimizer.step()
    emission = interface(torch.ones(1, 1, 1))
    weights, _ = addressing.eval()(emission, keys, None)
    assert weights[0, 0, 1] == 1
    assert abs(emission[0, 0, -1].item() - -1.0) < 0.1


@pytest.mark.usefixtures("unchecked")
def test_rewards_that_do_not_fit_are_refused():
    sampled = samples()
    with pytest.raises(ValueError, match=r"reward has shape \(2, 1\), but .* \(batch, head\) = \(2, 3\)\."):
        reinforce_loss(sampled, torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\), but"):
        reinforce_loss(sampled, torch.zeros(2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"entropy_bonus is -0\.1, but must be at least 0\."):
        reinforce_loss(sampled, torch.zeros(2, 3), entropy_bonus=-0.1)


def test_gumbel_samples_the_softmax_whatever_the_temperature():
    scores = torch.tensor([[[0.2, -1.0, 0.9]]]).expand(1, DRAWS, -1)
    for temperature in (0.1, 1.0, 5.0):
        weights = GumbelStraightThrough(temperature)(scores)
        assert set(weights.unique().tolist()) == {0.0, 1.0}
        assert (weights.sum(-1) == 1).all()
        assert (weights[0].mean(0) - scores[0, 0].softmax(-1)).abs().max() < FREQUENCY_TOLERANCE


def test_gumbel_is_softmax_of_the_noisy_scores_backward():
    scores = torch.randn(2, 3, SLOTS, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(2, 3, SLOTS, dtype=torch.float64)
    torch.manual_seed(7)
    noise = gumbel_noise(scores)
    soft = Softmax()((scores + noise) / 0.5)
    torch.manual_seed(7)
    hard = GumbelStraightThrough(0.5)(scores)
    assert torch.equal(hard.argmax(-1), soft.argmax(-1))
    gradients = [torch.autograd.grad((weights * direction).sum(), scores)[0] for weights in (hard, soft)]
    torch.testing.assert_close(*gradients)


def test_gumbel_at_test_is_the_best_slot():
    scores = torch.randn(2, 50, SLOTS)
    normalizer = GumbelStraightThrough()
    assert not torch.equal(normalizer(scores), Hard()(scores))
    assert torch.equal(normalizer.eval()(scores), Hard()(scores))
    addressing = ContentAddressing(DotScore(KEY), normalizer)
    addressing.train()
    assert normalizer.training


def test_gumbel_noise_has_the_distribution_of_its_name():
    noise = gumbel_noise(torch.empty(DRAWS, dtype=torch.float64))
    for at in (-1.0, 0.0, 1.0, 3.0):
        assert abs((noise <= at).double().mean().item() - math.exp(-math.exp(-at))) < FREQUENCY_TOLERANCE


def test_best_slot_and_log_softmax_against_their_definitions():
    scores = torch.tensor([[[1.0, 3.0, 3.0], [-5.0, -7.0, -6.0]]])
    assert best_slot(scores).tolist() == [[[0, 1, 0], [1, 0, 0]]]
    each = torch.tensor([[[True, False, False], [False, True, True]]])
    assert best_slot(scores, each).tolist() == [[[1, 0, 0], [0, 0, 1]]]
    assert not best_slot(scores, torch.zeros_like(each)).any()
    log_weights = masked_log_softmax(scores, each)
    torch.testing.assert_close(log_weights.exp() * each, masked_softmax(scores, each))
    assert not log_weights[~each].any()
    torch.testing.assert_close(masked_log_softmax(scores), scores.log_softmax(-1))


SCALES = [0.0, 1e-5, 1.0, 1e4]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("slots", [1, 2, 3, 7])
def test_hard_attention_and_its_loss_are_finite_at_every_scale(scale, slots):
    emission = (scale * torch.randn(2, 3, KEY + 1)).requires_grad_()
    keys = (scale * torch.randn(2, slots, KEY)).requires_grad_()
    mask = torch.ones(2, slots, dtype=torch.bool)
    mask[1, 1:] = False
    weights, sampled = sample(emission, keys, mask)
    assert (weights.sum(-1) == 1).all()
    loss = reinforce_loss(sampled, torch.full((2, 3), -scale), entropy_bonus=0.1).sum()
    for x in (*sampled, loss, *torch.autograd.grad(loss, (emission, keys))):
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("temperature", [1e-3, 1.0])
def test_gumbel_is_finite_at_every_scale(scale, temperature):
    scores = (scale * scale * torch.randn(2, 3, 7)).requires_grad_()
    weights = GumbelStraightThrough(temperature)(scores)
    (gradient,) = torch.autograd.grad((weights * torch.randn(7)).sum(), scores)
    assert (weights.sum(-1) == 1).all()
    assert torch.isfinite(gradient).all()
